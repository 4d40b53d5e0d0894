"""The files that people label: blind, whole, and with texts that are data and never markup."""

import csv
import json
import re
from base64 import b64encode
from hashlib import sha256
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from safetyheads.judges.labels import LABELS, read_labels
from safetyheads.report.annotation import COLUMNS, as_csv, blinded, page
from safetyheads.statistics.annotation_sample import draw

EVIL = (
    "</script><script>x()</script><!-- <img src=x onerror=x()> &lt; ]]> {{ 7 * 7 }} \u2028\u2029 \x00\x1b[31m \r\n\"'"
)
TEXTS = [EVIL, "", " spaces ", "NA", "=1+1", "https://example.org/x.png", "a\r\nb\rc\n"]


@pytest.fixture
def rows() -> pd.DataFrame:
    units = [
        {"model": "secret-model", "dataset": "secret-set", "template": "secret-template", "condition": condition}
        | {"query": f"Who? {EVIL}", "text": text, "disagree": at % 2 == 0, "outcome": "unfinished"}
        for condition in ("plain", "ablated")
        for at, text in enumerate(TEXTS)
    ]
    return blinded(draw(pd.DataFrame(units), 100, 0))


def data_of(text: str) -> dict[str, object]:
    """What the page's script reads, as an HTML parser finds it: up to the first `</script`."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script', text, re.DOTALL | re.IGNORECASE)
    assert found is not None
    return dict(json.loads(found[1]))


def test_the_csv_file_has_every_row_and_texts_to_the_byte(rows: pd.DataFrame) -> None:
    read = list(csv.reader(StringIO(as_csv(rows), newline=""), strict=True))
    assert read[0] == COLUMNS
    assert [line[:6] for line in read[1:]] == rows[COLUMNS[:6]].to_numpy().tolist()
    assert {tuple(line[6:]) for line in read[1:]} == {("", "", "")}
    assert sorted({line[2] for line in read[1:]}) == sorted(TEXTS)


def test_neither_file_says_what_would_bias_an_annotator(rows: pd.DataFrame) -> None:
    for text in (as_csv(rows), json.dumps(data_of(page(rows)))):
        for word in ("secret", "unfinished", "plain", "ablated", "disagree"):
            assert word not in text


def test_labels_filled_in_by_hand_are_read_with_their_condition(rows: pd.DataFrame, tmp_path: Path) -> None:
    words = list(LABELS)
    filled = rows.assign(label=[words[len(text) % 4] for text in rows["text"]], annotator="Ada")
    path = tmp_path / "labels.csv"
    path.write_text(as_csv(filled), encoding="utf-8", newline="")
    found = read_labels(path)
    assert found["text"].tolist() == rows["text"].tolist()
    assert found["condition"].value_counts().to_dict() == {"plain": len(TEXTS), "ablated": len(TEXTS)}
    assert found["stratum"].tolist() == rows["stratum"].tolist()
    assert found["weight"].tolist() == [float(weight) for weight in rows["weight"]]


def test_texts_are_data_and_cannot_end_their_element(rows: pd.DataFrame) -> None:
    text = page(rows)
    assert data_of(text)["rows"] == rows[COLUMNS[:6]].to_dict("records")
    assert len(re.findall("<script", text, re.IGNORECASE)) == len(re.findall("</script", text, re.IGNORECASE)) == 2
    assert "<img" not in text and "\u2028" not in text and "\x1b" not in text


def test_the_policy_allows_the_pages_own_script_and_style_and_no_connection(rows: pd.DataFrame) -> None:
    text = page(rows)
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
    own = {
        kind: re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        for kind, tag in {"script-src": "script", "style-src": "style"}.items()
    }
    sums = {
        kind: f"'sha256-{b64encode(sha256(found[1].encode()).digest()).decode()}'"
        for kind, found in own.items()
        if found
    }
    assert rules == {
        "default-src": "'none'",
        **sums,
        **dict.fromkeys(("connect-src", "form-action", "base-uri"), "'none'"),
    }
    assert text.index("Content-Security-Policy") < text.index("<style")


def test_the_page_names_no_address_and_has_no_handler_or_style_in_its_markup(rows: pd.DataFrame) -> None:
    plain = page(rows[~rows["text"].str.contains("http")])
    assert (
        re.findall(r"https?:|//\w+\.\w|\b(?:src|href|action|style|on\w+)=", re.sub(r"<script.*?</script>", "", plain))
        == []
    )
    assert "http" not in plain.replace("http-equiv", "")
    assert "innerHTML" not in plain and "eval(" not in plain and "document.write" not in plain


def test_the_same_rows_give_the_same_page_and_others_another_place_to_save(rows: pd.DataFrame) -> None:
    assert page(rows) == page(rows.copy())
    assert data_of(page(rows))["sample"] != data_of(page(rows.head(5)))["sample"]


def test_the_page_warns_at_its_top(rows: pd.DataFrame) -> None:
    text = page(rows)
    assert text.index("Do not pass the page on") < text.index("<main")
    assert f"{len(TEXTS)} answers" in text, "what is there under both conditions is labelled once"
