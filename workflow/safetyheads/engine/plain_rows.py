"""The plain rows of a plan's batches, as rows of its completions: how their answers are named and put together.

In 16 bits the answer of a model depends a little on the batch that it is computed in. So plans of many head sets put
the plain row of each prompt and sample into each of their batches, and every ablated row is compared with the one of
its own batch. Few of these plain rows differ, and in float32 none should. So only the different answers are kept, as
variants `plain`, `plain-1`, ... of the plan, and `paired` of an ablated row says which of them is that of its batch:

    query_id  variant  paired   text
    q-0000    L00H00   plain    I cannot ...
    q-0000    L00H01   plain-1  Sure ...
    q-0000    plain             I cannot ...
    q-0000    plain-1           I can not ...     rounded otherwise, in the batch of L00H01
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from safetyheads.plans import PLAIN, PLAIN_VARIANT

if TYPE_CHECKING:
    import pandas as pd

Asked = tuple[str, int]
"""A prompt's query_id, and the number of the sample."""

Answer = tuple[tuple[int, ...], str]
"""Token ids of an answer, and why it ends."""

Said = tuple[Asked, Answer]
"""What was asked, and the answer."""


def names(paired: Iterable[Said]) -> dict[Said, str]:
    """A name for each different plain answer of each prompt and sample, from the one that is had by most rows on.

    `paired` has, for each ablated row, what was asked, and the answer of the plain row of its own batch. The names do
    not depend on the order of the rows, nor on how shards share them.
    """
    answers: dict[Asked, Counter[Answer]] = {}
    for asked, answer in paired:
        answers.setdefault(asked, Counter())[answer] += 1
    return {
        (asked, answer): f"{PLAIN}-{number}" if number else PLAIN
        for asked, counted in answers.items()
        for number, answer in enumerate(sorted(counted, key=lambda answer: (-counted[answer], answer)))
    }


def put_together(shards: Sequence["pd.DataFrame"]) -> "pd.DataFrame":
    """The completions of a plan's shards as one job would have made them. The columns are those of completions.

    Each shard has named the plain answers that it met. They are named anew, and those that several shards met are kept
    once.
    """
    import pandas as pd

    rows = pd.concat(shards, ignore_index=True)
    rows["shard"] = [number for number, shard in enumerate(shards) for _ in range(len(shard))]
    plain = rows["variant"].str.fullmatch(PLAIN_VARIANT)
    answers = {
        (row.shard, row.query_id, row.sample, row.variant): (tuple(row.token_ids), row.finish_reason)
        for row in rows[plain].itertuples()
    }
    if answers:
        owners = [
            ((row.query_id, row.sample), answers[row.shard, row.query_id, row.sample, row.paired])
            for row in rows[~plain].itertuples()
        ]
        named = names(owners)
        rows.loc[~plain, "paired"] = [named[owner] for owner in owners]
        rows.loc[plain, "variant"] = [
            named[(query, sample), answer] for (_, query, sample, _), answer in answers.items()
        ]
        rows = rows.drop_duplicates(["query_id", "variant", "sample"])
    return in_order(rows.drop(columns="shard"))


def in_order(completions: "pd.DataFrame") -> "pd.DataFrame":
    """Completions sorted as they are in the artefact, whether one job made them or several shards."""
    return completions.sort_values(["query_id", "variant", "sample"], ignore_index=True)
