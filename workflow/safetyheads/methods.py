"""The methods that choose heads by scores: what each one's scores are, what it needs, and what it costs.

Plans, rules, configuration, cost table and report read this table. A new method is a module in `attribution/`, a script
that calls it, and a line here. The lines of the methods that a job goes by are among the params of its rule, so that
another line, or a new one, runs no others again.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

Settings = Mapping[str, Any]
"""`attribution:` of the configuration, with one part for each method that has settings of its own."""

OWN_STAGES = ("ships", "sahara")
"""The scores that are stages of their own. Those of all others lie in folders of the stage `scores`."""

SAHARA = ("steps", "rank", "representation")
"""The settings of both kinds of Sahara."""
MASK_STEPS, MASK_ROWS = 200, 32
"""The most steps of a start of `mask`, and the prompts of each: what the estimate of its time goes by."""


def _none(_: Settings) -> int:
    return 0


class Method(NamedTuple):
    """A way to choose n heads by scores.

    `scores` names the scores: `ships`, `sahara`, or the method whose folder of the stage `scores` they lie in. They are
    read in one of three ways, `chooses`:

        prompt    each prompt has n heads of its own, those of highest score
        data set  all prompts have the same n heads, those of highest (mean) score; another data set may choose them
        group     all prompts have the same n heads, those that a search selected in its first n steps

    With `contrasted` scores are compared with others of the same kind: those of benign prompts, or of a base model.
    Prompts of a `benign` data set may be used where there is one, or needed. A method goes `by_first_token` if it looks
    at whether the answer's first token is that of a refusal: then the openings of refusals count as well. Scores
    that are `signed` are below 0 for heads that hold refusals back.

    The cost: `sweeps` ablate each head of the model on its own, once for each prompt, and compute only what that
    changes; there may be one more over a sample of so many prompts, `sampled`. `passes` are whole passes over one
    prompt, by the numbers of heads and of prompts; with its way back, for a gradient, one counts as three.
    """

    scores: str
    chooses: Literal["prompt", "data set", "group"]
    unit: str
    about: str
    contrasted: bool = False
    benign: Literal["none", "used", "needed"] = "none"
    by_first_token: bool = False
    shared: tuple[str, ...] = ()
    """The settings of `attribution` that it has in common with other methods."""
    signed: bool = False
    sweeps: Callable[[Settings], int] = _none
    passes: Callable[[Settings, int, int], int] = lambda settings, heads, prompts: 0
    sampled: Callable[[Settings], int] = _none

    def plain(self) -> dict[str, Any]:
        """What scores of this method mean: all of the line but its cost."""
        return {key: value for key, value in self._asdict().items() if not callable(value)}

    @property
    def per_prompt(self) -> bool:
        """Whether each prompt has heads of its own."""
        return self.chooses == "prompt"

    @property
    def searches(self) -> bool:
        """Whether scores come in steps, each of which selects a head."""
        return self.chooses == "group"


def masks_of(settings: Settings, heads: int) -> int:
    """How many masks `knockouts` tries on a model with so many heads, for the estimate of its time."""
    wanted = settings["knockouts"].get("masks")
    return int(wanted) if wanted else max(100, min(1000, 6 * heads))


METHODS = {
    "ships": Method(
        *("ships", "prompt", "nats", "how far ablating the head moves a prompt's next token (KL)"),
        benign="used",
        by_first_token=True,
        sweeps=lambda settings: 1,
    ),
    "sahara": Method(
        *("sahara", "group", "degrees", "how far ablating the group turns the states of the prompts"),
        shared=SAHARA,
        sweeps=lambda settings: settings["steps"],
    ),
    "top": Method(
        *("ships", "data set", "nats", "the mean of Ships over the prompts"),
        benign="used",
        by_first_token=True,
        sweeps=lambda settings: 1,
    ),
    "contrast": Method(
        *("ships", "data set", "nats", "the mean of Ships less that on benign prompts, or in a base model"),
        contrasted=True,
        benign="used",
        by_first_token=True,
        sweeps=lambda settings: 1,
    ),
    "sahara_centred": Method(
        *("sahara_centred", "group", "degrees", "Sahara on states less the plain model's mean"),
        shared=SAHARA,
        sweeps=lambda settings: settings["steps"],
    ),
    "displacement": Method(
        *("displacement", "group", "spreads", "how far ablating the group moves the states of the prompts"),
        shared=("steps",),
        sweeps=lambda settings: settings["steps"],
    ),
    "refusal_direction": Method(
        *("refusal_direction", "data set", "norm of states"),
        "what the head writes along the direction from benign to harmful prompts",
        signed=True,
        benign="needed",
        passes=lambda settings, heads, prompts: 2 * prompts,
    ),
    "gradient": Method(
        *("gradient", "data set", "nats", "the first-order change of refusing against answering under ablation"),
        signed=True,
        benign="needed",
        by_first_token=True,
        passes=lambda settings, heads, prompts: 3 * prompts,
        sampled=lambda settings: settings["gradient"]["sample"],
    ),
    "knockouts": Method(
        *("knockouts", "data set", "nats", "a Lasso of refusing against answering on random sets of ablated heads"),
        signed=True,
        benign="needed",
        by_first_token=True,
        passes=lambda settings, heads, prompts: masks_of(settings, heads) * prompts,
    ),
    "mask": Method(
        *("mask", "data set", "share", "how far gates that are learned to undo refusals ablate the head"),
        benign="needed",
        by_first_token=True,
        passes=lambda settings, heads, prompts: 3 * settings["mask"]["starts"] * MASK_STEPS * min(MASK_ROWS, prompts),
    ),
}
"""The first word of the plans `{method}-{n}` -> how their heads are chosen."""

SCORES = tuple(dict.fromkeys(method.scores for method in METHODS.values()))
"""The names of all scores."""
