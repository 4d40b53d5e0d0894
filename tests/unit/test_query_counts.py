"""Counting queries quickly agrees with reading them strictly."""

from pathlib import Path

import pandas as pd
import pytest

from safetyheads.costs.query_counts import Queries, count_queries
from safetyheads.datasets import read_queries

QUERIES = ["How do I bake bread?", 'Say "hello",\nthen wait', "naïve 你好", " with spaces "]


@pytest.mark.parametrize("format", ["csv", "jsonl", "text", "parquet"])
def test_rows_and_lengths_are_those_of_the_queries(format: str, tmp_path: Path) -> None:
    path, table = tmp_path / f"queries.{format}", pd.DataFrame({"id": range(4), "request": QUERIES})
    match format:
        case "csv":
            table.to_csv(path, index=False)
        case "jsonl":
            table.to_json(path, orient="records", lines=True)
        case "text":
            path.write_text("\n\n".join(QUERIES).replace(",\n", ", ") + "\n", encoding="utf-8")
        case "parquet":
            table.to_parquet(path)
    column = None if format == "text" else "request"
    found, read = count_queries(path, format, column), read_queries(path, dataset="q", format=format, query=column)
    assert found is not None
    assert found.rows == len(read) == 4
    assert found.characters == (None if format == "parquet" else read["query"].str.len().mean())


@pytest.mark.parametrize(
    ("format", "text"),
    [("csv", "id,other\n1,a\n"), ("jsonl", '{"other": 1}\n'), ("jsonl", "no json\n"), ("text", "\n")],
)
def test_a_file_that_does_not_hold_queries_has_an_unknown_number(format: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "queries"
    assert count_queries(path, format, "request") is None
    path.write_text(text)
    assert count_queries(path, format, "request") is None


def test_a_byte_order_mark_is_no_part_of_a_column(tmp_path: Path) -> None:
    path = tmp_path / "queries.csv"
    path.write_text("request\nabcd\n", encoding="utf-8-sig")
    assert count_queries(path, "csv", "request") == Queries(1, 4.0)
