"""Tables as LaTeX, for papers."""

import pandas as pd

_DIGITS = 3
"""Significant digits: of p-values and scores the first digits may be zeros."""


def latex(table: pd.DataFrame, caption: str) -> str:
    """The table as LaTeX, for the package booktabs. Columns that are empty everywhere are left out."""
    shown = table.dropna(axis="columns", how="all")
    shown = shown.loc[:, [name for name in shown if not (shown[name].astype(str) == "").all()]]
    escaped = {sign: f"\\{sign}" for sign in "&%$#_{}"}
    words = shown.rename(columns=lambda name: str(name).replace("_", " "))
    text = words.to_latex(index=False, escape=True, na_rep="--", float_format=f"%.{_DIGITS}g")
    caption = "".join(escaped.get(sign, sign) for sign in caption)
    return f"\\begin{{table}}\n\\centering\n{text}\\caption{{{caption}}}\n\\end{{table}}\n"
