"""How far a model's positions reach: its context length, and the borders at which rotary frequencies change.

Most models turn queries and keys by the same frequencies however long a text is. Two kinds of rope scaling do not:

- `longrope` (Phi-3, Phi-4-mini) has a short and a long set. transformers takes the long one for *all* rows of a batch
  as soon as one of them is longer than the border, `original_max_position_embeddings`.
- `dynamic` stretches the frequencies as the longest row grows beyond the border, `max_position_embeddings`. It keeps
  what it has stretched in the model, so that the next text may get the frequencies of the one before.

So rows on different sides of a border must not share a batch, and a completion must not cross one: its first keys
would have been turned by other frequencies than its last ones. (What families do then differs: Phi-3 computes the whole
prompt anew, Llama goes on with keys of both kinds.)
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from safetyheads.errors import SafetyHeadsError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_seq_length",
    "max_sequence_length",
    "seq_length",
    "seq_len",
    "n_ctx",
)
"""What families call the number of their positions; the first that a configuration has counts."""


class Border(NamedTuple):
    """A number of tokens above which rotary frequencies are others."""

    tokens: int
    """The most tokens that are turned by the frequencies of short texts."""
    stretching: bool
    """Whether every further token changes the frequencies once more (`dynamic`), or one set holds for all of them."""


def context_length(config: "PreTrainedConfig") -> int | None:
    """The most tokens, prompt and completion together, that a model is made for; None if its config does not say.

    `max_position_embeddings` is what a model was made for before its rope was scaled, or after, which depends on the
    kind of scaling:

    - `yarn`: `original_max_position_embeddings` times `factor`, because some write the length before scaling (Qwen)
      and others the one after it (DeepSeek, GPT-OSS).
    - `linear`: times `factor` (Vicuna-16k). But where the settings differ between kinds of layers (Gemma 3), it is the
      length after scaling.
    - `dynamic`: times `factor`, as scaling begins where that length ends.
    - `llama3`, `longrope` and others: it is the length after scaling.

    Positions that were learned cannot be scaled: there `max_position_embeddings` is the size of a table. Cohere says in
    `model_max_length` what its rope was trained for.
    """
    text = config.get_text_config(decoder=True)
    length = next((int(found) for name in _LENGTHS if (found := _get(text, name))), None)
    ropes = list(_ropes(text))
    if not ropes:
        return length
    if trained := _get(text, "model_max_length"):
        return int(trained)
    lengths = [_scaled(rope, length, by_layer=name is not None) for name, rope in ropes]
    return max((found for found in lengths if found is not None), default=None)


def _scaled(rope: Mapping[str, Any], length: int | None, *, by_layer: bool) -> int | None:
    """The context length with one rope's settings, where the configuration says `length`."""
    kind, factor, original = _kind(rope), rope.get("factor"), rope.get("original_max_position_embeddings") or length
    stretched = kind == "yarn" or "dynamic" in kind or (kind == "linear" and not by_layer)
    return int(original * factor) if stretched and factor and original else length


def borders(config: "PreTrainedConfig") -> tuple[Border, ...]:
    """Where a model's rotary frequencies change, from the shortest on; nothing for almost all models."""
    text = config.get_text_config(decoder=True)
    length = _get(text, "max_position_embeddings")
    found: set[Border] = set()
    for _, rope in _ropes(text):
        if _kind(rope) == "longrope":
            found.add(Border(int(rope.get("original_max_position_embeddings") or length), stretching=False))
        elif "dynamic" in _kind(rope):
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


def relax(ropes: Sequence["nn.Module"]) -> None:
    """Forget what earlier texts have stretched: the next one gets its frequencies as if it were the model's first."""
    for module in ropes:
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


def _ropes(text: "PreTrainedConfig") -> Iterator[tuple[str | None, Mapping[str, Any]]]:
    """The settings of each rope of a text model, and the kind of layers that it is for: None stands for all layers.

    A family without rope has none, whatever its config.json says.
    """
    rope = (getattr(text, "rope_parameters", None) if hasattr(type(text), "rope_parameters") else None) or {}
    by_layer = {name: settings for name, settings in rope.items() if isinstance(settings, Mapping)}
    yield from by_layer.items() if by_layer else [(None, rope)] if rope else []


def _kind(rope: Mapping[str, Any]) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")


def _get(config: "PreTrainedConfig", name: str) -> Any:
    """A setting of a configuration, or None: some families raise an error where it differs between layers."""
    try:
        return getattr(config, name, None)
    except RuntimeError:
        return None
