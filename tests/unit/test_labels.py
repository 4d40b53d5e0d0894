"""Labels of people: texts as they are, and for every mistake a message with file, row and what is allowed."""

import csv
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyheads.errors import SafetyHeadsError
from safetyheads.judges.labels import COLUMNS, CONDITIONS, LABELS, read_labels, seal

AS_THEY_ARE = [
    " led",
    "led ",
    "NA",
    "null",
    "nan",
    "None",
    "007",
    "1e3",
    "1,5",
    "-",
    "=1+1",
    "true",
    "#N/A",
    '"',
    "a\n\nb",
]


def write(path: Path, head: str, *rows: tuple[str, ...], end: str = "\r\n", mark: str = "") -> Path:
    file = StringIO(newline="")
    csv.writer(file, lineterminator=end).writerows([head.split(","), *rows])
    path.write_bytes((mark + file.getvalue()).encode())
    return path


def problem(path: Path) -> str:
    with pytest.raises(SafetyHeadsError) as caught:
        read_labels(path)
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.csv"


def test_a_small_file_has_all_columns(path: Path) -> None:
    found = read_labels(write(path, "query,text,harmful", ("How?", "So.", "true"), ("Why?", "", "no")))
    assert list(found) == COLUMNS
    assert found["harmful"].tolist() == [True, False]
    assert str(found["harmful"].dtype) == "boolean"
    assert found["text"].tolist() == ["So.", ""]
    assert found["weight"].tolist() == [1.0, 1.0]
    assert found[["condition", "annotator", "stratum"]].isna().all(axis=None)


def test_a_full_file_is_read_in_any_order_of_columns_and_others_are_left_alone(path: Path) -> None:
    head = "stratum,remark,weight,annotator,condition,harmful,text,query"
    found = read_labels(write(path, head, ("s1", "hm", "2.5", "Ada", "Ablated", "TRUE", "So.", "How?")))
    assert found.loc[0].to_dict() == {
        **{"query": "How?", "text": "So.", "harmful": True, "condition": "ablated"},
        **{"annotator": "Ada", "stratum": "s1", "weight": 2.5},
    }


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_texts_are_kept_as_they_are(path: Path, end: str, mark: str) -> None:
    rows = [(text, f"{text}{text}", "1") for text in AS_THEY_ARE]
    found = read_labels(write(path, "query,text,harmful", *rows, end=end, mark=mark))
    assert found["query"].tolist() == AS_THEY_ARE
    assert found["text"].tolist() == [text * 2 for text in AS_THEY_ARE]


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5, unique=True))
def test_any_text_comes_back(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    found = read_labels(write(path, "query,text,harmful", *((f"q{text}", text, "no") for text in texts)))
    assert found["text"].tolist() == texts


@pytest.mark.parametrize(
    ("word", "harmful"),
    [("true", True), ("YES", True), ("1", True), (" Yes ", True), ("False", False), ("no", False), ("0", False)],
)
def test_words_for_harmful(path: Path, word: str, harmful: bool) -> None:
    assert read_labels(write(path, "query,text,harmful", ("q", "t", word)))["harmful"].tolist() == [harmful]


def test_labels_stand_in_for_harmful_and_unsure_is_null(path: Path) -> None:
    rows = [("q", label, "", label) for label in LABELS] + [("q", "none", "", "")]
    found = read_labels(write(path, "query,text,harmful,label", *rows))
    assert found["text"].tolist() == ["complied", "refused", "degenerate", "unsure"]
    assert found["harmful"].tolist()[:3] == [True, False, False]
    assert found["harmful"].isna().tolist() == [False, False, False, True]
    without = write(path, "query,text,label", ("q", "t", "Complied"))
    assert read_labels(without)["harmful"].tolist() == [True]


def test_a_sealed_condition_is_found_out(path: Path) -> None:
    rows = [(f"q{at}", "t", "1", f"a{at}", seal(f"a{at}", condition)) for at, condition in enumerate(CONDITIONS)]
    assert read_labels(write(path, "query,text,harmful,id,sealed", *rows))["condition"].tolist() == list(CONDITIONS)
    assert len({row[-1] for row in rows} | {seal("a0", "ablated")}) == 3


def test_a_row_that_is_there_twice_counts_once_and_rows_of_other_annotators_each(path: Path) -> None:
    rows = [("q", "t", "1", *own) for own in (("a1", "Ada"), ("a1", "Ada"), ("a1", "Bo"))]
    assert len(read_labels(write(path, "query,text,harmful,id,annotator", *rows))) == 2
    bare = [("q", "t", "1", ""), ("q", "t", "1", "")]
    assert len(read_labels(write(path, "query,text,harmful,id", *bare))) == 2


def test_one_answer_that_was_drawn_twice_stands_for_both(path: Path) -> None:
    """Two models gave it. To count it once would tell less of it than of answers that only one of them gave."""
    head = "query,text,harmful,id,annotator,stratum,weight"
    rows = [("q", "t", "1", name, person, "s1", "2.5") for person in ("Ada", "Bo") for name in ("a1", "a2", "a1")]
    found = read_labels(
        write(path, head, *rows, ("q", "t", "1", "a3", "Ada", "s2", "1"), ("q", "u", "0", "a4", "", "", ""))
    )
    assert found["weight"].tolist() == [5.0, 5.0, 1.0, 1.0]
    assert found["annotator"].tolist()[:3] == ["Ada", "Bo", "Ada"] and found["text"].tolist() == ["t", "t", "t", "u"]


def test_annotators_may_disagree_but_none_with_himself(path: Path) -> None:
    head = "query,text,harmful,annotator"
    assert (
        len(read_labels(write(path, head, ("q", "t", "1", "Ada"), ("q", "t", "0", "Bo"), ("r", "t", "0", "Ada")))) == 3
    )
    said = problem(write(path, head, ("q", "a\nb", "1", "Ada"), ("q", "x", "0", "Ada"), ("q", "a\nb", "no", "Ada")))
    assert "row 4 (line 5): Ada says 'harmless'" in said
    assert "'harmful' of the same answer in row 2 (line 2)" in said
    assert "one label for each answer" in said
    unsure = write(path, "query,text,harmful,label", ("q", "t", "", "refused"), ("q", "t", "", "degenerate"))
    assert "somebody says 'degenerate'" in problem(unsure)


@pytest.mark.parametrize(
    ("head", "row", "words"),
    [
        (
            "query,text,harmful",
            ("q", "t", "maybe"),
            ("row 3 (line 3): harmful is 'maybe'", "true, false, yes, no, 1, 0"),
        ),
        ("query,text,harmful,label", ("q", "t", "", "refuse"), ("row 3", "label is 'refuse'", "mean 'refused'?")),
        ("query,text,harmful,label", ("q", "t", "no", "complied"), ("row 3", "'complied', but harmful is 'no'")),
        ("query,text,harmful,label", ("q", "t", "no", "unsure"), ("row 3", "one of them empty")),
        (
            "query,text,harmful,condition",
            ("q", "t", "1", "plane"),
            ("row 3", "'plane'; allowed: plain, ablated", "'plain'?"),
        ),
        ("query,text,harmful,weight", ("q", "t", "1", "0"), ("row 3", "weight is '0'", "a number above 0")),
        ("query,text,harmful,weight", ("q", "t", "1", "1,5"), ("row 3", "weight is '1,5'")),
        ("query,text,harmful,weight", ("q", "t", "1", "inf"), ("row 3", "weight is 'inf'")),
        ("query,text,harmful,weight", ("q", "t", "1", "nan"), ("row 3", "weight is 'nan'")),
        ("query,text,harmful,id,sealed", ("q", "t", "1", "a1", "9.6E+07"), ("row 3", "no condition of id 'a1'")),
        ("query,text,harmful,sealed", ("q", "t", "1", "12345678"), ("row 3", "no condition of id ''")),
        ("query,text,harmful", ("q", "t"), ("line 3: 2 fields, but the header has 3",)),
    ],
)
def test_a_mistake_is_told_with_its_row(path: Path, head: str, row: tuple[str, ...], words: tuple[str, ...]) -> None:
    fine = ("q0", "t", "1", *[""] * (len(head.split(",")) - 3))
    said = problem(write(path, head, fine, row))
    for part in words:
        assert part in said


def test_missing_columns_are_told_with_the_nearest(path: Path) -> None:
    said = problem(write(path, "Query,answer,harmfull", ("q", "t", "1")))
    assert "no column 'query' Did you mean 'Query'?, 'text', 'harmful' Did you mean 'harmfull'?" in said
    assert "found: 'Query', 'answer', 'harmfull'" in said
    assert "separated by commas" in problem(write(path, "query;text;harmful", ("q;t;1",)))
    assert "more than once: 'text'" in problem(write(path, "query,text,text,harmful", ("q", "t", "t", "1")))


def test_files_without_labels_say_so(path: Path) -> None:
    assert "none of its 2 rows is labelled: `harmful` is empty in all of them; allowed" in problem(
        write(path, "query,text,harmful", ("q", "t", ""), ("q", "u", " "))
    )
    assert "and so is `label`" in problem(write(path, "query,text,harmful,label", ("q", "t", "", "")))
    assert "none of its 0 rows" in problem(write(path, "query,text,harmful"))
    path.write_bytes(b"\xef\xbb\xbf\r\n")
    assert "is empty" in problem(path)
    assert "There is no file of labels" in problem(path.with_name("other.csv"))


def test_files_in_another_encoding_say_so(path: Path) -> None:
    path.write_bytes("query,text,harmful\nq,na\u00efve,1\n".encode("latin-1"))
    assert "not UTF-8: byte 0xef at offset 23 (line 2). Save it as UTF-8" in problem(path)
    path.write_bytes("query,text,harmful\nq,t,1\n".encode("utf-16"))
    assert "UTF-16" in problem(path)


def test_what_is_wrong_in_a_row_without_a_label_does_not_matter(path: Path) -> None:
    found = read_labels(write(path, "query,text,harmful,weight", ("q", "t", "", "x"), ("q", "u", "1", "")))
    assert found["text"].tolist() == ["u"]
    pd.testing.assert_frame_equal(found, read_labels(path))
