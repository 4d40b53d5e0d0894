"""Plans say which heads are ablated while the model answers a prompt.

    none         nothing is ablated
    single       every head of the model by itself
    ships-{n}    the n heads of highest Ships score, chosen for each prompt
    top-{n}      the n heads of highest mean Ships score over the data set, the same for all prompts
    contrast-{n} the same by another score: that mean less the one on benign prompts, or in a base model
    sahara-{n}   the group of n heads that Sahara finds, the same for all prompts
    {method}-{n} the same for each other method of `methods`
    random-{n}   n heads drawn at random from the whole model, several times
    matched-{p}  the control of a plan p: other heads of the same layers, several times
    each-{p}     each head of the group p by itself
    (other)      a head set of the configuration

Which heads these are is found by `chosen_heads.assign`. How a completion is decoded is defined here as well.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import HeadSet, check_in_grid
from safetyheads.methods import METHODS, Method

PLAIN = "plain"
"""The name of the ablation that changes nothing. Its only plan is `none`.

Completions of the plain model are made once and compared with those of every ablation.
"""

PLAIN_VARIANT = rf"{PLAIN}(-\d+)?"
"""The variants of a plan that are plain rows of its batches; `engine/plain_rows` names them. No other is called so."""


RESERVED = ("none", "single", "random", "matched", "each", PLAIN, *METHODS)
"""Words that no name of a head set begins with."""

_LIKE_A_PLAN = re.compile(rf"({'|'.join(RESERVED)})(?![^-@])", re.IGNORECASE)
_COUNTED = re.compile(rf"({'|'.join(METHODS)}|random)-([1-9][0-9]*)(?:@(.+))?")

GROUPS = tuple(name for name, method in METHODS.items() if not method.per_prompt)
"""The methods whose heads are the same for all prompts."""

_GROUPS = f"{', '.join(f'{name}-N' for name in GROUPS)} (each also with @dataset)"
ALLOWED = f"none, single, ships-N, {_GROUPS}, random-N, matched-P, each-P"
"""The forms of plans, in words. P is a plan too."""

_OF_ANOTHER = {
    "matched": f"matched-P draws controls for a plan P, which is ships-N, {_GROUPS} or a name in head_sets",
    "each": f"each-P ablates each head of a group P by itself, which is {_GROUPS} or a name in head_sets",
}


@dataclass(frozen=True)
class Plan:
    """A plan as its name says it.

    `kind` is none, single, random, matched, each, head_set or a name in `METHODS`. `inner` is the P of `matched-P` and
    `each-P`. `n` is the number of heads in the name. `source` is the data set whose scores choose the heads, if the
    name gives another one than that of the prompts: `sahara-3@harmful`. A plan with `inner` has its `n` and `source`.
    """

    name: str
    kind: str
    n: int | None = None
    source: str | None = None
    inner: "Plan | None" = None

    @property
    def group(self) -> "Plan":
        """The plan that chooses the heads which this one begins with: `inner`, or the plan itself."""
        return self.inner or self

    @property
    def method(self) -> Method | None:
        """How the heads are chosen by scores; None for plans that need no scores."""
        return METHODS.get(self.group.kind)

    @property
    def scores(self) -> str | None:
        """The name of the scores that choose the heads (`Method.scores`); None for plans that need no scores."""
        return self.method and self.method.scores

    @property
    def contrasted(self) -> bool:
        """Whether the scores are compared with others, those of benign prompts or of a base model."""
        return bool(self.method and self.method.contrasted)

    @property
    def head_set(self) -> str | None:
        """The name of the head set of the configuration that the heads come from; None for other plans."""
        return self.group.name if self.group.kind == "head_set" else None

    @property
    def paired(self) -> bool:
        """Whether batches hold many head sets for each prompt, and so the plain row of each of their prompts, too."""
        return self.kind in ("single", "each", "random", "matched")

    @property
    def one_set(self) -> bool:
        """Whether the same heads are ablated in all that is measured."""
        return not self.paired and not (self.method and self.method.per_prompt)

    @property
    def has_effects(self) -> bool:
        """Whether the plan has a row of effects: head sets, too, but not what is measured for comparison alone."""
        return self.kind != "none" and not self.paired

    def on_benign(self, others: Sequence[str]) -> list[str]:
        """The names under which a study measures this plan on a benign data set, where heads are never chosen.

        `others` are the study's data sets on which heads are chosen. Plans whose heads are each prompt's own, maps and
        matched controls are not measured there.
        """
        if self.kind in ("single", "each", "matched"):
            return []
        if self.kind not in METHODS or self.source:
            return [self.name]
        return [] if METHODS[self.kind].per_prompt else [f"{self.name}@{other}" for other in others]


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen.

    `top_k` 1 is greedy: always the likeliest token. Otherwise each token is drawn from the `top_k` likeliest, whose
    logits are divided by `temperature`, and each prompt is completed `samples` times. `seed` fixes the draws.
    """

    max_new_tokens: int = 128
    top_k: int = 1
    temperature: float = 1.0
    samples: int = 1
    seed: int = 0


class Assignment(NamedTuple):
    """One completion to make: `heads` are ablated while the model answers the query `query_id`.

    `variant` tells the head sets of one plan apart, such as `L02H26` of `single` or `draw-1` of `random-3`.
    """

    query_id: str
    variant: str
    heads: HeadSet


def like_a_plan(name: str) -> bool:
    """Whether a name is that of a plan or begins like one, as `top-x` does and `topical` does not."""
    return _LIKE_A_PLAN.match(name) is not None


def parse_plan(name: str) -> Plan:
    """What the name of a plan says. A name that does not begin like another plan is that of a head set.

    Raises SafetyHeadsError for a name that begins like a plan but is not one: `ships-0` has no heads, `ships-2@other`
    names a data set although Ships scores each prompt by itself, and `matched-none` would be a control of nothing.
    """
    word, _, rest = name.partition("-")
    if word in _OF_ANOTHER:
        return _of_another(name, word, rest)
    if name in ("none", "single"):
        return Plan(name, name)
    if (match := _COUNTED.fullmatch(name)) is None:
        if like_a_plan(name):
            raise SafetyHeadsError(
                f"{name!r} is not a plan. Plans are {ALLOWED} (N is 1 or more, P a plan) and the names in head_sets."
            )
        return Plan(name, "head_set")
    word, n, source = match.groups()
    if source is not None and (word not in METHODS or METHODS[word].per_prompt):
        raise SafetyHeadsError(
            f"{name!r}: only {', '.join(GROUPS)} choose their heads on a data set, which may be another one; {word} "
            f"plans do not. Write {word}-{n}, or for example top-{n}@{source}."
        )
    return Plan(name, word, int(n), source)


def _of_another(name: str, kind: str, rest: str) -> Plan:
    """The plan `matched-{rest}` or `each-{rest}`."""
    try:
        inner = parse_plan(rest) if rest else None
    except SafetyHeadsError:
        inner = None
    if inner is None or (inner.kind != "head_set" and inner.kind not in METHODS):
        raise SafetyHeadsError(f"{name!r} is not a plan: {_OF_ANOTHER[kind]} (N is 1 or more).")
    if kind == "each" and inner.kind in METHODS and METHODS[inner.kind].per_prompt:
        raise SafetyHeadsError(
            f"{name!r} is not a plan: the heads of {rest} differ between prompts. {_OF_ANOTHER[kind]}. `single` has "
            "every head of the model, and so each prompt's own."
        )
    return Plan(name, kind, inner.n, inner.source, inner)


def check_plan(plan: Plan, heads: HeadSet, grid: tuple[int, int], model: str) -> None:
    """Raise SafetyHeadsError if `model` does not have the heads that `plan` needs.

    `grid` is the model's (layers, heads per layer). `heads` are those of the plan's head set, if it has one, else
    empty.
    """
    layers, per_layer = grid
    if plan.n is not None and plan.n > layers * per_layer:
        raise SafetyHeadsError(
            f"Plan {plan.name!r} asks for {plan.n} heads, but model {model!r} has {layers * per_layer} "
            f"({layers} layers of {per_layer}). Choose at most {layers * per_layer}."
        )
    try:
        check_in_grid(heads, layers, per_layer)
    except SafetyHeadsError as error:
        raise SafetyHeadsError(f"Plan {plan.name!r}, model {model!r}: {error}") from None
    of_layer = Counter(head.layer for head in heads).values()
    if plan.kind == "matched" and (plan.n == layers * per_layer or set(of_layer) == {per_layer}):
        raise without_draws(plan)


def without_draws(plan: Plan) -> SafetyHeadsError:
    """The error of a plan `matched-{p}` for which no other heads are left."""
    return SafetyHeadsError(
        f"Plan {plan.name!r} has no draws: {plan.group.name} ablates all heads of each layer that it touches, so no "
        "other heads of these layers are left to compare it with. Leave this plan out, or choose fewer heads."
    )
