"""The methods of attribution beside each other: which heads each of them names first, and which they agree on."""

from collections import Counter
from collections.abc import Mapping, Sequence

from safetyheads.chosen_heads import named, searched
from safetyheads.heads import Head, HeadSet
from safetyheads.methods import METHODS
from safetyheads.plans import parse_plan
from safetyheads.report.data import ReportData, cells
from safetyheads.report.tables import Table

NAMED = 5
"""The most heads of a method that are shown."""
ROWS = 24
"""The most heads of the figure."""


def named_first(data: ReportData, keys: Mapping[str, str]) -> dict[str, HeadSet]:
    """For each method that has scores in the cell of `keys`, the first heads that it names, the first one first.

    A method that scores a head 0 or less does not name it, and one that searches names as many as it made steps. `keys`
    are model, dataset, template and ablation. Methods that choose for each prompt are left out.
    """
    found = {}
    for name, method in METHODS.items():
        plan = parse_plan(f"{name}-1")
        scores, less = cells(data.scores_of(plan), **keys), data.subtracted(keys) if method.contrasted else None
        if method.per_prompt or scores.empty or (method.contrasted and less is None):
            continue
        order = searched(scores) if method.searches else named(plan, scores, less)
        found[name] = tuple(order[:NAMED])
    return found


def agreed(named: Mapping[str, Sequence[Head]]) -> list[Head]:
    """All heads that are named, those that most methods name first; of equally many the one that is named earlier."""
    count = Counter(head for heads in named.values() for head in heads)
    places = {head: [heads.index(head) for heads in named.values() if head in heads] for head in count}
    return sorted(count, key=lambda head: (-count[head], sum(places[head]) / len(places[head]), head))


def agreement_words(named: Mapping[str, Sequence[Head]]) -> str:
    """Which heads all or most methods name, in a sentence."""
    count = Counter(head for heads in named.values() for head in heads)
    most = [head for head in agreed(named) if count[head] > len(named) / 2]
    if not most:
        return f"No head is among the first {NAMED} of more than half of the {len(named)} methods: they disagree."
    said = ", ".join(f"{head} ({count[head]})" for head in most[:NAMED])
    more = f" and {len(most) - NAMED} more" if len(most) > NAMED else ""
    return f"Among the first {NAMED} of more than half of the {len(named)} methods: {said}{more}."


def methods_table(named: Mapping[str, Sequence[Head]], planted: Sequence[str]) -> Table:
    """A row for each method with its heads; of a demo model how many planted ones are among as many of the first."""
    rows = []
    for name, heads in named.items():
        row = [name, ", ".join(map(str, heads)) or "none", METHODS[name].unit]
        if planted:
            first = {str(head) for head in heads[: len(planted)]}
            row.append(f"{len(first.intersection(planted))} of {len(planted)}")
        rows.append(row)
    columns = ["method", "heads that it names, the first one first", "unit of its scores"]
    if planted:
        columns.append("planted heads among as many")
    return Table("Methods side by side", columns, rows, frozenset())
