"""What attack templates change of each head: a map, a sentence and a table for each comparison."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from safetyheads.heads import Head
from safetyheads.report import figures
from safetyheads.report.cards import Card
from safetyheads.report.caveats import BROKEN
from safetyheads.report.data import groups
from safetyheads.report.figures.drawing import percent
from safetyheads.report.tables import LEADING, Table
from safetyheads.statistics.attacks import LEAST, changed


def attack_cards(
    attacks: pd.DataFrame,
    rates: pd.DataFrame,
    record_of: Callable[[str, str], Mapping[str, Any]],
    grid: Callable[[pd.DataFrame], tuple[int, int]],
    planted: Sequence[str],
    named: Callable[[str, str, str, str], Mapping[str, str]],
) -> list[Card]:
    """A card for each attack template beside its clean one, and each ablation: `attacks` has those of one data set.

    `rates` are of the same model and data set, and `record_of` gives the record of the Ships scores by template and
    ablation.
    """
    made = []
    for (clean, attack, ablation), rows in groups(attacks, ("clean", "attack", "ablation")).items():
        table = largest_changes(rows)
        first = rows.loc[rows["score_change"].abs().idxmax()]
        summary = (
            f"From {clean} to {attack}, on {int(first['n'])} queries: {Head(int(first['layer']), int(first['head']))} "
            f"changes most, from {first['score_clean']:.3g} to {first['score_attack']:.3g} nats{_attention(first)}. "
            f"{changed(rows).sum()} of {len(rows)} heads change by {LEAST} nats or more with an interval that excludes "
            "no change; of heads that do not change, one in twenty would have such an interval."
        )
        refusals = [record_of(name, ablation).get("refusal") for name in (clean, attack)]
        summary += plain_words(refusals, of_plain(rates, clean, attack))
        svg = figures.change_map(rows, grid(rows), planted, **named("Attack", f"{clean}, {attack}", ablation, summary))
        made.append(Card("attack", f"{attack} beside {clean}, {ablation}", Markup(svg), summary, table))
    return made


def of_plain(rates: pd.DataFrame, clean: str, attack: str) -> list[pd.Series]:
    """The rates of the plain model under both templates, by the same judge and decoding; empty if one is missing."""
    if rates.empty:
        return []
    plain = rates[rates["plan"] == "none"].drop_duplicates(["template", "decoding", "judge"])
    both = [plain[plain["template"] == name].set_index(["decoding", "judge"]) for name in (clean, attack)]
    common = both[0].index.intersection(both[1].index)
    return [table.loc[common[0]] for table in both] if len(common) else []


def plain_words(refusals: Sequence[Mapping[str, Any] | None], plain: Sequence[pd.Series]) -> str:
    """What the plain model does under the clean template and under the attack, and whether that is an attack at all."""
    known = [refusal["p_harmful"] for refusal in refusals if refusal and refusal.get("p_harmful") is not None]
    said = []
    if len(known) == 2:
        said.append("begins with a refusal with probability {:.2g} and {:.2g}".format(*known))
    if plain:
        said += [
            f"{verb} {percent(plain[0][column])} and {percent(plain[1][column])}"
            for verb, column in (("answers", "coherent_asr"), ("breaks its text in", "degenerate"))
            if pd.notna(plain[0][column]) and pd.notna(plain[1][column])
        ]
    if not said:
        return ""
    words = f" Without and with the attack the plain model {', '.join(said)}."
    if plain and plain[1]["degenerate"] >= plain[0]["degenerate"] + BROKEN:
        words += " This attack breaks text: changes need not be about refusals."
    elif plain and plain[1]["coherent_asr"] < plain[0]["coherent_asr"] + BROKEN:
        words += " So it hardly frees an answer here. Ships also grow where a model is less sure of its next token."
    return words


def _attention(row: pd.Series) -> str:
    clean, attack = row["to_query_clean"], row["to_query_attack"]
    return (
        f"; its attention to the query goes from {percent(clean)} to {percent(attack)}"
        if pd.notna(clean + attack)
        else ""
    )


def largest_changes(rows: pd.DataFrame) -> Table:
    """The heads whose mean Ships score changes most, and what else changes from the clean template to the attack."""
    order = rows.assign(size=-rows["score_change"].abs()).sort_values(["size", "layer", "head"]).head(LEADING)
    made = [
        [
            str(Head(int(row["layer"]), int(row["head"]))),
            f"{row['score_clean']:.3g} → {row['score_attack']:.3g}",
            _change(row),
            f"{_signed(row['refusal_shift_clean'])} → {_signed(row['refusal_shift_attack'])}",
            " → ".join(
                "–" if pd.isna(row[key]) else percent(row[key]) for key in ("to_query_clean", "to_query_attack")
            ),
        ]
        for row in order.to_dict("records")
    ]
    columns = ["head", "mean Ships (nats)", "change (95 %)", "refusal shift", "attention to the query"]
    return Table(f"The {len(made)} largest changes of {len(rows)} heads", columns, made, frozenset(range(1, 5)))


def _change(row: Mapping[str, Any]) -> str:
    low, high = row["score_change_low"], row["score_change_high"]
    return f"{row['score_change']:+.3g}" + ("" if pd.isna(low) else f" ({low:+.3g} to {high:+.3g})")


def _signed(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:+.2f}"
