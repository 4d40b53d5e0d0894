"""Data sets: what is in the file is what is read, or a message says where it is wrong."""

import csv
import json
import logging
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyheads import datasets
from safetyheads.data_files import FORMATS
from safetyheads.demo.requests import columns
from safetyheads.errors import SafetyHeadsError

DATA = Path(__file__).parents[1] / "data"
COLUMNS = ["dataset", "query_id", "query", "category", "target"]

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).filter(lambda text: text.strip())
LINES = st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"])).filter(lambda text: text.strip())


def read(path: Path, dataset: str = "d", **options: str) -> pd.DataFrame:
    return datasets.read_queries(path, dataset=dataset, **{"format": FORMATS.get(path.suffix, ""), **options})


def queries_of(path: Path, **options: str) -> list[str]:
    return list(read(path, **options)["query"])


def problem(path: Path, **options: str) -> str:
    with pytest.raises(SafetyHeadsError) as caught:
        read(path, **options)
    return str(caught.value)


@pytest.fixture
def write(tmp_path):
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@given(queries=st.lists(TEXTS, min_size=1, unique=True), mark=st.booleans())
def test_a_csv_file_is_read_back_exactly(tmp_path_factory, queries, mark):
    path = tmp_path_factory.mktemp("csv") / "q.csv"
    with path.open("w", newline="", encoding="utf-8-sig" if mark else "utf-8") as file:
        csv.writer(file).writerows([["number", "text"], *enumerate(queries)])
    assert queries_of(path, query="text") == queries


@given(queries=st.lists(TEXTS, min_size=1, unique=True), mark=st.booleans(), ascii_only=st.booleans())
def test_json_lines_are_read_back_exactly(tmp_path_factory, queries, mark, ascii_only):
    path = tmp_path_factory.mktemp("jsonl") / "q.jsonl"
    lines = [json.dumps({"text": query}, ensure_ascii=ascii_only) for query in queries]
    path.write_bytes("\n".join(lines).encode("utf-8-sig" if mark else "utf-8"))
    assert queries_of(path, query="text") == queries


@given(
    queries=st.lists(LINES, min_size=1, unique=True),
    end=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
    mark=st.booleans(),
)
def test_text_lines_are_read_back_exactly(tmp_path_factory, queries, end, last, mark):
    path = tmp_path_factory.mktemp("text") / "q.txt"
    path.write_bytes((end.join(queries) + end * last).encode("utf-8-sig" if mark else "utf-8"))
    assert queries_of(path) == [queries[0].removeprefix("\ufeff") if not mark else queries[0], *queries[1:]]


def test_rows_are_numbered_in_file_order_and_carry_category_and_target(write):
    path = write("q.csv", 'goal,kind,answer\n"one, two",a,Yes\nthree,,No\n')
    table = read(path, dataset="mine", query="goal", category="kind", target="answer")
    assert list(table.columns) == COLUMNS
    assert list(table["query_id"]) == ["mine-0000", "mine-0001"]
    assert set(table["dataset"]) == {"mine"}
    assert list(table["query"]) == ["one, two", "three"]
    assert table["category"][0] == "a"
    assert list(table["category"].isna()) == [False, True]
    assert list(table["target"]) == ["Yes", "No"]


def test_without_columns_for_them_category_and_target_are_null(write):
    table = read(write("q.txt", "one\ntwo"), dataset="d")
    assert table[["category", "target"]].isna().all(axis=None)


def test_words_that_look_like_missing_values_stay_words(write):
    assert queries_of(write("q.csv", "q\nNA\nnull\nNone\n007\n"), query="q") == ["NA", "null", "None", "007"]


def test_the_repository_s_own_file_has_sixteen_queries():
    table = read(DATA / "queries.csv", dataset="neutral", query="input")
    assert len(table) == 16
    assert table["query"].str.strip().ne("").all()


def test_the_format_option_overrides_the_ending(write):
    assert queries_of(write("q.dat", '{"a": "x"}\n'), format="jsonl", query="a") == ["x"]
    assert queries_of(write("q.csv", "a,b\n"), format="text") == ["a,b"]


def test_parquet_is_read_by_its_columns(tmp_path):
    pd.DataFrame({"instruction": ["Bake bread.", "Fly a kite."], "n": [1, 2]}).to_parquet(tmp_path / "q.parquet")
    assert queries_of(tmp_path / "q.parquet", query="instruction") == ["Bake bread.", "Fly a kite."]


def test_a_file_that_is_not_parquet_says_so(write):
    assert "cannot be read as parquet" in problem(write("q.parquet", "query\nx\n"), query="query")


def test_ids_sort_in_file_order_also_beyond_ten_thousand(write):
    ids = read(write("q.txt", "".join(f"query {n}\n" for n in range(10_001))))["query_id"]
    assert ids.is_monotonic_increasing
    assert ids[7] == "d-00007"


def test_an_unknown_format_names_the_allowed_ones(write):
    assert "Did you mean 'csv'?" in problem(write("q.csv", "q\nx\n"), format="cvs", query="q")


def test_duplicates_are_kept_and_named_in_the_log(write, caplog):
    with caplog.at_level(logging.WARNING):
        assert queries_of(write("q.csv", "q\nsame\nother\nsame \n"), query="q") == ["same", "other", "same "]
    assert "lines 2, 4" in caplog.text


def test_blank_lines_between_text_lines_are_skipped_and_logged(write, caplog):
    with caplog.at_level(logging.WARNING):
        assert queries_of(write("q.txt", "one\n\n  \ntwo\n\n")) == ["one", "two"]
    assert "2 blank lines" in caplog.text


def test_blank_lines_at_the_end_are_nothing_to_speak_of(write, caplog):
    with caplog.at_level(logging.WARNING):
        assert queries_of(write("q.txt", "one\ntwo\n\n\n")) == ["one", "two"]
    assert not caplog.text


def test_a_missing_file_says_where_relative_paths_start(tmp_path):
    message = problem(tmp_path / "none.csv", query="q")
    assert str(tmp_path / "none.csv") in message
    assert str(Path.cwd()) in message


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
@pytest.mark.parametrize("name", ["q.csv", "q.txt", "q.jsonl"])
def test_an_empty_file_is_an_error(write, name, content):
    assert name in problem(write(name, content))


def test_a_header_without_rows_is_an_error(write):
    assert "no rows" in problem(write("q.csv", "goal,target\n"), query="goal")


@pytest.mark.parametrize(
    ("name", "content"), [("q.csv", "Goal,Target\nx,y\n"), ("q.jsonl", '{"Goal": "x", "Target": 1}')]
)
def test_a_missing_column_names_those_found_and_the_nearest(write, name, content):
    message = problem(write(name, content), query="goal")
    assert "'Goal', 'Target'" in message
    assert "Did you mean 'Goal'?" in message


@pytest.mark.parametrize("option", ["category", "target"])
def test_a_missing_label_column_is_an_error_too(write, option):
    assert f"`{option}:`" in problem(write("q.csv", "q\nx\n"), query="q", **{option: "kind"})


def test_a_csv_file_needs_the_name_of_its_query_column(write):
    assert "`query:`" in problem(write("q.csv", "a,b\nx,y\n"))


def test_a_text_file_has_no_columns_to_name(write):
    assert "query" in problem(write("q.txt", "x\n"), query="goal")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.csv", 'q,n\nx,1\n" ",2\n"a\nb",3\n,4\n'),
        ("q.jsonl", '{"q": "x"}\n{"q": " "}\n{"q": "a"}\n{"q": "b"}\n{"q": null}\n'),
    ],
)
def test_empty_queries_are_named_by_their_lines(write, name, content):
    lines = {"q.csv": "lines 3, 6", "q.jsonl": "lines 2, 5"}[name]
    assert lines in problem(write(name, content), query="q")


def test_a_long_list_of_lines_is_cut_off(write):
    message = problem(write("q.csv", "q,n\n" + ",1\n" * 30), query="q")
    assert "and 20 more" in message


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("q,n\nx,1\ny,2,3\n", 3),
        ("q,n\nx,1\n\ny\n", 4),
        ('q,n\n"x\ny",1\n"z,2\nw,3\n', 4),
        ('q,n\n"x" y,1\n', 2),
    ],
)
def test_a_malformed_csv_row_is_named_by_its_first_line(write, content, line):
    assert f"line {line}:" in problem(write("q.csv", content), query="q")


def test_a_repeated_column_name_is_an_error(write):
    assert "q" in problem(write("q.csv", "q,q\nx,y\n"), query="q")


@pytest.mark.parametrize(
    "bad", ['{"q": "x"', '["x"]', '"x"', '{"q": 3}', '{"q": "\\ud800"}', '{"q": "a\\u0000b"}', "[" * 9999]
)
def test_a_malformed_json_line_is_named(write, bad):
    assert "line 2:" in problem(write("q.jsonl", '{"q": "fine"}\n' + bad + "\n"), query="q")


def test_numbers_make_labels_but_lists_do_not(write):
    table = read(write("q.jsonl", '{"q": "x", "c": 3}\n{"q": "y"}'), dataset="d", query="q", category="c")
    assert table["category"][0] == "3"
    assert table["category"].isna()[1]
    assert "line 1:" in problem(write("r.jsonl", '{"q": "x", "c": [3]}'), query="q", category="c")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_another_encoding_is_named_by_offset_and_line(write, mark):
    content = mark + b"q\nplain\ncaf\xe9\n"
    message = problem(write("q.csv", content), query="q")
    assert f"offset {content.index(0xE9)} (line 3)" in message
    assert "UTF-8" in message


def test_utf_16_is_recognised(write):
    assert "UTF-16" in problem(write("q.csv", "q\nx\n".encode("utf-16")), query="q")


def test_a_nul_character_is_an_error(write):
    assert "line 2" in problem(write("q.txt", "one\nt\0wo\n"))


@pytest.mark.parametrize("name", ["harmful", "attribution", "benign"])
def test_the_demo_s_data_sets_have_the_same_columns(name):
    table = datasets.table(f"demo_{name}", *columns(name))
    assert list(table.columns) == COLUMNS
    assert table.notna().all(axis=None)
    assert table["query_id"][0] == f"demo_{name}-0000"
    assert table["query"].is_unique
