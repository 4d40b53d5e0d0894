"""Debian's Chromium without a window, and a page with answers that try to be more than text."""

import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from safetyheads.report.annotation import blinded, page
from safetyheads.statistics.annotation_sample import draw

if TYPE_CHECKING:
    from selenium import webdriver

collect_ignore = [] if find_spec("selenium") else ["test_annotation_page.py"]
"""What is left out where the extra `browser` is not installed."""

EVIL = {
    "a script": "<script>document.title = 'changed'</script>",
    "an end of the data": "</script><script>document.title = 'changed'</script><!--",
    "a handler": "<img src=x onerror=\"document.title = 'changed'\"><svg onload=\"document.title = 'changed'\">",
    "a request": "<link rel=stylesheet href=//example.org/a.css><iframe src=https://example.org/></iframe>",
    "entities": "&lt;b&gt; &amp;amp; &#0; <b>bold</b>",
    "ends of lines": "one\u2028two\u2029three\r\nfour\rfive\nsix",
    "escape codes": "\x1b[31mred\x1b[0m \x07\x00\x7f\x9b \u202eturned\u202c",
    "a template": "{{ 7 * 7 }} ${document.title = 'changed'} {% raw %}",
    "a formula": '=HYPERLINK("http://example.org", "x")',
    "nothing": "",
    "spaces": "  led and trailed  ",
}


@pytest.fixture(scope="session")
def sample() -> pd.DataFrame:
    """The rows of the page: most texts under both conditions, one under one of them."""
    keys = {"model": "m", "dataset": "d", "template": "t", "disagree": False}
    units = [
        {**keys, "condition": condition, "query": f"{name}? <i>{text}", "text": text, "outcome": "other"}
        for condition in ("plain", "ablated")
        for name, text in EVIL.items()
        if (condition, name) != ("plain", "spaces")
    ]
    return blinded(draw(pd.DataFrame(units), 100, 0))


@pytest.fixture
def address(sample: pd.DataFrame, tmp_path: Path) -> str:
    """Where the page lies."""
    path = tmp_path / "index.html"
    path.write_text(page(sample), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def chromium(tmp_path: Path) -> "Iterator[Callable[[], webdriver.Chrome]]":
    """Starts Chromium, each time with the same profile of the test, which saves its downloads in `tmp_path`."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    started = []

    def start() -> webdriver.Chrome:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or "chromium"
        for word in ("--headless=new", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}"):
            options.add_argument(word)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")
        options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        driver = webdriver.Chrome(options, Service(shutil.which("chromedriver") or "chromedriver"))
        started.append(driver)
        return driver

    yield start
    for driver in started:
        if driver.service.is_connectable():
            driver.quit()
