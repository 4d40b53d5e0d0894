"""What all tests may use: a stand-in for Hugging Face (hub_stand_in.py) lies beside this file."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that pytest's workers come to an end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.path.parent.name == "workflow"}
    items.sort(key=lambda item: item.path not in slow)
