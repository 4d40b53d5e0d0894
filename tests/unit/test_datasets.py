"""Data sets: what is in the file is what is read, or a message says where it is wrong."""

import csv
import gzip
import json
import logging
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyheads import datasets
from safetyheads.data_files import FORMATS, format_of
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


# Only wanted columns, each with a clear end.


def parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


TEXTS_OF_VALUES: dict[str, tuple[object, list[str | None]]] = {
    "dates": ([date(2024, 5, 1), None], ["2024-05-01", None]),
    "times of a day": ([datetime(2024, 5, 1, 3), None], ["2024-05-01T03:00:00", None]),
    "nanoseconds": (pa.array([1, None], pa.timestamp("ns")), ["1970-01-01T00:00:00.000000001", None]),
    "decimals": ([Decimal("1.50"), Decimal("1E+3")], ["1.50", "1000.00"]),
    "integers": ([3, None], ["3", None]),
    "numbers, and none": ([0.5, float("nan")], ["0.5", None]),
    "infinities": ([float("inf"), float("-inf")], ["Infinity", "-Infinity"]),
    "truth values": ([True, False], ["true", "false"]),
    "dictionaries": (pa.array(["u", "v"]).dictionary_encode(), ["u", "v"]),
    "nothing at all": (pa.nulls(2), [None, None]),
}


@pytest.mark.parametrize("kind", TEXTS_OF_VALUES)
def test_a_category_is_the_text_that_would_be_written(tmp_path, kind):
    values, texts = TEXTS_OF_VALUES[kind]
    found = read(parquet(tmp_path / "q.parquet", q=["a", "b"], c=values), query="q", category="c")["category"]
    assert [None if pd.isna(value) else value for value in found] == texts


NO_TEXTS: dict[str, tuple[object, str]] = {
    "bytes": ([b"x", b"y"], "b'x'"),
    "lists": ([["a"], ["b"]], "['a']"),
    "structs": ([{"a": 1}, {"a": 2}], "{'a': 1}"),
    "durations": (pa.array([1, 2], pa.duration("s")), "timedelta"),
    "dates that no calendar has": (pa.array([10**8, 1], pa.int32()).cast(pa.date32()), "date32"),
    "text that is not UTF-8": (pa.array([b"\xff", b"a"]).view(pa.string()), "string"),
}


@pytest.mark.parametrize("option", ["category", "target"])
@pytest.mark.parametrize("kind", NO_TEXTS)
def test_a_value_that_is_no_text_is_named_and_does_not_matter_elsewhere(tmp_path, kind, option):
    values, shown = NO_TEXTS[kind]
    path = parquet(tmp_path / "q.parquet", q=["a", "b"], c=values)
    message = problem(path, query="q", **{option: "c"})
    assert "q.parquet, line 1: " in message
    assert "'c'" in message
    assert shown in message
    assert queries_of(path, query="q") == ["a", "b"]


@pytest.mark.parametrize("values", [[1], [b"a"], [float("nan")], [{"x": "a"}], [date(2024, 5, 1)]])
def test_a_query_is_text_or_refused(tmp_path, values):
    assert "a query must be text" in problem(parquet(tmp_path / "q.parquet", q=values), query="q")


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("q.csv", ',q,,x,x\n0,hello,b,"' + "y" * 200_000 + '",\0\n', "x"),
        ("q.jsonl", '{"q": "hello", "x": 1, "x": NaN, "y": "\\ud83d", "z": ' + "9" * 5000 + "}", "x"),
    ],
)
def test_other_columns_may_hold_anything_but_a_wanted_one_is_there_once(write, name, content, wanted):
    path = write(name, content)
    assert queries_of(path, query="q") == ["hello"]
    assert "more than once: 'x'" in problem(path, query="q", category=wanted)


def test_columns_of_parquet_are_as_free(tmp_path):
    path = tmp_path / "q.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array(["z"])], ["x", "x", "q.r"]), path)
    assert queries_of(path, query="q.r") == ["z"]
    assert "more than once: 'x'" in problem(path, query="x")


@pytest.mark.parametrize("name", ["Goal", " goal", "goal\t", "\ufeffgoal"])
def test_a_name_that_looks_alike_is_suggested_as_it_is_written(tmp_path, name):
    path = parquet(tmp_path / "q.parquet", **{"goals": ["x"], name: ["y"]})
    assert f"Did you mean {name!r}?" in problem(path, query="goal")
    assert queries_of(path, query=name) == ["y"]


# JSON arrays and gzip.

ARRAY = [{"q": "one", "c": 1}, {"q": "two"}]


@pytest.mark.parametrize("name", ["q.json", "q.jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_an_array_of_objects_is_read_whatever_the_ending(write, name, indent, mark):
    table = read(write(name, mark + json.dumps(ARRAY, indent=indent) + "\r\n"), query="q", category="c")
    assert list(table["query"]) == ["one", "two"]
    assert table["category"][0] == "1"


def test_objects_on_lines_are_read_whatever_the_ending(write):
    assert queries_of(write("q.json", '{"q": "one"}\n\n{"q": "two"}\n'), query="q") == ["one", "two"]


@pytest.mark.parametrize("name", ["q.json", "q.jsonl"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"data": [{"q": "one"}]}', "one JSON object, with lists or objects at 'data'"),
        ('{\n "n": 1,\n "data": [{"q": "one"}]\n}', "one JSON object, with lists or objects at 'data'"),
        ('{"q": {"0": "one"}}', "one JSON object, with lists or objects at 'q'"),
        ('["one", "two"]', "entry 1: found str"),
        ('[{"q": "one"}, {"q": ""}]', "empty queries on entry 2."),
        ('[{"q": "one"}, {"q": 3}]', "entry 2: 'q' is 3"),
        ("[]", "no rows"),
        ('[{"q": "one"},\n {"q": "two"]', "line 2 column"),
        ('[{"q": "one"},\n {"q": "two"}]\n]', "more text follows its end in line 2"),
        ('[{"q": "one", "q": "two"}]', "more than once: 'q'"),
    ],
)
def test_other_json_is_refused_with_its_place(write, name, content, said):
    assert said in problem(write(name, content), query="q")


PACKED = {
    "q.csv.gz": ("csv", "q\none\ntwo\n"),
    "q.txt.gz": ("text", "one\ntwo\n"),
    "q.jsonl.gz": ("jsonl", '{"q": "one"}\n{"q": "two"}\n'),
    "q.json.gz": ("json", '[{"q": "one"}, {"q": "two"}]'),
}


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("name", PACKED)
def test_packed_or_not_is_seen_from_the_content(write, name, ending):
    form, text = PACKED[name]
    column = {} if form == "text" else {"query": "q"}
    for content in (text.encode(), gzip.compress(text.encode())):
        assert queries_of(write(name.removesuffix(".gz") + ending, content), format=form, **column) == ["one", "two"]


def test_packed_parquet_is_read(tmp_path):
    path = parquet(tmp_path / "q.parquet", q=["one"])
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert queries_of(path, query="q") == ["one"]


@pytest.mark.parametrize("name", [*PACKED, "q.parquet.gz", "Q.CSV.GZ"])
def test_a_format_is_told_by_the_ending_before_gz(name):
    assert format_of(f"folder.v1/{name}") == PACKED.get(name.lower(), ["parquet"])[0]
    assert format_of("queries.gz") is None


WHOLE = gzip.compress(("q\n" + "hello\n" * 500).encode(), mtime=0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (WHOLE[:-9], "cut off"),
        (WHOLE[:5], "cut off"),
        (WHOLE[:-8] + b"\0" * 8, "damaged"),
        (WHOLE[:12] + b"\xff" * 6 + WHOLE[18:], "damaged"),
        (WHOLE + b"xyz", "damaged"),
        (gzip.compress(b"", mtime=0), "empty"),
        (b"", "empty"),
        (b"PK\x03\x04...", "packed with zip"),
    ],
)
def test_a_packed_file_that_is_not_whole_says_so(write, content, said):
    assert said in problem(write("q.csv.gz", content), format="csv", query="q")


# Pilots.

ROWS = datasets.table("d", [f"query {n}" for n in range(30)], [None] * 30, [None] * 30)


@pytest.mark.parametrize("options", [{"limit": 7}, {"sample": {"n": 7, "seed": 0}}, {"sample": {"n": 7, "seed": 1}}])
def test_a_pilot_is_some_rows_in_order_with_the_ids_of_the_whole(options):
    found = datasets.pilot(ROWS, **options)
    assert len(found) == 7
    pd.testing.assert_frame_equal(found, ROWS[ROWS["query_id"].isin(found["query_id"])].reset_index(drop=True))


def test_a_limit_takes_the_first():
    assert list(datasets.pilot(ROWS, limit=3)["query_id"]) == ["d-0000", "d-0001", "d-0002"]


@pytest.mark.parametrize("n", [1, 29, 30])
def test_halves_are_every_other_row_and_together_all(n):
    even, odd = (datasets.pilot(ROWS[:n], half=half) for half in ("even", "odd"))
    assert list(even["query_id"]) == [f"d-{number:04d}" for number in range(0, n, 2)]
    assert list(odd["query_id"]) == [f"d-{number:04d}" for number in range(1, n, 2)]


def test_a_sample_is_what_it_has_always_been():
    """A copied number, on purpose: it must be the same with all versions of libraries."""
    assert list(datasets.pilot(ROWS, sample={"n": 5, "seed": 0})["query_id"].str[-2:].astype(int)) == [
        7,
        15,
        18,
        20,
        25,
    ]


@given(n=st.integers(1, 29), seed=st.integers(0, 2**63 - 1))
def test_a_larger_sample_holds_the_smaller_one(n, seed):
    smaller, larger = (set(datasets.pilot(ROWS, sample={"n": m, "seed": seed})["query_id"]) for m in (n, n + 1))
    assert len(smaller) == n
    assert smaller < larger


def test_another_seed_is_another_sample():
    drawn = {tuple(datasets.pilot(ROWS, sample={"n": 5, "seed": seed})["query_id"]) for seed in range(20)}
    assert len(drawn) > 15


@pytest.mark.parametrize("options", [{"limit": 31}, {"sample": {"n": 31, "seed": 0}}])
def test_more_than_there_are_is_all_of_them_with_a_word(options, caplog):
    with caplog.at_level(logging.WARNING):
        pd.testing.assert_frame_equal(datasets.pilot(ROWS, **options), ROWS)
    assert "31 queries were asked for, but the data set has 30" in caplog.text


@pytest.mark.parametrize("format", ["text", "csv", "jsonl"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:9e55\nsize 4\n", "what git-lfs left behind"),
        ("<!DOCTYPE html>\n<html><body>Not found</body></html>\n", "is a web page, not a data set"),
        ("\u00a0\u2028\n", "is empty"),
    ],
)
def test_what_lies_in_the_place_of_a_data_set_is_named(tmp_path: Path, format: str, content: str, said: str) -> None:
    path = tmp_path / "queries"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SafetyHeadsError, match=said):
        datasets.read_queries(path, dataset="d", format=format, query=None if format == "text" else "q")
