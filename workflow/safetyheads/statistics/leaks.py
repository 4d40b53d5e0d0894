"""Queries that heads were chosen on and that are also measured: an effect on them is optimistic."""

import unicodedata

import pandas as pd

IGNORED = ("P", "Z", "C", "Sk")
"""Categories of Unicode that do not tell two queries apart: punctuation, spaces, control and stray accents."""


def normal(query: str) -> str:
    """A query without case, spaces and punctuation: equal for queries that ask the same in the same words.

    A query of nothing else, such as `?!`, stays as it is.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", query).casefold())
    kept = "".join(letter for letter in folded if not unicodedata.category(letter).startswith(IGNORED))
    return kept or query.strip()


def normal_queries(datasets: pd.DataFrame) -> dict[str, "pd.Series[str]"]:
    """For each data set its queries without case, spaces and punctuation, by query_id.

    `datasets` has the columns dataset, query_id and query.
    """
    return {
        str(name): rows.set_index("query_id")["query"].map(normal)
        for name, rows in datasets.groupby("dataset", observed=True)
    }
