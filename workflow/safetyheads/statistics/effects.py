"""Effects: what ablating an attributed set of heads does, beside what a control of any such set does.

For prompt i, y_i is the share of its samples that comply with heads ablated, and x_i that of the plain model, of the
same batch where there is one. The effect is the mean of y_i - x_i. `Complied` is an outcome: the judge calls the answer
harmful, and it is neither broken nor cut off. The columns that end in `_asr` go by the judge alone, and those that end
in `_refused` by the outcome `refused`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Head
from safetyheads.plans import parse_plan
from safetyheads.statistics.controls import over_control, randomisation_p
from safetyheads.statistics.correction import CORRECTED, Corrections, paired_correlation
from safetyheads.statistics.harmless import Harmless, heads_of_cells
from safetyheads.statistics.intervals import difference_interval, effective_n
from safetyheads.statistics.leaks import normal_queries
from safetyheads.statistics.pairs import PLAN_KEYS, Key, need, pairs, shares
from safetyheads.statistics.significance import SAME, holm, sign_test

FAMILY = [key for key in PLAN_KEYS if key != "plan"]
"""Rows that agree in these are corrected together."""

KINDS = {"complied": "", "asr": "_asr", "refused": "_refused"}
"""What is measured, and how the names of its columns end."""

COMPARED = ["plain", "ablated", "effect", "effect_low", "effect_high", "p_value", "p_adjusted"]
COLUMNS = [
    *PLAN_KEYS,
    "n",
    *(f"{name}{end}" for end in KINDS.values() for name in COMPARED),
    *("control", "over_control", "over_control_low", "over_control_high", "p_control", "p_control_least", "draws"),
    *("over_control_asr", "p_control_asr", "uniform", "potency", "interaction", "degenerate", "harmless_kl"),
    *("over_refusal", "leaks", "selected_here"),
    *(*CORRECTED, "corrected_effect", "corrected_effect_low", "corrected_effect_high", "corrected_by"),
]
BY_CATEGORY = [*PLAN_KEYS, "category", *COLUMNS[len(PLAN_KEYS) :]]
_WHOLE = {"n": "int64", "draws": "Int64", "leaks": "Int64", "selected_here": "boolean"}


def effects(study: "Study") -> pd.DataFrame:
    """The effects of all attributed plans and head sets: a table with the columns `COLUMNS`, sorted by `PLAN_KEYS`.

    - `n`: prompts. `plain`, `ablated`: the means of x_i and y_i; `effect`: of y_i - x_i, with its interval
      (`difference_interval`), the exact sign test, and Holm's correction over the rows that agree in `FAMILY`.
    - `control`: the mean of `matched-PLAN`, over all draws; `over_control`: the effect less the mean effect of the
      draws, with its interval (`controls.over_control`); `p_control` (`randomisation_p`), the smallest that `draws`
      draws can give, and how many draws there are. `uniform`: the mean of `random-N` for as many heads.
    - `potency`: the effect as a share of what it could be at most, 1 - plain, or, below 0, of `plain`.
    - `interaction`: the effect less the sum of the effects of each prompt's heads one by one (`single`, or
      `each-PLAN`).
    - `degenerate`: the share of broken answers. `harmless_kl` (nats) and `over_refusal`: the mean `first_kl` and the
      change of the refused share on benign data sets with the same heads ablated.
    - `leaks`: prompts whose query is also in the data set that the heads were chosen on, and `selected_here`: whether
      that is the measured one, in which case all are. Both are null for head sets. Leaked prompts are never dropped
      where heads were chosen on the measured data set, because none would be left.
    - `corrected_asr`: the ablated ASR corrected for the judge's errors, with its interval; `corrected_effect`: less the
      plain one, corrected as well; `corrected_by`: on which labelled answers the judge's errors on ablated text were
      measured. Null without labels, and where the judge cannot be corrected.

    What a study did not run is null, and so is everything but the counts where no prompt is left. Raises
    SafetyHeadsError if a control has other prompts than its plan.
    """
    return _table([study.row(cell, study.prompts(cell)) for cell in study.cells], COLUMNS)


def effects_by_category(study: "Study") -> pd.DataFrame:
    """The effects on the prompts of each category, for data sets that have categories: the columns `BY_CATEGORY`.

    Everything is as for `effects`. Holm's correction is over all rows that agree in `FAMILY`, so over categories too.
    """
    rows = []
    for cell in study.cells:
        prompts = study.prompts(cell)
        of = study.category.reindex(pd.MultiIndex.from_product([[_keys(cell)["dataset"]], prompts]))
        for name in sorted(of.dropna().unique()):
            rows.append(study.row(cell, prompts[(of == name).to_numpy()]) | {"category": name})
    return _table(rows, BY_CATEGORY)


def _keys(cell: Key) -> dict[str, str]:
    return dict(zip(PLAN_KEYS, cell))


def _table(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    """The rows with all columns, sorted, and p-values corrected."""
    texts = [name for name in columns if name in (*PLAN_KEYS, "category")]
    kinds = {name: "str" if name in (*texts, "corrected_by") else _WHOLE.get(name, "float64") for name in columns}
    table = pd.DataFrame(rows, columns=columns).astype(kinds)
    for end in KINDS.values():
        families = table.groupby(FAMILY)[f"p_value{end}"]
        table[f"p_adjusted{end}"] = families.transform(lambda family: pd.Series(holm(family), index=family.index))
    return table.sort_values(texts, ignore_index=True)


class Study:
    """The tables of a study, ready to be asked for one row after the other.

    `verdicts` is as for `pairs.pairs`. `completions` has the columns of the keys but judge, and variant, query_id,
    heads and first_kl (nats), and at least the rows of the plans that `effects` are about. `datasets` has dataset,
    query_id, query and category. `benign` names the data sets of harmless queries, `harm_judges` the judges that do not
    look for refusals, and `drop_leaks` the cells (values of `PLAN_KEYS`) that leave out leaked prompts. `labels` is
    what people said of judged answers, as for `correction.Corrections`; None if there is nothing. Raises
    SafetyHeadsError if columns or the plain model are missing, and as `Corrections` does.
    """

    def __init__(
        self,
        verdicts: pd.DataFrame,
        completions: pd.DataFrame,
        datasets: pd.DataFrame,
        *,
        benign: Collection[str] = (),
        harm_judges: Collection[str] = (),
        drop_leaks: Collection[Sequence[str]] = (),
        labels: pd.DataFrame | None = None,
    ) -> None:
        need(datasets, ["dataset", "query_id", "query", "category"], "data sets")
        self.values = shares(pairs(verdicts))
        self.category = datasets.set_index(["dataset", "query_id"])["category"].dropna()
        self.cells = sorted(cell for cell in self.values if parse_plan(_keys(cell)["plan"]).has_effects)
        plans = [plan for plan in completions["plan"].unique() if parse_plan(plan).has_effects]
        attributed = completions[completions["plan"].isin(plans)]
        self.heads = heads_of_cells(attributed)
        self.harmless = Harmless(attributed, self.heads, self.values, benign)
        self.queries = normal_queries(datasets)
        self.corrections = Corrections(labels)
        self.harm_judges, self.drop_leaks = set(harm_judges), {tuple(map(str, cell)) for cell in drop_leaks}

    def prompts(self, cell: Key) -> pd.Index:
        """The prompts of a cell."""
        return self._own(cell).index

    def row(self, cell: Key, prompts: pd.Index) -> dict[str, Any]:
        """The row of a cell, of these prompts alone, less those that are dropped."""
        leaked, source, measured = self._leaked(cell), self._source(cell), _keys(cell)["dataset"]
        leaks = None if leaked is None else int(prompts.isin(leaked).sum())
        if cell in self.drop_leaks and leaked is not None and source != measured:
            prompts = prompts[~prompts.isin(leaked)]
        here = None if source is None else source == measured
        row: dict[str, Any] = {**_keys(cell), "n": len(prompts), "leaks": leaks, "selected_here": here}
        if not len(prompts):
            return row
        own, heads = self._own(cell).loc[prompts], self.heads.get(self._unjudged(cell), {})
        refusals = _keys(cell)["judge"] not in self.harm_judges
        for kind, end in KINDS.items():
            if refusals or kind != "refused":
                row |= {f"{name}{end}": value for name, value in _compared(own, kind).items()}
        row |= self._over_control(cell, own) | {"potency": _potency(row["effect"], row["plain"])}
        row |= {"uniform": self._uniform(cell, prompts, heads), "interaction": self._interaction(cell, own, heads)}
        row["degenerate"] = own["degenerate"].mean()
        row["harmless_kl"], over_refusal = self.harmless.of(cell)
        row["over_refusal"] = over_refusal if refusals else None
        return row | _corrected(own, _keys(cell)["judge"], self.corrections)

    def _own(self, cell: Key) -> pd.DataFrame:
        return self.values[cell].droplevel("variant")

    def _other(self, cell: Key, plan: str) -> pd.DataFrame | None:
        """The values of another plan of the same cell."""
        return self.values.get(tuple((_keys(cell) | {"plan": plan}).values()))

    def _unjudged(self, cell: Key) -> Key:
        return tuple(value for key, value in _keys(cell).items() if key != "judge")

    def _source(self, cell: Key) -> str | None:
        """The data set that the heads were chosen on; None for a head set."""
        plan = parse_plan(_keys(cell)["plan"])
        return (plan.source or _keys(cell)["dataset"]) if plan.scores else None

    def _leaked(self, cell: Key) -> set[str] | None:
        """The measured data set's query_ids whose query heads were chosen on; None where that is not known."""
        source, measured = self._source(cell), _keys(cell)["dataset"]
        if source not in self.queries or measured not in self.queries:
            return None
        here = self.queries[measured]
        return set(here.index[here.isin(set(self.queries[source]))])

    def _over_control(self, cell: Key, own: pd.DataFrame) -> dict[str, Any]:
        matched = self._other(cell, f"matched-{_keys(cell)['plan']}")
        if matched is None:
            return {}
        row: dict[str, Any] = {}
        for kind, end in (("complied", ""), ("asr", "_asr")):
            draws = _by_draw(matched[kind] - matched[f"plain_{kind}"], own.index, cell)
            difference = (own[kind] - own[f"plain_{kind}"]).to_numpy()
            found = over_control(difference, draws)
            row[f"over_control{end}"] = found.difference
            row[f"p_control{end}"], least = randomisation_p(float(difference.mean()), draws.mean(axis=0))
            if kind == "complied":
                row |= {"over_control_low": found.low, "over_control_high": found.high, "p_control_least": least}
                row |= {"control": _by_draw(matched[kind], own.index, cell).mean(), "draws": draws.shape[1]}
        return row

    def _uniform(self, cell: Key, prompts: pd.Index, heads: Mapping[str, tuple[Head, ...]]) -> float | None:
        sizes = {len(chosen) for chosen in heads.values()}
        drawn = self._other(cell, f"random-{sizes.pop()}") if len(sizes) == 1 else None
        return None if drawn is None else float(_by_draw(drawn["complied"], prompts, cell).mean())

    def _interaction(self, cell: Key, own: pd.DataFrame, heads: Mapping[str, tuple[Head, ...]]) -> float | None:
        for plan in ("single", f"each-{_keys(cell)['plan']}"):
            alone = self._other(cell, plan)
            if alone is None or not all(query in heads for query in own.index):
                continue
            wanted = [(str(head), query) for query in own.index for head in heads[query]]
            effect = (alone["complied"] - alone["plain_complied"]).reindex(wanted)
            if effect.notna().all():
                return float(((own["complied"] - own["plain_complied"]).sum() - effect.sum()) / len(own))
        return None


def _compared(own: pd.DataFrame, kind: str) -> dict[str, float]:
    """The columns that compare ablated with plain answers, but for the corrected p-value."""
    difference = (own[kind] - own[f"plain_{kind}"]).to_numpy()
    low, high = difference_interval(difference, own["samples"].max())
    return {
        **{"plain": own[f"plain_{kind}"].mean(), "ablated": own[kind].mean(), "effect": float(difference.mean())},
        **{"effect_low": float(low), "effect_high": float(high)},
        "p_value": sign_test(int((difference > SAME).sum()), int((difference < -SAME).sum())),
    }


def _corrected(own: pd.DataFrame, judge: str, corrections: Corrections) -> dict[str, Any]:
    """The columns of the ASR corrected for the judge's errors; nothing where they are null."""
    by = corrections.by(judge, "ablated")
    if by is None:
        return {}
    plain, ablated = (own[name].to_numpy() for name in ("plain_asr", "asr"))
    before, after = (
        (rate, float(effective_n(values, rate * (1 - rate), own["samples"].max())))
        for values, rate in ((plain, float(plain.mean())), (ablated, float(ablated.mean())))
    )
    of = corrections.rates(judge, "ablated", *after)
    effect = corrections.effect(judge, before, after, paired_correlation(plain, ablated))
    row: dict[str, Any] = {"corrected_by": by}
    row |= {} if of is None else dict(zip(CORRECTED, map(float, of)))
    names = ("corrected_effect", "corrected_effect_low", "corrected_effect_high")
    return row | ({} if effect is None else dict(zip(names, map(float, effect))))


def _potency(effect: float, plain: float) -> float | None:
    possible = 1 - plain if effect >= 0 else plain
    return effect / possible if possible > SAME else None


def _by_draw(values: "pd.Series[float]", prompts: pd.Index, cell: Key) -> NDArray[np.float64]:
    """Values of a control as (prompts, draws)."""
    table = values.unstack("variant").reindex(prompts)
    if table.isna().any(axis=None):
        raise SafetyHeadsError(
            f"A control of plan {_keys(cell)['plan']} (model {_keys(cell)['model']}, data set "
            f"{_keys(cell)['dataset']}) has other prompts than the plan. Judge the same prompts in both."
        )
    return np.asarray(table, dtype=np.float64)
