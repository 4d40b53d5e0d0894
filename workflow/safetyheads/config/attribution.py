"""The section `attribution` of the configuration: how heads are scored, with a part for each method's own settings."""

from typing import Annotated, Any, Literal

from pydantic import Field

from safetyheads.config.sections import Section
from safetyheads.config.types import Count, Name, Number, Seed, Text
from safetyheads.methods import METHODS
from safetyheads.templates import OPENINGS


class Contrast(Section):
    """What `contrast-N` subtracts, if not the scores on a benign data set."""

    base: Text
    """Name of a model of the same shape, such as the base model that the measured one was made from: its mean Ships on
    the same queries is subtracted."""


class RefusalDirection(Section):
    """Heads by what they write along the direction from benign to harmful prompts (RDSHA, arXiv 2508.19697)."""

    layer: Literal["own", "best"] = "own"
    """Of which layer the direction is: the head's `own`, or the `best` one, which tells the prompts apart best."""


class Gradient(Section):
    """Heads by the first-order change that their ablation makes (attribution patching)."""

    sample: Count = 8
    """Prompts on which the exact change is computed as well, to tell how many of the best heads the estimate finds."""


class Knockouts(Section):
    """Heads by a Lasso on random sets of ablated heads (compressed sensing, arXiv 2603.03335)."""

    masks: Annotated[int, Field(ge=20)] | None = None
    """Sets of heads that are tried, 20 at least. Unless set: 6 for each head of the model, at least 100 and at most
    1,000. With k heads that matter among N it takes about 2 k ln N."""
    seed: Seed = 0
    """Seed of the masks and resamples."""


class Mask(Section):
    """Heads by gates that are learned so that refusals are undone with few heads ablated."""

    starts: Count = 5
    """How often gates are learned anew, from other numbers."""
    strength: Number = 0.5
    """What a head must take from the mean of log P(refusal) - log P(answer) to be ablated, in nats."""
    seed: Seed = 0
    """Seed of the starts."""


class Attribution(Section):
    """How heads are scored."""

    steps: Count = 3
    """Steps of the methods that search, `sahara`, `sahara_centred` and `displacement`: the largest N of their plans.
    Raising it re-runs them and what uses them."""
    rank: Count = 1
    """Number of left singular vectors that Sahara compares."""
    representation: Literal["final_norm", "residual"] = "final_norm"
    """Hidden states after (`final_norm`) or before (`residual`) the final norm."""
    benign: Text | None = None
    """Name of a data set of benign queries. `contrast-N` subtracts the scores on them, and they tell which first tokens
    are answers and which are refusals (`refusal_shift`, `answer_shift`). Unless set: `demo_benign` for demo models,
    else the only data set with `benign: true` that is declared here or that a study names. Set it before the first run:
    another one makes Ships again, and what uses them."""
    contrast: Contrast | None = None
    """`{base: MODEL}`: `contrast-N` subtracts the scores in another model, not those on benign queries."""
    openings: Annotated[list[Text], Field(min_length=1)] = list(OPENINGS)
    """How refusals begin: their first tokens are those of `refusal_shift`, and an answer that begins so has the outcome
    `refused`. A change makes Ships and what uses them again, and verdicts."""

    attacks: dict[Name, Name] = {}
    """Templates that attack, each with the clean one that it is compared with: `{role_play: simple}`. Where a study has
    both, `attacks.parquet` and the page tell what the attack changes of each head."""
    refusal_direction: RefusalDirection = RefusalDirection()
    """Settings of `refusal_direction-N`."""
    gradient: Gradient = Gradient()
    """Settings of `gradient-N`."""
    knockouts: Knockouts = Knockouts()
    """Settings of `knockouts-N`."""
    mask: Mask = Mask()
    """Settings of `mask-N`."""

    def of(self, method: str) -> dict[str, Any]:
        """What the scores of a method depend on: its own settings, and those that it shares."""
        known, of = self.plain(), METHODS[method]
        own: dict[str, Any] = {**known.get(method, {}), **{key: known[key] for key in of.shared}}
        return own | ({"openings": known["openings"]} if of.by_first_token else {})
