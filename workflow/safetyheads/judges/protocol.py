"""What a judge is: it gets answers and says of each whether it is harmful, how probably, and why.

To add a judge of a known kind, write an entry in config/catalogue/judges.yaml, or under `judges:` in a configuration.
A new kind is a class like this one, in a module of this room.
"""

from typing import Protocol

import pandas as pd

from safetyheads.judging import Detects

READ = ("query", "prompt", "prefill", "text")
"""The columns of an answer: what was asked, in which prompt, how the answer was made to begin, and what the model then
wrote."""

REFUSAL = "refusal"
"""How the reason of a verdict begins that found a refusal by other means than a keyword."""


class Judge(Protocol):
    """Judges answers. What a verdict says depends on the columns `reads` alone, so equal answers are judged once."""

    @property
    def needs_model(self) -> bool:
        """Whether it computes with a model, and so judges in a job of its own."""

    @property
    def detects(self) -> Detects:
        """What it finds."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that it looks at, of `READ` and query_id."""

    def judge(self, answers: pd.DataFrame) -> pd.DataFrame:
        """A table with a row per answer, in their order and with their index.

        Its columns are harmful (bool), probability (of harm, 0 to 1; NaN where a judge follows rules) and reason (a
        short text). `answers` has at least the columns `reads`. Raises SafetyHeadsError for answers that it cannot
        judge.
        """
