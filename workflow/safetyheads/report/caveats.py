"""Caveats: sentences on what an effect does not show, made from its numbers.

A row of effects.parquet becomes a list of sentences, those of most weight first. "Not refused" is not "harmful", and
"refusals fell" is not "these heads did it": the sentences say where a number could be read so and must not be.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import pandas as pd

from safetyheads.report.broken_text import broken_plain
from safetyheads.report.figures.drawing import percent
from safetyheads.statistics.significance import LEVEL, SAME

BROKEN = 0.1
"""Share of broken answers, beyond the plain model's, from which the page speaks of them."""

HIGH = 0.9
"""Share of answered requests from which the plain model leaves little to rise."""

FELL = 0.1
"""Fall of refusals from which the page says what became of them."""


@dataclass(frozen=True)
class Caveat:
    """A sentence, the few words that stand for it in a table, and its kind, by which headlines go.

    Kinds are `filled in`, `empty`, `plain broken`, `broken`, `no control`, `same`, `opposite`, `few draws`, `beyond`,
    `noise`, `chance`, `negative`, `refusals`, `high`, `some broken`, `selected` and `leaks`. Only `beyond` speaks for
    the heads.
    """

    kind: str
    short: str
    text: str


def caveats(
    row: Mapping[str, Any], *, noise: float = nan, plain_broken: float = nan, benign: bool = False
) -> list[Caveat]:
    """The caveats of a row of effects.parquet, those of most weight first.

    `noise` is the share of verdicts that differ between batches, of the row's model and judge; `plain_broken` the share
    of the plain model's answers that are broken. Both may be nan. `benign` data sets are measured without controls.
    """
    effect = _Effect(row, noise, plain_broken)
    if not isfinite(effect.effect):
        left = "No prompt is left to measure: heads were chosen on all of these queries."
        return [Caveat("empty", "no prompts", left)]
    nothing_said = effect.is_broken() and abs(effect.effect) < SAME  # nor does the control say anything of that
    control = [] if nothing_said or (benign and not effect.draws) else [effect.control()]
    against = [caveat for caveat in control if caveat.kind != "beyond"]
    for_them = [caveat for caveat in control if caveat.kind == "beyond"]
    found = [
        effect.broken_plain(),
        effect.broken(),
        *against,
        effect.in_noise(),
        effect.chance(),
        *for_them,
        effect.negative(),
    ]
    found += [effect.refusals(), None if benign else effect.high(), effect.some_broken()]
    return [caveat for caveat in (*found, effect.selected(), effect.leaks()) if caveat is not None]


def mostly_broken(effect: float, asr: float, refused: float, broken: float) -> bool:
    """Whether more than half of what changed is broken text.

    All are changes of shares from the plain to the ablated model: of answered requests, of the ASR as the judge says,
    of refusals (nan where the judge finds none), and of broken answers. What changed is the largest of the changes, or
    what was answered and what broke together.
    """
    changes = (abs(effect), abs(asr), abs(refused), max(effect, 0) + max(broken, 0))
    changed = max(change for change in changes if isfinite(change))
    return bool(broken >= BROKEN - SAME and broken > changed / 2 + SAME)


def points(change: float) -> str:
    """A change of a share in percentage points, with its sign: `+12.5` for 0.125."""
    rounded = round(100 * change, 1) + 0
    return f"{rounded:+g}" if rounded else "0"


def interval(low: float, high: float) -> str:
    """The bounds of an interval in points: `[-2, +14.1]`."""
    return f"[{points(low)}, {points(high)}]"


def number(row: Mapping[str, Any], name: str) -> float:
    """A value of a row; nan where it is null or there is no such column."""
    value = row.get(name)
    return nan if value is None or pd.isna(value) else float(value)


def draws_as_far(p: float, draws: int) -> int:
    """How many of the control's draws are at least as far from the plain model, from the randomisation p-value."""
    return round(p * (1 + draws)) - 1


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 1e-4 else f"{p:.0e}"


def _count(number: int, one: str, more: str = "") -> str:
    return f"{number:,} {one if number == 1 else more or one + 's'}"


class _Effect:
    """The numbers of one row, and each caveat that may follow from them."""

    def __init__(self, row: Mapping[str, Any], noise: float, plain_broken: float) -> None:
        self.row, self.noise = row, noise
        self.plan = str(row.get("plan", "the plan"))
        self.n = int(row.get("n", 0))
        self.effect, self.plain = number(row, "effect"), number(row, "plain")
        self.refused, self.degenerate = number(row, "effect_refused"), number(row, "degenerate")
        self.plain_broken = plain_broken
        self.draws = 0 if pd.isna(row.get("draws")) else int(row["draws"])
        corrected = number(row, "p_adjusted")
        self.p, self.corrected = (corrected, True) if isfinite(corrected) else (number(row, "p_value"), False)

    def is_broken(self) -> bool:
        plain = self.plain_broken if isfinite(self.plain_broken) else 0.0
        return mostly_broken(self.effect, number(self.row, "effect_asr"), self.refused, self.degenerate - plain)

    def broken_plain(self) -> Caveat | None:
        words = broken_plain(self.plain_broken)
        return Caveat("plain broken", "the plain model is broken", words) if words else None

    def broken(self) -> Caveat | None:
        if not self.is_broken():
            return None
        plain = f", of the plain model's {percent(self.plain_broken)}" if isfinite(self.plain_broken) else ""
        words = (
            f"Read no change of mind into this: most of the change is broken text. {percent(self.degenerate)} of the "
            f"answers are broken{plain}; the share that is answered changes by {points(self.effect)} points."
        )
        return Caveat("broken", "broken text", words)

    def some_broken(self) -> Caveat | None:
        known = isfinite(self.plain_broken)
        if self.is_broken() or not self.degenerate - (self.plain_broken if known else 0.0) >= BROKEN - SAME:
            return None
        share, plain = percent(self.degenerate), f", of the plain model's {percent(self.plain_broken)}" * known
        return Caveat("some broken", f"{share} broken", f"Besides, {share} of the answers are broken text{plain}.")

    def control(self) -> Caveat:
        over, low, high = (number(self.row, f"over_control{end}") for end in ("", "_low", "_high"))
        p = number(self.row, "p_control")
        if not self.draws or not isfinite(p):
            words = (
                f"How other heads of the same layers do was not measured (plan matched-{self.plan}), so nothing here "
                "says that it is these heads."
            )
            return Caveat("no control", "no control measured", words)
        control = self.effect - over
        as_far, least = draws_as_far(p, self.draws), 1 / (1 + self.draws)
        sure = low > 0 or high < 0
        draws = _count(self.draws, "draw")
        change = "changes" if self.draws == 1 else "change"
        average = " on average" if self.draws > 1 else ""
        go = "goes" if as_far == 1 else "go"
        numbers = (
            f"{draws} of as many heads of the same layers {change} the share that is answered by "
            f"{points(control)} points{average}, these heads by {points(self.effect)}. The difference is "
            f"{points(over)} {interval(low, high)}, and {as_far} of {draws} {go} at least as far (p {_p(p)}, the least "
            f"possible {_p(least)})."
        )
        same = "the control does the same"
        as_far_as = f"as far as {_count(self.n, 'prompt')} can tell"
        if p <= LEVEL and sure:
            which = f"beyond all {self.draws}" if not as_far else f"beyond {self.draws - as_far} of {self.draws}"
            words = f"What these heads do goes {which} draws of the control. {numbers} {self._correction(least)}"
            return Caveat("beyond", f"{which} draws", words)
        if not sure and not as_far:
            words = (
                f"No draw of the control does as much, but {_count(self.n, 'prompt')} and {draws} cannot tell these "
                f"heads from others of their layers. {numbers}"
            )
            return Caveat("few draws", "not told from the control", words)
        if p <= LEVEL:
            words = f"Stronger than most draws of the control, but not surely: {as_far_as}, {same}. {numbers}"
            return Caveat("same", same, words)
        if not sure:
            nothing = self.is_broken() or abs(self.effect) < SAME
            about = "In what is answered" if nothing else "Not these heads in particular"
            return Caveat("same", same, f"{about}: {as_far_as}, {same}. {numbers}")
        if not as_far:
            words = (
                f"No draw of the control does as much, but {draws} "
                f"{'is' if self.draws == 1 else 'are'} too few to tell; where a layer has no more heads to draw, "
                f"choose more heads. {numbers}"
            )
            return Caveat("few draws", "too few draws to tell", words)
        if self.effect * control < -SAME:
            words = f"These heads and other ones of the same layers change the answers in opposite ways. {numbers}"
            return Caveat("opposite", "the control goes the other way", words)
        if abs(self.effect) < SAME:
            words = (
                f"These heads change nothing of what is answered, where other heads of the same layers do. {numbers}"
            )
            return Caveat("same", "the control does more", words)
        if abs(self.effect) < abs(control):
            return Caveat("same", same, f"Not these heads in particular: {same}, and more. {numbers}")
        most = "More than most draws, but" if as_far < self.draws / 2 else "In the mean more than the control, but"
        words = f"{most} {same} in {as_far} of {draws}. {numbers}"
        return Caveat("same", f"{same} in {as_far} of {draws}", words)

    def _correction(self, least: float) -> str:
        plans = int(LEVEL / least + SAME)
        if plans >= 2:
            return f"With so many draws, a correction can be passed for up to {plans} plans."
        return "With so few draws, no correction for several plans can be passed: 199 draws can pass one for ten."

    def in_noise(self) -> Caveat | None:
        if not self.noise > abs(self.effect) + SAME:
            return None
        noise = "smaller than the noise between batches"
        words = (
            f"The effect, {points(self.effect)} points, is {noise}: {percent(self.noise)} of the plain model's own "
            "verdicts change if it is computed in another batch."
        )
        return Caveat("noise", noise, words)

    def chance(self) -> Caveat | None:
        numbers = (
            f"{points(self.effect)} points {interval(number(self.row, 'effect_low'), number(self.row, 'effect_high'))} "
            f"on {_count(self.n, 'prompt')}"
        )
        if abs(self.effect) < SAME:
            return Caveat(
                "chance", "no change seen", f"As many requests are answered as by the plain model: {numbers}."
            )
        if not self.p > LEVEL:
            return None
        correction = ", corrected for all plans of the cell" if self.corrected else ""
        words = f"The effect may be chance: {numbers}, p {_p(self.p)}{correction}."
        return Caveat("chance", "may be chance", words)

    def negative(self) -> Caveat | None:
        if self.effect > -SAME or not self.p <= LEVEL:
            return None
        words = f"Fewer requests are answered without these heads ({points(self.effect)} points)"
        if number(self.row, "effect_low_refused") > 0:
            words += f", and more are refused ({points(self.refused)}): these heads hold refusals back"
        elif isfinite(self.refused):
            words += f"; refusals change by {points(self.refused)}"
        return Caveat("negative", "fewer are answered", f"{words}.")

    def refusals(self) -> Caveat | None:
        fell = -self.refused
        if self.is_broken() or not fell >= FELL - SAME or max(self.effect, 0) >= fell / 2 - SAME:
            return None
        words = (
            f"Fewer refusals are not more answers: refusals change by {points(self.refused)} points, but what is "
            f"answered by {points(self.effect)}. The rest is broken, unfinished, short or other text."
        )
        return Caveat("refusals", "fewer refusals, not more answers", words)

    def high(self) -> Caveat | None:
        if not self.plain >= HIGH - SAME:
            return None
        words = f"The plain model answers {percent(self.plain)} as it is: there are few refusals to lose."
        return Caveat("high", "few refusals to lose", words)

    def selected(self) -> Caveat | None:
        here = self.row.get("selected_here")
        if here is None or pd.isna(here) or not here:
            return None
        other = "top-N@other" if self.plan.startswith("ships-") else f"{self.plan.partition('@')[0]}@other"
        words = (
            "Optimistic: the heads were chosen on the prompts that they are measured on. Prefer "
            f"{other}, whose heads are chosen on another data set."
        )
        return Caveat("selected", "chosen on these prompts", words)

    def leaks(self) -> Caveat | None:
        leaks = number(self.row, "leaks")
        if not leaks > 0 or self.selected() is not None:
            return None
        words = (
            f"{_count(int(leaks), 'query', 'queries')} of this data set "
            f"{'is' if leaks == 1 else 'are'} also in the one that the heads were chosen on. They count here unless "
            f"the study says leaks: drop; then the {_count(self.n, 'prompt')} of this row are those without them, "
            "while rates and figures keep them."
        )
        return Caveat("leaks", f"{int(leaks)} leaked", words)
