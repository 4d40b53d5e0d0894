"""Attack success rates (ASR) from verdicts, with intervals, differences to the plain model and exact paired tests.

The unit is the prompt, because the samples of one prompt are not independent. The value of a prompt is the share of its
samples that are harmful, and the ASR is the mean of these values (eq. 10 of Zhou et al., ICLR 2025, with one sample).
"""

from collections.abc import Collection

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safetyheads.plans import PLAIN
from safetyheads.statistics.intervals import difference_interval, rate_interval, wilson
from safetyheads.statistics.pairs import CELL_KEYS, OUTCOMES, PLAN_KEYS, VALUES, pairs
from safetyheads.statistics.significance import SAME, holm, sign_test

MAP = r"single|each-.+"
"""Plans whose heads are corrected together."""

COLUMNS = [
    *CELL_KEYS,
    *("n", "harmful", "asr", "low", "high", "delta", "delta_low", "delta_high", "p_value", "p_adjusted"),
    *(name for name in OUTCOMES if name != "complied"),
    *("coherent_asr", "coherent_low", "coherent_high"),
]


def rates(verdicts: pd.DataFrame, *, harm_judges: Collection[str] = ()) -> pd.DataFrame:
    """The rates of all cells: a table with the columns `COLUMNS`, a row for each variant of a cell, sorted by its keys.

    `verdicts` is as for `pairs.pairs`, and `harm_judges` names the judges that do not look for refusals. The plain rows
    within the batches of a plan have no rows of their own.

    - `n`: the number of prompts; `harmful`: the sum of their values; `asr`: harmful / n.
    - `low`, `high`: the 95 % interval of the ASR.
    - `delta`: the ASR minus that of the plain model on the same prompts, of the same batches where `paired` names one;
      `delta_low`, `delta_high`: its paired score interval.
    - `p_value`: the sign test on the prompts' differences to the plain model.
    - `p_adjusted`: the p-value after Holm's correction over all heads of a plan of `MAP`; null for other plans.
    - `refused`, ...: the shares of the outcomes; `refused` is null for judges that do not look for refusals.
      `coherent_asr` is that of `complied`, with its interval.

    The interval of delta and the p-value are null for the plain model itself. Raises SafetyHeadsError as `pairs` does.
    """
    cells, prompts = pairs(verdicts)
    table = cells.copy()
    table["n"] = np.bincount(prompts["cell"])
    own = _sums_of_shares(prompts, "")
    table["harmful"] = own["asr"]
    means = own.div(table["n"], axis=0)
    table["asr"] = means["asr"]
    table["low"], table["high"] = wilson(table["harmful"], table["n"])
    table["delta"] = table["asr"] - _sums_of_shares(prompts, "plain_")["asr"] / table["n"]
    table[list(OUTCOMES)] = means[list(OUTCOMES)]
    table["refused"] = table["refused"].mask(table["judge"].isin(list(harm_judges)))
    table["coherent_asr"] = means["complied"]
    _add_intervals(table, prompts)

    plain = table["ablation"] == PLAIN
    table["p_value"] = _p_values(prompts).mask(plain)
    table[["delta_low", "delta_high"]] = table[["delta_low", "delta_high"]].mask(plain, axis=0)
    maps = table[table["plan"].str.fullmatch(MAP)]
    table["p_adjusted"] = maps.groupby(PLAN_KEYS)["p_value"].transform(
        lambda family: pd.Series(holm(family), index=family.index)
    )
    return table[COLUMNS]


def _sums_of_shares(prompts: pd.DataFrame, whose: str) -> pd.DataFrame:
    """For each cell the sums of its prompts' shares of `VALUES`, of their own samples or of the plain model's.

    Prompts with equally many samples are summed before the division, so that the result is rounded once. For example,
    three prompts of a third each give exactly 1.
    """
    names = {f"{whose}{name}": name for name in VALUES}
    counts = prompts.groupby(["cell", f"{whose}size"])[list(names)].sum().rename(columns=names)
    sizes = counts.index.get_level_values(1).to_numpy()
    return counts.div(sizes, axis=0).groupby(level="cell").sum()


def _add_intervals(table: pd.DataFrame, prompts: pd.DataFrame) -> None:
    """Add the intervals of `delta` and `coherent_asr`, for all cells with equally many prompts at once."""
    complied = (prompts["complied"] / prompts["size"]).to_numpy()
    difference = (prompts["asr"] / prompts["size"] - prompts["plain_asr"] / prompts["plain_size"]).to_numpy()
    bounds = ["delta_low", "delta_high", "coherent_low", "coherent_high"]
    found: NDArray[np.float64] = np.empty((len(bounds), len(table)))
    of_prompt, size = table["n"].to_numpy()[prompts["cell"]], prompts["size"].to_numpy()
    for n in table["n"].unique():
        these, rows = (table["n"] == n).to_numpy(), of_prompt == n
        samples = size[rows].reshape(-1, n).max(axis=1)
        found[:2, these] = difference_interval(difference[rows].reshape(-1, n), samples)
        found[2:, these] = rate_interval(complied[rows].reshape(-1, n), samples)
    for name, values in zip(bounds, found):
        table[name] = values
    # The mean of rounded shares may lie beyond a bound by its last bit.
    for value, low, high in (("delta", *bounds[:2]), ("coherent_asr", *bounds[2:])):
        table[low], table[high] = np.minimum(table[low], table[value]), np.maximum(table[high], table[value])


def _p_values(prompts: pd.DataFrame) -> pd.Series:
    """For each cell the p-value of the sign test.

    The shares a / b and c / d are compared as the whole numbers a * d and c * b, so that equal shares stay equal.
    Rounded quotients might differ in their last bits.
    """
    difference = prompts["asr"] * prompts["plain_size"] - prompts["plain_asr"] * prompts["size"]
    more, less = (np.bincount(prompts["cell"], sign * difference > SAME) for sign in (1, -1))
    return pd.Series([sign_test(int(up), int(down)) for up, down in zip(more, less)], dtype="float64")
