"""The page that people label answers on, in a real browser: by keys, with nothing lost, and whatever the texts hold."""

import csv
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from safetyheads.judges.labels import CONDITIONS, LABELS, read_labels, seal
from safetyheads.report.annotation import COLUMNS

pytestmark = pytest.mark.long

Start = Callable[[], Chrome]
WORDS = list(LABELS)
NAMES = {"\x1b": "ESC", "\x07": "BEL", "\x00": "NUL", "\r": "CR"}
UNSEEN = {sign: f"U+{ord(sign):04X}" for sign in "\x7f\x9b\u2028\u2029\u202e\u202c"} | NAMES


class Page:
    """The page as an annotator uses it."""

    def __init__(self, driver: Chrome, address: str) -> None:
        self.driver = driver
        driver.get(address)

    def press(self, *keys: str) -> None:
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def text(self, name: str) -> str:
        return str(self.driver.find_element(By.ID, name).get_property("textContent"))

    def click(self, name: str) -> None:
        self.driver.find_element(By.ID, name).click()

    def is_shown(self, name: str) -> bool:
        return self.driver.find_element(By.ID, name).is_displayed()

    def place(self) -> tuple[int, int]:
        """The number of the answer that is there, and how many there are."""
        words = self.text("place").split()
        return int(words[1]), int(words[3])

    def export(self, folder: Path) -> Path:
        path = folder / "labels.csv"
        path.unlink(missing_ok=True)
        self.click("export")
        WebDriverWait(self.driver, 20).until(lambda _: path.exists())
        return path

    def requests(self) -> list[str]:
        """The addresses of all that was asked for, but for the browser's own and those within the page."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("blob:", "data:", "chrome:"))]


@pytest.fixture
def page(chromium: Start, address: str) -> Iterator[Page]:
    yield Page(chromium(), address)


def as_shown(text: str) -> str:
    """A text with the names of what is not to be seen."""
    return "".join(f"[{UNSEEN[sign]}]" if sign in UNSEEN else sign for sign in text) or "(empty: no text at all)"


def answers(sample: pd.DataFrame) -> pd.DataFrame:
    """The answers in the page's order: each once for its query."""
    return sample.drop_duplicates(["query", "text"], ignore_index=True)


def test_answers_are_labelled_by_keys_kept_over_a_reload_exported_and_read_back(
    page: Page, chromium: Start, address: str, sample: pd.DataFrame, tmp_path: Path
) -> None:
    wanted = [WORDS[at % 4] for at in range(len(answers(sample)))]
    page.driver.find_element(By.ID, "annotator").send_keys("Ada 12 u")
    page.click("place")
    page.press(" ", "1", " ", "4", "u")  # 4 was wrong
    assert page.place() == (2, len(wanted))
    assert page.text("count") == f"1 of {len(wanted)} labelled"
    assert page.is_shown("text"), "what was undone is there to be labelled again"
    page.press("2")
    page.driver.refresh()
    assert page.text("count") == f"2 of {len(wanted)} labelled"
    assert page.place() == (3, len(wanted)), "who reloads goes on where he was"
    page.press(" ", "3", " ", "2", Keys.BACKSPACE, "4")
    page.driver.quit()
    again = Page(chromium(), address)  # another day
    for at in range(4, len(wanted)):
        assert again.place() == (at + 1, len(wanted))
        again.press(" ", str(at % 4 + 1))
    assert again.text("count") == f"{len(wanted)} of {len(wanted)} labelled"
    assert "export" in again.text("status")
    path = again.export(tmp_path)
    found = read_labels(path)
    assert found[["query", "text"]].to_numpy().tolist() == sample[["query", "text"]].to_numpy().tolist()
    assert set(found["annotator"]) == {"Ada 12 u"}
    by_answer = dict(zip(answers(sample)[["query", "text"]].itertuples(index=False, name=None), wanted))
    expected = [LABELS[by_answer[row]] for row in sample[["query", "text"]].itertuples(index=False, name=None)]
    assert [None if pd.isna(value) else bool(value) for value in found["harmful"]] == expected
    sealed = [
        next(c for c in CONDITIONS if seal(name, c) == told) for name, told in zip(sample["id"], sample["sealed"])
    ]
    assert found["condition"].tolist() == sealed
    assert found["stratum"].tolist() == sample["stratum"].tolist()
    exported = list(csv.reader(StringIO(path.read_bytes().decode(), newline=""), strict=True))
    assert exported[0] == COLUMNS
    assert [line[:6] for line in exported[1:]] == sample[COLUMNS[:6]].to_numpy().tolist()


def test_an_answer_is_hidden_until_it_is_asked_for_and_not_labelled_unseen(page: Page) -> None:
    assert not page.is_shown("text")
    assert page.text("text").strip() == ""
    page.press("1")
    assert page.text("count").startswith("0 of")
    assert "Show the answer first" in page.text("status")
    page.click("show")
    assert page.is_shown("text")
    page.driver.find_element(By.CSS_SELECTOR, "[data-label=refused]").click()
    assert page.text("count").startswith("1 of")
    assert not page.is_shown("text"), "the next one is hidden again"
    page.press(" ")
    assert page.is_shown("text"), "the space key does not press the button that was clicked last"
    assert page.text("count").startswith("1 of")


def test_texts_are_text_whatever_they_hold(page: Page, sample: pd.DataFrame) -> None:
    for at, (query, text) in enumerate(answers(sample)[["query", "text"]].itertuples(index=False, name=None)):
        assert page.place()[0] == at + 1
        page.press(" ")
        assert page.text("query") == as_shown(query)
        assert page.text("text") == as_shown(text)
        inside = page.driver.find_elements(By.CSS_SELECTOR, "#query *, #text *")
        assert {element.tag_name for element in inside} <= {"span"}
        page.press(Keys.ARROW_RIGHT)
    assert page.driver.title == "Label answers"
    assert page.driver.get_log("browser") == [], "nothing was tried that the policy forbids"


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An address of this machine that answers to all, and the paths that it was asked for."""
    asked: list[str] = []

    class Listening(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Listening) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}", asked
        listening.shutdown()


TRY_TO_SEND = """
const [address, done] = arguments;
const image = new Image();
image.src = `${address}/image`;
const made = document.createElement("script");
made.textContent = `new Image().src = "${address}/script"`;
document.body.append(image, made);
navigator.sendBeacon(`${address}/beacon`);
fetch(`${address}/fetch`).then(() => done("sent"), () => done("refused"));
"""
"""What a script would do that got into the page."""


def test_nothing_leaves_the_machine(page: Page, address: str, server: tuple[str, list[str]], tmp_path: Path) -> None:
    page.press(" ", "1", " ", "2")
    page.export(tmp_path)
    assert page.requests() == [address]
    there, asked = server
    assert page.driver.execute_async_script(TRY_TO_SEND, there) == "refused"
    assert asked == []
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    (tmp_path / "without.html").write_text(re.sub("<meta http-equiv[^>]*>", "", text), encoding="utf-8")
    page.driver.get((tmp_path / "without.html").as_uri())
    assert page.driver.execute_async_script(TRY_TO_SEND, there) == "sent"
    WebDriverWait(page.driver, 20).until(lambda _: len(asked) == 4)
    assert sorted(asked) == ["/beacon", "/fetch", "/image", "/script"], "without the policy all of it would be sent"


def test_back_forth_and_on_to_the_next_without_a_label(page: Page) -> None:
    page.press(" ", "1", " ", "2", Keys.ARROW_RIGHT, " ", "3")
    last = page.place()[1]
    assert page.place() == (5, last)
    page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert page.text("mark") == "Labelled: refused"
    pressed = page.driver.find_elements(By.CSS_SELECTOR, "[data-label][aria-pressed=true]")
    assert [button.get_attribute("data-label") for button in pressed] == ["refused"]
    page.press("n")
    assert page.place()[0] == 3
    page.press("n")
    assert page.place()[0] == 5
    page.press(*["u"] * 5)
    assert page.text("count").startswith("0 of")
    assert page.place()[0] == 1
    page.press(Keys.ARROW_LEFT)
    assert page.place()[0] == 1


def test_an_export_is_imported_into_another_sample_and_can_be_undone(
    page: Page, sample: pd.DataFrame, tmp_path: Path
) -> None:
    own = answers(sample).assign(label="", annotator="Bo")
    own.loc[[0, 3], "label"] = ["refused", "unsure"]
    foreign = own.tail(1).assign(text="an answer that is not there", label="complied")
    file = tmp_path / "earlier.csv"
    with file.open("w", encoding="utf-8-sig", newline="") as written:  # as other programs write it
        csv.writer(written).writerows([COLUMNS, *pd.concat([own, foreign]).itertuples(index=False)])
    page.driver.find_element(By.ID, "file").send_keys(str(file))
    WebDriverWait(page.driver, 20).until(lambda _: "Imported" in page.text("status"))
    assert "2 new labels; 1 are of answers that this page does not have" in page.text("status")
    assert page.text("count").startswith("2 of")
    assert page.driver.find_element(By.ID, "annotator").get_property("value") == "Bo"
    assert page.text("mark") == "Labelled: refused"
    page.press("u")
    assert page.text("count").startswith("0 of")
    file.write_text("a;b\n1;2\n")
    page.driver.find_element(By.ID, "file").send_keys(str(file))
    WebDriverWait(page.driver, 20).until(lambda _: "has no column query, text, label" in page.text("status"))


def test_a_browser_that_does_not_save_says_so_at_once(chromium: Start, address: str) -> None:
    driver = chromium()
    code = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": code})
    page = Page(driver, address)
    assert page.is_shown("trouble")
    assert "Export the labels before you close" in page.text("trouble")
    page.press(" ", "1")
    assert page.text("count").startswith("1 of"), "it works all the same"


def test_what_was_saved_of_another_sample_is_left_alone(
    page: Page, address: str, sample: pd.DataFrame, tmp_path: Path
) -> None:
    from safetyheads.report.annotation import page as made

    page.press(" ", "1")
    (tmp_path / "other.html").write_text(made(sample.head(5)), encoding="utf-8")
    other = Page(page.driver, (tmp_path / "other.html").as_uri())
    assert other.text("count").startswith("0 of")
    page.driver.get(address)
    assert page.text("count").startswith("1 of")
    page.click("anew")
    page.driver.switch_to.alert.dismiss()
    assert page.text("count").startswith("1 of")
    page.click("anew")
    page.driver.switch_to.alert.accept()
    assert page.text("count").startswith("0 of")
