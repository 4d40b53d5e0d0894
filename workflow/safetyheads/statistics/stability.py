"""Stability: would other prompts have led to the same heads?

Heads are chosen by scores over some prompts. These are resampled, and it is counted how often a head is chosen. Heads
that are chosen in half of the resamples only owe their place to the prompts at hand.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safetyheads.chosen_heads import contrast, top_heads
from safetyheads.statistics.resampling import resampled

Matrix = NDArray[np.float64]

KEYS = ["model", "dataset", "template", "ablation", "method", "n"]
COLUMNS = [*KEYS, "layer", "head", "share", "chosen", "margin"]


class Choice(NamedTuple):
    """Heads that a plan of a study chooses by scores, and the scores that are subtracted first, if any."""

    model: str
    dataset: str
    template: str
    ablation: str
    method: str
    n: int
    less_model: str = ""
    less_dataset: str = ""


def matrix(scores: pd.DataFrame) -> pd.DataFrame:
    """The Ships scores (prompts, heads) of a cell, sorted: `scores` has query_id, layer, head and score (nats)."""
    return scores.pivot(index="query_id", columns=["layer", "head"], values="score").sort_index().sort_index(axis=1)


def chosen(scores: Matrix, n: int) -> NDArray[np.bool_]:
    """Which heads are the n of highest score in each row (rows, heads); of equal ones the first, as in `plans`."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    found = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(found, best, True, axis=1)
    return found


def of_prompts(scores: pd.DataFrame, ns: Sequence[int]) -> pd.DataFrame:
    """For `ships-N`, whose heads are each prompt's own: the share of prompts whose n best heads a head is among.

    `scores` is a `matrix`. `chosen` is whether it is one of any prompt's. Returns n, layer, head, share and chosen,
    without heads whose share is 0.
    """
    rows = [_rows(scores, n, (share := chosen(scores.to_numpy(), n).mean(axis=0)), share > 0) for n in ns]
    return pd.concat(rows, ignore_index=True)


def of_means(
    scores: pd.DataFrame,
    ns: Sequence[int],
    less: pd.DataFrame | None = None,
    *,
    same_prompts: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """For `top-N` and `contrast-N`: the share of resamples of the prompts in which a head is among the n best.

    `scores` and `less`, which a contrast subtracts, are each a `matrix`. Their prompts are drawn independently, or
    together if they are the same ones (in two models). `chosen` is whether the head is among the n best by all prompts.
    Returns as `of_prompts` does. A single prompt cannot be resampled, so `share` is null then.
    """
    table = _table(scores) if less is None else contrast(_table(scores), _table(less))
    own, drawn = scores.to_numpy(), _drawn(seed, 0, len(scores))
    if less is None:
        sums = drawn @ _exact(own, len(own))
    elif same_prompts:
        sums = drawn @ _exact(own - less.loc[scores.index].to_numpy(), len(own))
    else:
        # The difference of the two means, times both numbers of prompts: divisions would be rounded.
        both = _exact(np.concatenate([own, less.to_numpy()]), 2 * len(own) * len(less))
        sums = len(less) * (drawn @ both[: len(own)]) - len(own) * (_drawn(seed, 1, len(less)) @ both[len(own) :])
    rows = [_rows(scores, n, chosen(sums, n).mean(axis=0), scores.columns.isin(top_heads(table, n))) for n in ns]
    found = pd.concat(rows, ignore_index=True)
    alone = len(scores) == 1 or (less is not None and len(less) == 1)
    return found.assign(share=np.nan) if alone else found


def of_support(scores: pd.DataFrame, ns: Sequence[int]) -> pd.DataFrame:
    """For methods with one score for each head: the n heads of highest score, and the share of the method's own
    resamples that choose each one, null where it makes none.

    `scores` has layer, head, score and support. Returns as `of_prompts` does, without heads that are not chosen.
    """
    rows = []
    for n in ns:
        table = scores[["layer", "head"]].assign(n=n, share=scores["support"].astype("float64"))
        best = top_heads(scores, n)
        table["chosen"] = [(layer, head) in best for layer, head in zip(table["layer"], table["head"])]
        rows.append(table[table["chosen"]])
    return pd.concat(rows, ignore_index=True)


def _table(scores: pd.DataFrame) -> pd.DataFrame:
    """A `matrix` as the table that it was made of, its rows in the order in which plans read and add them."""
    return scores.stack(["layer", "head"], future_stack=True).rename("score").reset_index()


def _drawn(seed: int, axis: int, size: int) -> Matrix:
    """How often each of `size` prompts is drawn in each resample: whole numbers (resamples, prompts)."""
    return np.rint(resampled(seed, axis, size) * size)


def _exact(scores: Matrix, times: int) -> Matrix:
    """Scores (prompts, heads), rounded so that every sum of `times` of them is exact, in whatever order it is made.

    They become multiples of the smallest power of two that leaves room for such a sum. So heads that score the same tie
    in every resample, and the result depends on no library's way to add. A score moves by less than 1e-9 of the largest
    one, with up to 1,000 prompts of both kinds. That is less than what rounding within a model does to it.
    """
    bits = 52 - int(np.frexp(np.abs(scores).max(initial=0) * times)[1])
    return np.asarray(np.ldexp(np.rint(np.ldexp(scores, bits)), -bits))


def _rows(scores: pd.DataFrame, n: int, share: Matrix, by_all: NDArray[np.bool_]) -> pd.DataFrame:
    table = scores.columns.to_frame(index=False).assign(n=n, share=share, chosen=by_all)
    return table[(table["share"] > 0) | table["chosen"]]


def of_steps(steps: pd.DataFrame) -> pd.DataFrame:
    """For methods that search: the head that each step selected, and its margin to the next best one, in degrees.

    `steps` has step, layer, head, score and selected. The margin is null where no other head was left. Returns n (the
    step), layer, head, chosen and margin.
    """
    rows = []
    for step, of_step in steps.groupby("step"):
        best, others = (of_step[of_step["selected"].astype(bool) == which] for which in (True, False))
        margin = best["score"].iloc[0] - others["score"].max() if len(others) else None
        rows.append({"n": step, "layer": best["layer"].iloc[0], "head": best["head"].iloc[0], "margin": margin})
    return pd.DataFrame(rows).assign(chosen=True)
