"""Maps of single heads: is there more in them than the noise of so many heads on so few prompts?

A map is a plan that ablates one head after the other, `single` or `each-P`. Of a thousand heads that do nothing, some
answer a few prompts otherwise than the plain model, and the highest of them looks like a finding. So each map is
compared with what it would be if the heads did not matter: for each prompt, its answers are dealt to the heads anew.

For prompt i and head h, d_ih is the share of the prompt's samples that comply with h ablated, less that of the plain
row of the same batch. Columns that end in `_asr` go by what the judge says alone.
"""

from math import ceil, log2
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.stats.contingency_tables import cochrans_q

from safetyheads.heads import parse_head
from safetyheads.plans import parse_plan
from safetyheads.statistics.pairs import PLAN_KEYS, Key, pairs, shares
from safetyheads.statistics.significance import LEVEL, SAME, holm, sign_test

PERMUTATIONS = 2000
"""How often the heads are permuted."""

KINDS = {"complied": "", "asr": "_asr"}
"""What is measured, and how the names of its columns end."""

_OF_MAP = (
    *("plain", "highest", "lowest", "expected_highest", "expected_lowest", "spread", "expected_spread", "p_value"),
    *("cochran_q", "cochran_p", "up", "down"),
)
COLUMNS = [
    *PLAN_KEYS,
    "n",
    "n_heads",
    "needed",
    *(f"{name}{end}" for end in KINDS.values() for name in _OF_MAP),
]

_OF_HEAD = ("plain", "ablated", "effect", "up", "down", "p_value", "p_adjusted")
COLUMNS_BY_HEAD = [*PLAN_KEYS, "layer", "head", "n", *(f"{name}{end}" for end in KINDS.values() for name in _OF_HEAD)]

Matrix = NDArray[np.float64]


class Maps(NamedTuple):
    """All maps of a study."""

    maps: pd.DataFrame
    """A row for each map, with the columns `COLUMNS`, sorted by `PLAN_KEYS`."""
    by_head: pd.DataFrame
    """A row for each head of each map, with the columns `COLUMNS_BY_HEAD`, sorted by `PLAN_KEYS`, layer and head."""


def maps(verdicts: pd.DataFrame) -> Maps:
    """The maps of all cells whose plan is `single` or `each-P`. `verdicts` is as for `pairs.pairs`.

    Of a map: `n` prompts, `n_heads` heads; `needed`, how many prompts must flip one way before one of so many heads can
    survive Holm's correction (`needed`); `plain`, the plain model's share; `highest` and `lowest`, the largest and the
    smallest effect of a head; `spread`, the standard deviation of the effects between heads; what of these three is to
    be expected if heads do not matter, and the p-value of the spread (`permuted`); Cochran's Q with its p-value, where
    each prompt has one sample and one plain row; `up` and `down`, how many heads survive with more, or with less, than
    the plain model.

    Of a head: its effect is the mean of d over prompts, `up` and `down` are how many prompts have a d above and below
    0, `p_value` is that of the exact sign test, and `p_adjusted` is corrected over the heads of the map (Holm). Raises
    SafetyHeadsError as `pairs` does.
    """
    of_maps, of_heads = [], []
    for cell, values in shares(pairs(verdicts)).items():
        keys = dict(zip(PLAN_KEYS, cell))
        if parse_plan(keys["plan"]).kind in ("single", "each"):
            row, rows = _map(cell, values)
            of_maps.append(row)
            of_heads.append(rows)
    heads = pd.concat(of_heads, ignore_index=True) if of_heads else pd.DataFrame(columns=COLUMNS_BY_HEAD)
    table = pd.DataFrame(of_maps, columns=COLUMNS)
    return Maps(
        table.sort_values(PLAN_KEYS, ignore_index=True),
        heads[COLUMNS_BY_HEAD].sort_values([*PLAN_KEYS, "layer", "head"], ignore_index=True),
    )


def needed(heads: int) -> int:
    """How many prompts must flip one way before the sign test of one of so many heads can pass Holm's correction.

    With k flips, all one way, its p-value is 2 / 2^k, and the smallest of H p-values is multiplied by H: 16 prompts for
    1,024 heads, 11 for 32.
    """
    return ceil(log2(2 * heads / LEVEL))


class Permuted(NamedTuple):
    """What the effects of heads would be if heads did not matter, and how far the real ones are from that."""

    expected_highest: float
    expected_lowest: float
    expected_spread: float
    p_value: float


def permuted(differences: Matrix, plain: Matrix, *, permutations: int = PERMUTATIONS, seed: int = 0) -> Permuted:
    """The permutation test of a map: `differences` (prompts, heads) are dealt to the heads anew, prompt by prompt.

    `plain` (prompts, heads) are the values of the plain rows that heads are compared with. Where these differ within a
    prompt, because its batches differ, differences are dealt only among heads with the same value: else the noise
    between batches, which is not that of heads, would count as theirs.

    The statistic is the sum of squares between the heads' means. The p-value is (1 + how many permutations have at
    least as much) / (1 + permutations). Expected values are means over the permutations, `spread` the standard
    deviation between heads' means.
    """
    prompts, heads = differences.shape
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, prompts, heads])))
    sums, usual = np.zeros((permutations, heads)), np.zeros(heads)
    for row, beside in zip(differences, plain):
        for value in np.unique(beside):
            alike = np.flatnonzero(beside == value)
            # Most heads leave the answer as it is, so only the few others are dealt: where 20 of 1,024 heads differ
            # from the rest, that takes 20 places, not 1,024.
            common = _most_common(row[alike])
            usual[alike] += common
            others = row[alike] - common
            _deal(sums, alike, np.sort(others[np.abs(others) > SAME]), generator)
    means = (sums + usual) / prompts
    spreads, own = means.std(axis=1), differences.mean(axis=0).std()
    as_far = int((spreads >= own - SAME).sum())
    highest, lowest = means.max(axis=1).mean(), means.min(axis=1).mean()
    return Permuted(float(highest), float(lowest), float(spreads.mean()), (1 + as_far) / (1 + permutations))


def _most_common(row: Matrix) -> float:
    values, counts = np.unique(row, return_counts=True)
    return float(values[counts.argmax()])


def _deal(sums: Matrix, heads: NDArray[np.int64], values: Matrix, generator: np.random.Generator) -> None:
    """Add `values` to as many different ones of `heads` in each row of `sums` (permutations, all heads), at random."""
    permutations, count = len(sums), len(values)
    if count**2 > 2 * len(heads):
        row = np.concatenate([values, np.zeros(len(heads) - count)])
        dealt = generator.permuted(np.broadcast_to(row, (permutations, len(heads))), axis=1)
        if len(heads) == sums.shape[1]:
            sums += dealt  # much faster than by columns
        else:
            sums[:, heads] += dealt
    elif count:
        # Few places: draw them independently, and draw those rows again in which one was drawn twice.
        places, left = np.empty((permutations, count), dtype=np.int64), np.arange(permutations)
        while len(left):
            drawn = generator.integers(len(heads), size=(len(left), count))
            different = (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all(axis=1)
            places[left[different]] = drawn[different]
            left = left[~different]
        np.add.at(sums, (np.arange(permutations)[:, None], heads[places]), values)


def _map(cell: Key, values: pd.DataFrame) -> tuple[dict[str, Any], pd.DataFrame]:
    """The row of a map, and the rows of its heads. `values` is a table of `pairs.shares`."""
    keys = dict(zip(PLAN_KEYS, cell))
    names = sorted(values.index.unique("variant"), key=parse_head)
    rows = pd.DataFrame([{**keys, **parse_head(name)._asdict()} for name in names])
    n, count = len(values.index.unique("query_id")), len(names)
    rows["n"] = n
    row: dict[str, Any] = {**keys, "n": n, "n_heads": count, "needed": needed(count)}
    one_sample = bool((values["samples"] == 1).all())
    tests: list[tuple[Matrix, Permuted]] = []
    for kind, end in KINDS.items():
        ablated, plain = (_matrix(values[name], names) for name in (kind, f"plain_{kind}"))
        differences = ablated - plain  # (prompts, heads)
        found = _of_heads(ablated, plain)
        rows[[f"{name}{end}" for name in found]] = found
        sure = found["p_adjusted"] < LEVEL
        effect = found["effect"]
        one_plain = bool((np.ptp(plain, axis=1) < SAME).all())
        q, p = _cochran(ablated) if one_sample and one_plain else (None, None)
        # The judge's own verdict and the outcome mostly say the same, and then the test need not be made twice.
        same = [test for other, test in tests if np.array_equal(other, differences)]
        test = same[0] if same else permuted(differences, plain)
        tests.append((differences, test))
        own = {"highest": effect.max(), "lowest": effect.min(), "spread": differences.mean(axis=0).std()}
        row |= {f"{name}{end}": value for name, value in (own | test._asdict()).items()}
        row |= {f"plain{end}": plain.mean(), f"cochran_q{end}": q, f"cochran_p{end}": p}
        row |= {f"up{end}": int((sure & (effect > 0)).sum()), f"down{end}": int((sure & (effect < 0)).sum())}
    return row, rows


def _matrix(column: "pd.Series[float]", names: list[str]) -> Matrix:
    """The values of a table of `pairs.shares` as (prompts, heads): prompts sorted, heads in the order of `names`."""
    return np.asarray(column.unstack("variant").sort_index()[names], dtype=np.float64)


def _of_heads(ablated: Matrix, plain: Matrix) -> pd.DataFrame:
    """What is known of each head, from its values (prompts, heads) and those of its plain rows."""
    differences = ablated - plain
    up, down = (sign * differences > SAME for sign in (1, -1))
    table = pd.DataFrame({"plain": plain.mean(axis=0), "ablated": ablated.mean(axis=0)})
    table["effect"] = table["ablated"] - table["plain"]
    table["up"], table["down"] = up.sum(axis=0), down.sum(axis=0)
    table["p_value"] = [sign_test(int(more), int(less)) for more, less in zip(table["up"], table["down"])]
    table["p_adjusted"] = holm(table["p_value"])
    return table


def _cochran(ablated: Matrix) -> tuple[float, float]:
    """Cochran's Q of 0/1 values (prompts, heads), and its p-value; 0 and 1 if no prompt tells heads apart."""
    telling = ablated[np.ptp(ablated, axis=1) > SAME]
    if not len(telling) or ablated.shape[1] < 2:
        return 0.0, 1.0
    found = cochrans_q(telling)
    return float(found.statistic), float(found.pvalue)
