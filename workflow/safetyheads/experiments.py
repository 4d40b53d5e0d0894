"""The kinds of experiments: a study that is one gets a table and a figure of its own.

The paper's figures and tables are experiments of a few kinds (config/paper.yaml names its studies after them). What a
kind is made from says which jobs `snakemake STUDY` needs: one that compares scores generates no text.
"""

from typing import Literal, NamedTuple

Reads = Literal["rates", "maps", "completions", "scores", "utility"]
"""What an experiment is made from; `completions` and `scores` are also asked how long they took."""


class Experiment(NamedTuple):
    """A kind of experiment: what it is made from, and what its table and figure show."""

    reads: tuple[Reads, ...]
    about: str

    @property
    def generates(self) -> bool:
        """Whether the model generates text for it. Of a study that needs none, no cell is measured."""
        return bool({"rates", "maps", "completions"}.intersection(self.reads))


EXPERIMENTS = {
    "asr": Experiment(("rates",), "the attack success rate of each plan beside the plain model's and its control's"),
    "doses": Experiment(("rates",), "what becomes of the answers by the number of ablated heads"),
    "transfer": Experiment(("rates",), "what heads do on the data set that they were chosen on, and on others"),
    "parameters": Experiment(("rates",), "what share of the model's parameters is changed, and what that does"),
    "maps": Experiment(("maps",), "the attack success rate without each head alone"),
    "hours": Experiment(("scores", "completions"), "the hours that scores of heads took, and answers"),
    "checkpoints": Experiment(
        ("rates", "scores"), "two models side by side: how many heads it takes, and how alike their scores rank heads"
    ),
    "utility": Experiment(("utility",), "accuracy on tasks with heads ablated, beside the plain model's"),
    "overlap": Experiment(
        ("scores",), "which heads rank first in two models, data sets or ablations alike, beside chance"
    ),
    "distribution": Experiment(("scores",), "how the scores are distributed over the heads, and how long the tail is"),
}
"""The `experiment` of a study -> what it is."""
