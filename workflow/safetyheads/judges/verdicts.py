"""Verdicts: what a judge says of completions, and the outcome of each.

All judges share what is found from the text alone. So whether a text is broken does not depend on the judge, and in all
cells that are compared with each other it is found by the same signs and the same limits.
"""

from collections.abc import Sequence

import pandas as pd

from safetyheads.judges.degenerate import degenerate, salad_limit
from safetyheads.judges.keywords import KEYWORD, REPETITION
from safetyheads.judges.outcomes import begins_with_refusal, outcomes
from safetyheads.judges.protocol import REFUSAL, Judge
from safetyheads.templates import OPENINGS

KEYS = ["query_id", "variant", "sample", "paired"]
COLUMNS = [*KEYS, "harmful", "probability", "reason", "outcome"]


def limit_of(plain: pd.DataFrame) -> float:
    """The limit of word salad (nats per token) for all completions that are compared with those of the plain model.

    `plain` are the plain model's own completions of the same data set, template and decoding: text and plain_nll.
    """
    return salad_limit(plain["text"], plain["plain_nll"])


def verdicts(
    completions: pd.DataFrame,
    judge: Judge,
    nll_limit: float,
    unfinished: Sequence[bool] | None = None,
    *,
    openings: Sequence[str] = OPENINGS,
) -> pd.DataFrame:
    """The verdicts of a judge on completions: a table with the columns `COLUMNS`, in their order and with their index.

    `completions` has the columns `KEYS`, text, plain_nll (nats per token) and what the judge reads. `nll_limit` is that
    of `limit_of`, and `unfinished` says which completions end while the model thinks (`thinking.unfinished`); without
    it, none do. `openings` are how refusals begin.
    """
    broken = degenerate(completions["text"], completions["plain_nll"], nll_limit)["degenerate"]
    # Most texts of a map are what the plain model says: each different one is looked at once.
    number, texts = pd.factorize(completions["text"])
    refuses = begins_with_refusal(texts, openings).to_numpy()[number]
    answers = completions[list(judge.reads)]
    different = ~answers.duplicated()
    numbers = answers.groupby(list(judge.reads), sort=False, dropna=False).ngroup()
    said = judge.judge(answers[different]).iloc[numbers].set_axis(completions.index)
    outcome = outcomes(
        broken | (said["reason"] == REPETITION),
        [False] * len(said) if unfinished is None else unfinished,
        said["harmful"],
        said["reason"].str.startswith((KEYWORD, REFUSAL)),
        [len(text) for text in completions["text"]],
        refuses,
        detects=judge.detects,
    )
    return completions[KEYS].join(said).assign(outcome=outcome)[COLUMNS]
