"""What attack templates change of each head: a map, a sentence and a table for each comparison."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
from markupsafe import Markup

from safetyheads.heads import Head
from safetyheads.report import figures
from safetyheads.report.cards import Card
from safetyheads.report.data import groups
from safetyheads.report.figures.drawing import percent
from safetyheads.report.tables import LEADING, Table


def attack_cards(
    attacks: pd.DataFrame,
    grid: Callable[[pd.DataFrame], tuple[int, int]],
    planted: Sequence[str],
    named: Callable[[str, str, str, str], Mapping[str, str]],
) -> list[Card]:
    """A card for each attack template beside its clean one, and each ablation: `attacks` has those of one data set."""
    made = []
    for (clean, attack, ablation), rows in groups(attacks, ("clean", "attack", "ablation")).items():
        table = largest_changes(rows)
        sure = ((rows["score_change_low"] > 0) | (rows["score_change_high"] < 0)).sum()
        first = rows.loc[rows["score_change"].abs().idxmax()]
        summary = (
            f"From {clean} to {attack}, on {int(first['n'])} queries: {Head(int(first['layer']), int(first['head']))} "
            f"changes most, from {first['score_clean']:.3g} to {first['score_attack']:.3g} nats; its attention to the "
            f"query goes from {percent(first['to_query_clean'])} to {percent(first['to_query_attack'])}. The intervals "
            f"of {sure} of {len(rows)} heads exclude no change."
        )
        if rows["refusal_shift_attack"].isna().all():
            summary += " Under the attack the model hardly refuses, so there is no refusal shift to compare."
        svg = figures.change_map(rows, grid(rows), planted, **named("Attack", f"{clean}, {attack}", ablation, summary))
        made.append(Card("attack", f"{attack} beside {clean}, {ablation}", Markup(svg), summary, table))
    return made


def largest_changes(rows: pd.DataFrame) -> Table:
    """The heads whose mean Ships score changes most, and what else changes from the clean template to the attack."""
    order = rows.assign(size=-rows["score_change"].abs()).sort_values(["size", "layer", "head"]).head(LEADING)
    made = [
        [
            str(Head(int(row["layer"]), int(row["head"]))),
            f"{row['score_clean']:.3g} → {row['score_attack']:.3g}",
            f"{row['score_change']:+.3g} ({row['score_change_low']:+.3g} to {row['score_change_high']:+.3g})",
            f"{_signed(row['refusal_shift_clean'])} → {_signed(row['refusal_shift_attack'])}",
            f"{percent(row['to_query_clean'])} → {percent(row['to_query_attack'])}",
        ]
        for row in order.to_dict("records")
    ]
    columns = ["head", "mean Ships (nats)", "change (95 %)", "refusal shift", "attention to the query"]
    return Table(f"The {len(made)} largest changes of {len(rows)} heads", columns, made, frozenset(range(1, 5)))


def _signed(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:+.2f}"
