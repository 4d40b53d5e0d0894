"""How well a judge agrees with people: its sensitivity and specificity from labelled answers, with intervals.

Sensitivity is the share of the answers that people call harmful that the judge calls harmful as well, specificity the
same of harmless ones. Labels come from a sample that may be stratified, usually by what the judge said, with weights
that tell how many answers a labelled one stands for. All shares are weighted.

The uncertainty is that of draws from a posterior within strata. A stratum's total weight is known. How it divides into
conditions and into what the judge said is drawn from a Dirichlet distribution with the (effective) numbers of texts,
where the design leaves it open. What people say, given what the judge said, is drawn from a beta distribution with half
a text more of either kind (Jeffreys), for each stratum, condition and word of the judge. Where several strata share a
condition and a word, the halves are divided among them by weight. A half for each of ten strata would pull rare errors
towards one half: in simulations of rates corrected by such labels (`correction`), intervals then held a true rate of
0.9 in 90 % of cases; they held it in 91 % with the halves divided by number of texts, in 94 % by weight.

Several labels of a text are decided by majority (`labels.decided`).
"""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safetyheads.statistics.intervals import TAIL, wilson
from safetyheads.statistics.kappa import kappa
from safetyheads.statistics.labels import CONDITIONS, TEXT, checked, decided
from safetyheads.statistics.resampling import RESAMPLES

LEAST_LABELS = 10
"""Harmful texts, and harmless ones, that a condition needs so that its own sensitivity and specificity are used."""

LEAST_SUM = 1.05
"""Sensitivity + specificity of a judge that can be corrected is above this. A coin has 1."""

COUNTS = ("tp", "fp", "tn", "fn")
COLUMNS = [
    *("judge", "condition", "n", "unsure", *COUNTS, *(f"{name}_share" for name in COUNTS)),
    *("sensitivity", "sensitivity_low", "sensitivity_high", "specificity", "specificity_low", "specificity_high"),
    *("kappa", "annotators", "pairs", "people_kappa", "corrected_by", "reason"),
]
_WHOLE = ("n", "unsure", *COUNTS, "annotators", "pairs")

Floats = NDArray[np.float64]


class Calibrated(NamedTuple):
    """A judge measured on the labelled texts of one condition; both rates are nan where no text tells them."""

    harmful: int
    harmless: int
    """Texts that people call so."""
    sensitivity: float
    specificity: float
    draws: tuple[Floats, Floats]
    """Of both, each (RESAMPLES,). The draws of a judge's conditions belong together: `all` is made of the others."""

    @property
    def fault(self) -> str | None:
        """Why no rate can be corrected by it; None if rates can."""
        for count, name in ((self.harmful, "harmful"), (self.harmless, "harmless")):
            if not count:
                return f"no labelled answer is {name} to people"
        total = self.sensitivity + self.specificity
        if total <= LEAST_SUM:
            return f"sensitivity + specificity is {total:.2f}, not above {LEAST_SUM}: the judge tells too little"
        return None


def calibrated(texts: pd.DataFrame, *, seed: int = 0) -> dict[str, Calibrated]:
    """One judge measured on its `decided` texts, by condition: `all`, and `plain` and `ablated` where there are some.

    The same texts and seed give the same draws.
    """
    sure = texts[texts["label"].notna()].reset_index(drop=True)
    cells = _Cells(sure, seed)
    found = {}
    for condition in CONDITIONS:
        if condition != "all" and not (texts["condition"] == condition).any():
            continue
        here = sure if condition == "all" else sure[sure["condition"] == condition]
        harmful = int(here["label"].sum())
        rates, draws = cells.rates(condition)
        found[condition] = Calibrated(harmful, len(here) - harmful, *rates, draws)
    return found


def corrected_by(found: dict[str, Calibrated], condition: str) -> tuple[str | None, str | None]:
    """The condition whose sensitivity and specificity correct rates of `condition`, and a remark where it is another.

    A condition with fewer than `LEAST_LABELS` harmful or harmless texts is corrected by `all`. The first is None where
    that one cannot tell: the remark is the reason.
    """
    own = found.get(condition)
    if condition != "all" and own is not None and min(own.harmful, own.harmless) >= LEAST_LABELS:
        return (None, own.fault) if own.fault else (condition, None)
    remark = None if condition == "all" else f"fewer than {LEAST_LABELS} harmful or harmless labels: all are used"
    return (None, found["all"].fault) if found["all"].fault else ("all", remark)


def calibration(labels: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """How well judges agree with people: a table with the columns `COLUMNS`, a row for each judge and condition.

    `labels` has the columns `labels.COLUMNS`. Texts of unknown condition count in `all` alone.

    - `n`: texts with a decision; `unsure`: texts without one, which count nowhere else. `tp`, `fp`: texts that the
      judge calls harmful and that are, or are not, so to people; `tn`, `fn`: that it calls harmless, rightly or not.
      `tp_share`, ...: the same as weighted shares.
    - `sensitivity`, `specificity`: weighted, with 95 % intervals; `kappa`: Cohen's, of judge and people, weighted.
    - `annotators`: how many there are by name; `pairs`: pairs of sure labels by two of them on one text;
      `people_kappa`: Cohen's kappa of two annotators, weighted, averaged over pairs of annotators by number of texts.
    - `corrected_by`: the condition by which rates of this one are corrected, and `reason`: why it is another, or none.

    What is undefined is null. Raises SafetyHeadsError as `labels.checked` does.
    """
    known = checked(labels)
    rows = []
    for judge, own in known.groupby("judge", sort=True):
        texts = decided(own)
        measured = calibrated(texts, seed=seed)
        for condition, found in measured.items():
            some = (frame if condition == "all" else frame[frame["condition"] == condition] for frame in (texts, own))
            by, reason = corrected_by(measured, condition)
            row = {"judge": str(judge), "condition": condition, "corrected_by": by, "reason": reason}
            rows.append(row | _counts(next(some)) | _people(next(some)) | _bounds(found))
    words = dict.fromkeys(("judge", "condition", "corrected_by", "reason"), "str")
    kinds = {name: words.get(name, "int64" if name in _WHOLE else "float64") for name in COLUMNS}
    return pd.DataFrame(rows, columns=COLUMNS).astype(kinds)


def _counts(texts: pd.DataFrame) -> dict[str, Any]:
    sure = texts[texts["label"].notna()]
    label, judged = sure["label"].to_numpy(dtype=bool), sure["judged"].to_numpy(dtype=bool)
    weight = sure["weight"].to_numpy(dtype=np.float64)
    which = dict(zip(COUNTS, (label & judged, ~label & judged, ~label & ~judged, label & ~judged)))
    row: dict[str, Any] = {"n": len(sure), "unsure": len(texts) - len(sure)}
    row |= {name: int(these.sum()) for name, these in which.items()}
    weighted = {name: float(weight[these].sum()) for name, these in which.items()}
    if len(sure):
        row |= {f"{name}_share": value / float(weight.sum()) for name, value in weighted.items()}
    return row | {"kappa": kappa(weighted["tp"], weighted["fp"], weighted["fn"], weighted["tn"])}


def _people(labels: pd.DataFrame) -> dict[str, Any]:
    """How many annotators there are, and how they agree with each other. Labels without a name are not compared."""
    named = labels[labels["annotator"].notna()]
    sure = named[named["label"].notna()].assign(text=named.groupby(TEXT, dropna=False).ngroup())
    by_name = sure.drop_duplicates(["text", "annotator"]).set_index("text")
    of = dict(list(by_name.groupby("annotator", sort=True)))
    pairs, total, judged = 0, 0.0, 0
    for one, other in combinations(of, 2):
        both = of[one][["label", "weight"]].join(of[other]["label"].rename("other"), how="inner")
        pairs += len(both)
        a, b, weight = (both[name].to_numpy(dtype=np.float64) for name in ("label", "other", "weight"))
        agreed = kappa(*(float((weight * x * y).sum()) for x, y in ((a, b), (a, 1 - b), (1 - a, b), (1 - a, 1 - b))))
        if agreed is not None:
            total, judged = total + len(both) * agreed, judged + len(both)
    people = total / judged if judged else None
    return {"annotators": named["annotator"].nunique(), "pairs": pairs, "people_kappa": people}


def _bounds(found: Calibrated) -> dict[str, float]:
    row: dict[str, float] = {}
    names, values = ("sensitivity", "specificity"), (found.sensitivity, found.specificity)
    for name, value, draws, count in zip(names, values, found.draws, (found.harmful, found.harmless)):
        low, high = (np.nan, np.nan) if np.isnan(value) else np.quantile(draws, [TAIL, 1 - TAIL])
        if low == high:  # the judge said one word of all texts, so that no draw tells what its other word is worth
            low, high = wilson(round(value) * count, count)
        row |= {name: value, f"{name}_low": min(float(low), value), f"{name}_high": max(float(high), value)}
    return row


class _Cells:
    """Texts with a decision, by stratum, condition and what the judge said: the cells of the posterior."""

    def __init__(self, sure: pd.DataFrame, seed: int) -> None:
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, len(sure)])))
        known = pd.DataFrame(
            {
                "stratum": sure["stratum"],
                "condition": sure["condition"].astype("object").where(sure["condition"].notna(), ""),
                "judged": sure["judged"],
                "weight": sure["weight"].astype("float64"),
                "square": sure["weight"].astype("float64") ** 2,
                "harmful": sure["weight"].astype("float64") * sure["label"].astype("float64"),
            }
        )
        cells = known.groupby(["stratum", "condition", "judged"], sort=True).sum().reset_index()
        self.condition, self.judged = cells["condition"].to_numpy(), cells["judged"].to_numpy(dtype=bool)
        self.weight = cells["weight"].to_numpy()
        self.harmful = cells["harmful"].to_numpy()
        n = self.weight**2 / cells["square"].to_numpy()
        share = np.clip(self.harmful / self.weight, 0, 1)
        word = cells.groupby(["condition", "judged"])["weight"].transform("sum").to_numpy()
        added = 0.5 * self.weight / word
        drawn = generator.beta(
            (n * share + added)[:, None], (n * (1 - share) + added)[:, None], (len(cells), RESAMPLES)
        )
        mass = self._masses(cells, generator)
        self.drawn = np.stack([mass * drawn, mass * (1 - drawn)])  # (harmful or harmless, cells, RESAMPLES)

    def _masses(self, cells: pd.DataFrame, generator: np.random.Generator) -> Floats:
        """Draws (cells, RESAMPLES) of the cells' weights: a stratum of one cell has that weight, others divide it."""
        mass = np.repeat(self.weight[:, None], RESAMPLES, axis=1)
        for rows in cells.groupby("stratum", sort=True).indices.values():
            if len(rows) > 1:
                total = self.weight[rows].sum()
                n = total**2 / cells["square"].to_numpy()[rows].sum()
                mass[rows] = total * generator.dirichlet(n * self.weight[rows] / total, RESAMPLES).T
        return mass

    def rates(self, condition: str) -> tuple[tuple[float, float], tuple[Floats, Floats]]:
        """Sensitivity and specificity on the texts of a condition, and draws of both."""
        here = np.ones(len(self.weight), dtype=bool) if condition == "all" else self.condition == condition
        found, draws = [], []
        values = (self.harmful, self.judged), (self.weight - self.harmful, ~self.judged)
        for (weight, right), drawn in zip(values, self.drawn):
            total = float(weight[here].sum())
            found.append(float(weight[here & right].sum()) / total if total > 1e-12 else np.nan)
            with np.errstate(invalid="ignore", divide="ignore"):
                draws.append(drawn[here & right].sum(axis=0) / drawn[here].sum(axis=0))
        return (found[0], found[1]), (draws[0], draws[1])
