"""Concentration: on how few heads does a model's refusal rest, by scores and by what their ablation does?"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

from safetyheads.chosen_heads import contrast
from safetyheads.methods import METHODS
from safetyheads.statistics import stability
from safetyheads.statistics.doses import CELL_KEYS, doses, enough
from safetyheads.statistics.stability import Choice

KEYS = [*CELL_KEYS, "method", "source"]
SHIFTS = ("refusal_shift", "answer_shift")
CORRELATED = ("score", *SHIFTS)
COLUMNS = [
    *KEYS,
    *("n_heads", "gini", "top_share", "effective_heads", "largest", "heads_asr", "heads_coherent"),
    *(f"{name}_correlation{end}" for end in ("", "_asr") for name in (*CORRELATED, "highest")),
    *("p_refusal", "p_refusal_benign", "refusal_auroc"),
]
_WHOLE = ("n_heads", "largest", "heads_asr", "heads_coherent")


def gini(scores: ArrayLike) -> float:
    """The Gini coefficient of scores, none below 0: 0 if all are equal, (n - 1) / n if one head has all; null if none.

    Half of the mean absolute difference of two heads, over the mean.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    n, total = len(values), values.sum()
    return float((2 * np.arange(1, n + 1) - n - 1) @ values / (n * total)) if total > 0 else np.nan


def top_share(scores: ArrayLike, share: float = 0.01) -> float:
    """What share of the sum of the scores the highest 1 % of the heads have, at least one head; null if all are 0."""
    values = np.sort(np.asarray(scores, dtype=np.float64))[::-1]
    return float(values[: max(1, round(share * len(values)))].sum() / values.sum()) if values.sum() > 0 else np.nan


def effective_heads(scores: ArrayLike) -> float:
    """How many heads of equal score would be as concentrated: 1 / sum of squared shares; null if all are 0.

    That is the inverse of Simpson's and Herfindahl's index, also known as participation ratio (Hill number of order 2).
    """
    values = np.asarray(scores, dtype=np.float64)
    return float(values.sum() ** 2 / (values**2).sum()) if values.sum() > 0 else np.nan


class Scores:
    """The scores of a study, ready to be asked for one cell after the other.

    `tables` has the rows of all scores by their names (`Method.scores`). `choices` are the heads that plans choose, and
    `refusal` has, for the key (model, dataset, template, ablation) of a table with signs, the part `refusal` of its
    record.
    """

    def __init__(
        self,
        tables: Mapping[str, pd.DataFrame],
        choices: Iterable[Choice],
        refusal: Mapping[tuple[str, ...], Mapping[str, Any]],
    ) -> None:
        self.tables = {scores: _by_key(table) for scores, table in tables.items()}
        self.choices, self.refusal = sorted(set(choices)), refusal

    def stability(self) -> pd.DataFrame:
        """How stable the choice of each head is: a table with the columns `stability.COLUMNS`, sorted."""
        tables = [pd.DataFrame(columns=stability.COLUMNS)]
        for choice, ns in self.methods():
            keys = dict(zip(stability.KEYS, choice))
            tables.append(self._of(choice, ns).assign(**{key: keys[key] for key in stability.KEYS if key != "n"}))
        whole = pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)
        whole = whole.reindex(columns=stability.COLUMNS)
        return whole.sort_values([*stability.KEYS, "layer", "head"], ignore_index=True)

    def _of(self, choice: Choice, ns: Sequence[int]) -> pd.DataFrame:
        table, method = self._table(choice), METHODS[choice.method]
        if method.searches:
            return stability.of_steps(table)
        if "query_id" not in table:
            return stability.of_support(table, ns)
        scores = stability.matrix(table)
        if method.per_prompt:
            return stability.of_prompts(scores, ns)
        less = stability.matrix(self._less(choice)) if choice.less_model else None
        return stability.of_means(scores, ns, less, same_prompts=choice.less_dataset == choice.dataset)

    def methods(self) -> Iterator[tuple[Choice, list[int]]]:
        """Each method of a cell once, with the numbers of heads that it chooses."""
        numbers: dict[Choice, list[int]] = {}
        for choice in self.choices:
            numbers.setdefault(choice._replace(n=0), []).append(choice.n)
        yield from numbers.items()

    def _table(self, choice: Choice) -> pd.DataFrame:
        return self.tables[METHODS[choice.method].scores][choice[:4]]

    def _less(self, choice: Choice) -> pd.DataFrame:
        return self._table(choice._replace(model=choice.less_model, dataset=choice.less_dataset))

    def of_heads(self, choice: Choice) -> pd.DataFrame:
        """What a method goes by: the score of each head (index: layer, head), and mean shifts where there are any.

        That of Ships is its mean over prompts, that of a contrast may be below 0, and that of a search is its first
        step's.
        """
        table = self._table(choice)
        if METHODS[choice.method].searches:
            table = table[table["step"] == 1]
        columns = ["score", *(name for name in SHIFTS if name in table)]
        found = table.groupby(["layer", "head"])[columns].mean()
        if choice.less_model:
            subtracted = contrast(table, self._less(choice))
            found["score"] = subtracted.set_index(["layer", "head"])["score"]
        return found


def concentration(scores: Scores, rates: pd.DataFrame, by_head: pd.DataFrame) -> pd.DataFrame:
    """How concentrated refusal is, by each method in each cell: a table with the columns `COLUMNS`, sorted by `KEYS`.

    `rates` and `by_head` are rates.parquet and maps_by_head.parquet (which may be empty).

    - `n_heads`: the heads of the model. All that follows is over all of them.
    - `gini`, `top_share` (of the highest 1 % of heads) and `effective_heads` are of the mean scores of all heads; of a
      contrast only what is above 0 counts, as a head that matters less on these prompts is no sign of refusal.
    - `heads_asr`, `heads_coherent`: the smallest number of heads with which the ASR, or the coherent ASR, is at least
      0.5; 0 if the plain model's is; null if it is not with any number that was measured, the largest of which is
      `largest`.
    - `score_correlation`, `refusal_shift_correlation`, `answer_shift_correlation`: Spearman's rank correlation, over
      heads, with the effect on the coherent ASR of ablating each head alone (plan `single`); `_asr`: with that on the
      ASR. Null without such a map, and where one of both is the same for all heads. `highest_correlation` is what
      the best ranking would have: heads whose ablation does the same are tied, so it is far below 1 if few do anything.
    - `p_refusal`, `p_refusal_benign`, `refusal_auroc`: how likely the plain model's first token is that of a refusal.
    """
    rows = []
    singles = by_head[by_head["plan"] == "single"] if len(by_head) else by_head
    curves = dict(list(doses(rates).groupby(KEYS)))
    # Cells that differ in decoding or judge have the same scores.
    of_method = {(*choice[:4], choice.method): (choice, scores.of_heads(choice)) for choice, _ in scores.methods()}
    for key, curve in curves.items():
        cell = dict(zip(KEYS, key))
        choice, heads = of_method[cell["model"], cell["source"], cell["template"], cell["ablation"], cell["method"]]
        positive = heads["score"].clip(lower=0)
        row: dict[str, Any] = {**cell, "gini": gini(positive), "top_share": top_share(positive)}
        row |= {
            "n_heads": len(heads),
            "effective_heads": effective_heads(positive),
            "largest": int(curve["n_heads"].max()),
        }
        row |= {"heads_asr": enough(curve, "asr"), "heads_coherent": enough(curve, "coherent_asr")}
        measured = singles[(singles[CELL_KEYS] == pd.Series(cell)[CELL_KEYS]).all(axis=1)] if len(singles) else singles
        if len(measured):
            row |= _correlations(heads, measured.set_index(["layer", "head"]))
        first = scores.refusal.get(choice[:4], {})
        names = {"p_refusal": "p_harmful", "p_refusal_benign": "p_benign", "refusal_auroc": "auroc"}
        row |= {name: first.get(of) for name, of in names.items()}
        rows.append(row)
    table = pd.DataFrame(rows, columns=COLUMNS)
    kinds = {name: "str" if name in KEYS else "Int64" if name in _WHOLE else "float64" for name in COLUMNS}
    return table.astype(kinds).sort_values(KEYS, ignore_index=True)


def _correlations(heads: pd.DataFrame, measured: pd.DataFrame) -> dict[str, float]:
    """The rank correlations of the columns of `heads` with measured effects, both by layer and head."""
    both = heads.join(measured[["effect", "effect_asr"]], how="inner")
    found: dict[str, float] = {}
    for end in ("", "_asr"):
        effect = both[f"effect{end}"]
        ranked = {name: both[name] for name in heads} | {"highest": effect.rank(method="first")}
        found |= {f"{name}_correlation{end}": rank_correlation(one, effect) for name, one in ranked.items()}
    return found


def rank_correlation(one: "pd.Series[float]", other: "pd.Series[float]") -> float:
    """Spearman's rank correlation; null where values are missing, or one of both is the same everywhere."""
    if one.isna().any() or other.isna().any() or one.nunique() < 2 or other.nunique() < 2:
        return np.nan
    return float(spearmanr(one, other).statistic)


def _by_key(table: pd.DataFrame) -> dict[tuple[str, ...], pd.DataFrame]:
    """The rows of each cell of scores, by model, data set, template and ablation."""
    if table.empty:
        return {}
    groups = table.groupby(["model", "dataset", "template", "ablation"], observed=True)
    return {tuple(map(str, key)): rows for key, rows in groups}
