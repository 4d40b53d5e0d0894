"""The sections of the page: for each model and data set, its figures with a sentence on each, and its tables."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import pandas as pd
from markupsafe import Markup

from safetyheads.heads import Head, parse_head
from safetyheads.plans import PLAIN, parse_plan
from safetyheads.report import figures, tables
from safetyheads.report.attacks import attack_cards
from safetyheads.report.cards import Card, DatasetSection, ModelSection, SettingSection
from safetyheads.report.concentration import concentration_table, concentration_words
from safetyheads.report.data import ReportData, cells, groups
from safetyheads.report.effects import control_summary, control_words, effects_section
from safetyheads.report.figures.drawing import percent
from safetyheads.report.maps import first_token_words, map_words
from safetyheads.report.scores import of_method
from safetyheads.report.side_by_side import ROWS, agreed, agreement_words, methods_table, named_first
from safetyheads.report.tables import Table
from safetyheads.statistics.doses import doses

LEAST_SHIFT = 0.05
"""The mean shift, in nats, below which a sentence does not speak of a head's direction."""


def model_sections(data: ReportData) -> list[ModelSection]:
    """The sections of all models that were scored or measured, in the studies' order."""
    prefixes = (f"figure-{number}" for number in count(1))
    made = []
    for m, model in enumerate(data.measured("models"), start=1):
        sections = []
        for d, dataset in enumerate(data.measured("datasets"), start=1):
            ships, sahara, rates = (
                cells(table, model=model, dataset=dataset) for table in (data.ships, data.sahara, data.rates)
            )
            others = {name: cells(table, model=model, dataset=dataset) for name, table in data.scores.items()}
            if any(map(len, (ships, sahara, rates, *others.values()))):
                cards = _Cards(data, model, dataset, prefixes)
                anchor = f"model-{m}-data-{d}"
                found = (
                    cards.ships(ships),
                    cards.scores("sahara", {"sahara": sahara}),
                    [*cards.side_by_side(others), *cards.scores("scores", others)],
                    cards.attacks(cells(data.attacks, model=model, dataset=dataset)),
                    cards.settings(rates, anchor),
                )
                sections.append(DatasetSection(anchor, dataset, *found))
        made.append(ModelSection(f"model-{m}", model, _noise(data, model, prefixes), sections))
    return made


def _noise(data: ReportData, model: str, prefixes: Iterator[str]) -> list[Card]:
    """A card on the noise between batches; none where no plan was measured with plain rows in its batches."""
    noise = cells(data.noise, model=model)
    if noise.empty:
        return []
    texts, verdicts = float(noise["texts"].max()), float(noise["verdicts"].max())
    words = (
        "none differ" if max(texts, verdicts) == 0 else f"{percent(texts)} of texts, {percent(verdicts)} of verdicts"
    )
    summary = (
        f"The plain model, computed in other batches: {words} "
        f"({int(noise['n'].max()):,} prompts and samples that were answered in several)."
    )
    svg = figures.noise_bars(noise, label=f"Noise between batches: {model}. {summary}", prefix=next(prefixes))
    return [Card("noise", "Noise between batches", Markup(svg), summary)]


@dataclass(frozen=True)
class _Cards:
    """Makes the cards of one model and data set. Each figure takes the next of `prefixes` for its ids."""

    data: ReportData
    model: str
    dataset: str
    prefixes: Iterator[str]

    def ships(self, ships: pd.DataFrame) -> list[Card]:
        """A map of mean Ships scores for each template and ablation."""
        made = []
        for template, ablation, rows in self._scored(ships):
            table = tables.leading_heads(rows)
            first = table.rows[0]
            summary = (
                f"Highest mean over {rows['query_id'].nunique():,} prompts: {first[0]} with {first[1]} nats, the best "
                f"head of {first[-1]} of them. The first {len(table.rows)} heads hold {table.rows[-1][-2]} of the sum."
            )
            summary += first_token_words(self._of_ships(template, ablation))
            svg = figures.ships_map(
                rows, self._grid(rows), self._planted, **self._named("Ships", template, ablation, summary)
            )
            made.append(Card("ships", f"{template}, {ablation}", Markup(svg), summary, table))
            if "refusal_shift" in rows and rows["refusal_shift"].notna().any():
                made.append(self._shifts(rows, f"{template}, {ablation}", table))
        return made

    def _shifts(self, ships: pd.DataFrame, title: str, leading: Table) -> Card:
        """A map of the mean refusal shifts, and how many of the leading heads support refusal."""
        means = ships.groupby(["layer", "head"])["refusal_shift"].mean()
        lowest = Head(*map(int, means.idxmin()))
        led = [tuple(parse_head(row[0])) for row in leading.rows]
        support, hold = (sum(sign * means[at] >= LEAST_SHIFT for at in led) for sign in (-1, 1))
        summary = (
            f"Supports refusal most: {lowest} ({means.min():+.2f} nats). Of the {len(led)} heads of highest Ships, "
            f"{support} support it and {hold} hold it back by {LEAST_SHIFT} nats or more."
        )
        svg = figures.shift_map(
            ships, self._grid(ships), self._planted, **self._named("Refusal shift", title, "", summary)
        )
        return Card("shift", f"Refusal shift, {title}", Markup(svg), summary)

    def scores(self, kind: Literal["sahara", "scores"], tables_of: Mapping[str, pd.DataFrame]) -> list[Card]:
        """A figure of each method's scores, for each template and ablation."""
        made = []
        for name, table in tables_of.items():
            for template, ablation, rows in self._scored(table):
                cell = f"{self.model}/{self.dataset}/{template}/{ablation}.parquet"
                words = of_method(name, rows, self.data.record_of(f"scores/{name}/{cell}"))
                named = self._named(words.name, template, ablation, words.summary)
                svg = words.draw(rows, self._grid(rows), self._planted, named)
                title = ", ".join([*[name] * (kind == "scores"), template, ablation])
                made.append(Card(kind, title, Markup(svg), words.summary, words.table))
        return made

    def side_by_side(self, tables_of: Mapping[str, pd.DataFrame]) -> list[Card]:
        """For each template and ablation with scores of these methods, which heads all methods name first.

        None where there is one method alone, or no method names a head.
        """
        made = []
        for template in self.data.measured("templates"):
            for ablation in self.data.measured("ablations"):
                cell = {"template": template, "ablation": ablation}
                if not any(len(cells(table, **cell)) for table in tables_of.values()):
                    continue
                named = named_first(self.data, {"model": self.model, "dataset": self.dataset, **cell})
                heads, table = agreed(named)[:ROWS], methods_table(named, self._planted)
                if len(named) < 2 or not heads:
                    continue
                summary = agreement_words(named)
                svg = figures.named_heads(
                    named, heads, self._planted, **self._named("Methods", template, ablation, summary)
                )
                made.append(
                    Card("methods", f"Methods side by side, {template}, {ablation}", Markup(svg), summary, table)
                )
        return made

    def attacks(self, attacks: pd.DataFrame) -> list[Card]:
        rates = cells(self.data.rates, model=self.model, dataset=self.dataset)
        return attack_cards(attacks, rates, self._of_ships, self._grid, self._planted, self._named)

    def _of_ships(self, template: str, ablation: str) -> Mapping[str, Any]:
        """The record of the Ships scores, empty if the rates do not go back to them."""
        return self.data.record_of(f"ships/{self.model}/{self.dataset}/{template}/{ablation}.parquet")

    def settings(self, rates: pd.DataFrame, anchor: str) -> list[SettingSection]:
        """A section for each template, decoding and judge with rates, in the studies' order."""
        made = []
        found = groups(rates, ("template", "decoding", "judge"))
        order = [self.data.measured(key) for key in ("templates", "decodings", "judges")]
        keys = sorted(found, key=lambda key: [names.index(name) for names, name in zip(order, key)])
        for number, key in enumerate(keys, start=1):
            rows = self._in_order(found[key])
            title, here = ", ".join(key), f"{anchor}-rates-{number}"
            effects = effects_section(self.data, rows, here)
            cards = [*self._outcomes(rows, title), self._by_plan(rows, title)]
            cards += [*self._by_n(rows, title), *self._doses(rows, title), *self._maps(rows, title)]
            made.append(SettingSection(here, title, effects, cards, tables.rates_table(rows)))
        return made

    def _outcomes(self, rates: pd.DataFrame, setting: str) -> list[Card]:
        """For each ablation of attributed plans, a card on their outcomes, and one on the draws of their controls."""
        made: list[Card] = []
        for ablation in self._ablations(rates) if figures.has_outcomes(rates) else []:
            rows = rates[rates["ablation"].isin([ablation, PLAIN])]
            plans = figures.attributed(rows)
            if not plans:
                continue
            broken = {plan: float(cells(rows, plan=plan)["degenerate"].iloc[0]) for plan in plans}
            worst = max(plans, key=lambda plan: broken[plan])
            summary = f"Most broken answers: {percent(broken[worst])} ({worst})."
            svg = figures.outcome_bars(rows, **self._named("Outcomes", setting, ablation, summary))
            made.append(Card("outcomes", f"What became of the answers, {ablation}", Markup(svg), summary))
            if not any(f"matched-{plan}" in set(rows["plan"]) for plan in plans):
                continue
            keys = {key: str(rows[key].iloc[0]) for key in ("model", "dataset", "template", "decoding", "judge")}
            of_plan = {plan: cells(self.data.effects, plan=plan, ablation=ablation, **keys) for plan in plans}
            effects = {plan: found.iloc[0].to_dict() for plan, found in of_plan.items() if len(found)}
            words = {plan: control_words(row) for plan, row in effects.items()}
            summary = control_summary(effects)
            svg = figures.control_strip(rows, words, **self._named("Controls", setting, ablation, summary))
            made.append(Card("strip", f"These heads among others of the same layers, {ablation}", Markup(svg), summary))
        return made

    def _by_plan(self, rates: pd.DataFrame, setting: str) -> Card:
        ablated = rates[rates["plan"] != "none"]
        plain = rates[rates["plan"] == "none"]
        words = [f"Plain model: {percent(plain['asr'].iloc[0])}"] if len(plain) else []
        if len(ablated):
            top = ablated.loc[ablated["asr"].idxmax()]
            variant = f" {top['variant']}" if top["variant"] != top["plan"] else ""
            words.append(f"highest: {top['plan']}{variant} under {top['ablation']}, {percent(top['asr'])}")
        summary = "; ".join(words) + f" (n = {int(rates['n'].max()):,} prompts)."
        svg = figures.asr_by_plan(rates, **self._named("ASR by plan", setting, "", summary))
        return Card("by_plan", "ASR by plan", Markup(svg), summary)

    def _by_n(self, rates: pd.DataFrame, setting: str) -> list[Card]:
        """One card per ablation under which more than one number of heads was ablated."""
        made = []
        sizes = {name: len(heads) for name, heads in self.data.head_sets.items()}
        for ablation in self._ablations(rates):
            rows = rates[rates["ablation"].isin([ablation, PLAIN])]
            numbers = sorted({int(n) for line in figures.lines(rows, sizes) for n in line.points["n_heads"]})
            if len(numbers) < 2:
                continue
            summary = f"Numbers of heads measured: {', '.join(map(str, numbers))}."
            svg = figures.asr_by_n(rows, sizes, **self._named("ASR by number of heads", setting, ablation, summary))
            made.append(Card("by_n", f"ASR by number of ablated heads, {ablation}", Markup(svg), summary))
        return made

    def _doses(self, rates: pd.DataFrame, setting: str) -> list[Card]:
        """A card on the dose curves, concentration and stability for each ablation with heads that were chosen.

        There is none on benign data sets, whose requests should be answered.
        """
        made: list[Card] = []
        keys = {key: str(rates[key].iloc[0]) for key in ("model", "dataset", "template", "decoding", "judge")}
        found = cells(self.data.concentration, **keys)
        for ablation in self._ablations(found) if self.dataset not in self.data.benign else []:
            rows = cells(found, ablation=ablation)
            summary = concentration_words(self.data, rows)
            curves = doses(rates[rates["ablation"].isin([ablation, PLAIN])])
            svg = figures.dose_curves(curves, **self._named("Dose curves", setting, ablation, summary))
            table = concentration_table(self.data, rows)
            made.append(Card("doses", f"How many heads it takes, {ablation}", Markup(svg), summary, table))
        return made

    def _maps(self, rates: pd.DataFrame, setting: str) -> list[Card]:
        """A card on each map of single heads."""
        made = []
        keys = {key: str(rates[key].iloc[0]) for key in ("model", "dataset", "template", "decoding", "judge")}
        found, by_head = cells(self.data.maps, **keys), cells(self.data.maps_by_head, **keys)
        for row in found[found["plan"].isin(rates["plan"])].to_dict("records") if len(found) else ():
            plan, ablation = str(row["plan"]), str(row["ablation"])
            heads = cells(by_head, plan=plan, ablation=ablation)
            summary = map_words(row, heads)
            svg = figures.single_map(
                heads,
                self._grid(heads),
                self._planted,
                **self._named("Coherent ASR by ablated head", setting, ablation, summary),
            )
            whose = "Each head" if plan == "single" else f"Each head of {parse_plan(plan).group.name}"
            made.append(Card("single", f"{whose} alone, {ablation}", Markup(svg), summary))
        return made

    @property
    def _planted(self) -> tuple[str, ...]:
        return self.data.planted(self.model)

    def _grid(self, rows: pd.DataFrame) -> tuple[int, int]:
        """The model's (layers, heads per layer), or as far as the rows reach if its description does not say."""
        model = self.data.models.get(self.model, {})
        if {"layers", "heads"} <= set(model):
            return int(model["layers"]), int(model["heads"])
        if "layer" in rows:
            return int(rows["layer"].max()) + 1, int(rows["head"].max()) + 1
        heads = [parse_head(str(name)) for name in rows["variant"]]
        return max(head.layer for head in heads) + 1, max(head.head for head in heads) + 1

    def _named(self, what: str, where: str, ablation: str, summary: str) -> dict[str, str]:
        place = ", ".join(part for part in (self.model, self.dataset, where, ablation) if part)
        return {"label": f"{what}: {place}. {summary}", "prefix": next(self.prefixes)}

    def _scored(self, table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
        """The scores as (template, ablation, rows), in the studies' order."""
        found = groups(table, ("template", "ablation"))
        for template in self.data.measured("templates"):
            for ablation in self.data.measured("ablations"):
                if (template, ablation) in found:
                    yield template, ablation, found[template, ablation]

    def _ablations(self, rates: pd.DataFrame) -> list[str]:
        return [str(name) for name in dict.fromkeys(rates["ablation"]) if name != PLAIN] if len(rates) else []

    def _in_order(self, rates: pd.DataFrame) -> pd.DataFrame:
        """The rates sorted as the studies list plans and ablations, with those of the plain model first."""
        plans, ablations = self.data.measured("plans"), self.data.measured("ablations")
        place = [
            (plan != "none", plans.index(plan), ablations.index(ablation))
            for plan, ablation in zip(rates["plan"].astype(str), rates["ablation"].astype(str))
        ]
        return rates.iloc[sorted(range(len(rates)), key=place.__getitem__)]
