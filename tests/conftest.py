"""What all tests may use: a stand-in for Hugging Face (hub_stand_in.py) lies beside this file."""

import os
from itertools import groupby

import pytest
from hypothesis import settings

settings.register_profile("short", deadline=None, derandomize=True, max_examples=25)
settings.register_profile("long", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the files with slow tests out to pytest's workers, which do them first, and fill up with the others.

    A worker gets the next so many tests of the list; one that is done takes over from another's end.

        worker 0: test_demo_study, test_golden, ..., then quick tests
        worker 1: test_errors, test_identity, ..., then quick tests
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.path.parent.name == "workflow"}
    quick = [item for item in items if item.path not in slow]
    dealt: list[list[pytest.Item]] = [[] for _ in range(workers)]
    by_file = groupby((item for item in items if item.path in slow), key=lambda item: item.path)
    for number, (_, tests) in enumerate(by_file):
        dealt[number % workers].extend(tests)
    each = -(-len(items) // workers)
    for tests in dealt:
        room = max(0, each - len(tests))
        tests += quick[:room]
        del quick[:room]
    items[:] = [*(item for tests in dealt for item in tests), *quick]
