"""Borders: numbers of tokens above which a model's rotary frequencies are others.

Most models turn queries and keys by the same frequencies however long a text is. Two kinds of rope scaling do not:

- `longrope` (Phi-3, Phi-4-mini) has a short and a long set. transformers takes the long one for *all* rows of a batch
  as soon as one of them is longer than the border, `original_max_position_embeddings`.
- `dynamic` stretches the frequencies as the longest row grows beyond the border, `max_position_embeddings`. It keeps
  what it has stretched in the model, so that the next text may get the frequencies of the one before.

So rows on different sides of a border must not share a batch, and a completion must not cross one: its first keys
would have been turned by other frequencies than its last ones. (What families do then differs: Phi-3 computes the whole
prompt anew, Llama goes on with keys of both kinds.)
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from safetyheads.engine.context import kind_of, ropes, setting
from safetyheads.errors import SafetyHeadsError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel


class Border(NamedTuple):
    """A number of tokens above which rotary frequencies are others."""

    tokens: int
    """The most tokens that are turned by the frequencies of short texts."""
    stretching: bool
    """Whether every further token changes the frequencies once more (`dynamic`), or one set holds for all of them."""


def borders(config: "PreTrainedConfig") -> tuple[Border, ...]:
    """Where a model's rotary frequencies change, from the shortest on; nothing for almost all models."""
    text = config.get_text_config(decoder=True)
    length = setting(text, "max_position_embeddings")
    found: set[Border] = set()
    for _, rope in ropes(text):
        if kind_of(rope) == "longrope":
            found.add(Border(int(rope.get("original_max_position_embeddings") or length), stretching=False))
        elif "dynamic" in kind_of(rope):
            found.add(Border(int(length), stretching=True))
    return tuple(sorted(found))


def side(tokens: int, of: Sequence[Border]) -> Hashable:
    """The sides of all borders `of` a model that a text of so many tokens is on: texts of one side may share a batch.

    Beyond a border where frequencies are stretched, only texts of one length have the same.
    """
    return tuple(tokens > at.tokens and (tokens if at.stretching else True) for at in of)


def check_sides(prompts: Mapping[str, Sequence[int]], new_tokens: int, of: Sequence[Border]) -> None:
    """Raise SafetyHeadsError if a prompt (token ids by name) would cross one of the borders `of` a model.

    The last of `new_tokens` is not fed to the model, and so may stand beyond the border.
    """
    for at in of:
        crossing = [name for name, ids in prompts.items() if len(ids) <= at.tokens < len(ids) + new_tokens - 1]
        if crossing:
            name = max(crossing, key=lambda one: len(prompts[one]))
            others = f" So would {len(crossing) - 1} more." if len(crossing) > 1 else ""
            raise SafetyHeadsError(
                f"The prompt of {name} has {len(prompts[name])} tokens; with {new_tokens} new ones it would cross the "
                f"border of this model's rope scaling at {at.tokens} tokens, beyond which all of its tokens are turned "
                f"by other rotary frequencies.{others} Completions must stay on one side of it: set `max_new_tokens` "
                f"to {at.tokens + 1 - len(prompts[name])} or less, shorten the query or the template, or make the "
                f"prompt longer than {at.tokens} tokens."
            )


def probes(prompts: Sequence[Sequence[int]], of: Sequence[Border]) -> tuple[Sequence[int], Sequence[int]]:
    """The shortest and the longest of `prompts`, to try a model with.

    They are cut to their ends where they, with one more token, would not stay below all borders `of` the model.
    """
    shortest, longest = min(prompts, key=len), max(prompts, key=len)
    if of and len(longest) >= of[0].tokens:
        room = max(2, of[0].tokens - 1)
        longest = longest[-room:]
        if len(shortest) >= room:
            shortest = shortest[-(room // 2) :]  # two lengths, so that padding is tried
    return shortest, longest


def stretching_ropes(model: "PreTrainedModel") -> list["nn.Module"]:
    """The modules of a model that keep stretched frequencies; nothing for almost all models."""
    if not any(at.stretching for at in borders(model.config)):
        return []
    return [module for module in model.modules() if any("dynamic" in kind for _, kind in _kinds_of(module))]


def relax(modules: Sequence["nn.Module"]) -> None:
    """Forget what earlier texts have stretched: the next one gets its frequencies as if it were the model's first."""
    for module in modules:
        for layers, _ in _kinds_of(module):
            prefix = f"{layers}_" if layers else ""
            found, original = (getattr(module, f"{prefix}{name}") for name in ("inv_freq", "original_inv_freq"))
            module.register_buffer(f"{prefix}inv_freq", original.to(found.device), persistent=False)
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def _kinds_of(module: "nn.Module") -> list[tuple[str, str]]:
    """A rotary module's kinds of scaling, by kind of layers; '' stands for all layers."""
    kinds = getattr(module, "rope_type", None)
    if not hasattr(module, "original_max_seq_len") or not isinstance(kinds, str | Mapping):
        return []
    return [("", kinds)] if isinstance(kinds, str) else list(kinds.items())
