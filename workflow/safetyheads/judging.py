"""Words of judges that the configuration shares: what they find, which need a model, how templates are written."""

from collections.abc import Iterator
from string import Formatter
from typing import Literal

from safetyheads.errors import SafetyHeadsError

Detects = Literal["refusal", "harm"]
"""What a judge finds: that a request is refused (keyword lists), or that an answer is harmful (classifiers of harm)."""

NEED_A_MODEL = ("classifier", "generative")
"""The kinds of judges that compute with a model of their own. They judge in a job of their own (rule `judged`)."""

CHAT = "chat"
"""The template of a judge that is the chat template of its own tokenizer."""

PLACES = {
    "query": ("query", "behavior", "forbidden_prompt", "prompt", "goal", "request", "instruction"),
    "answer": ("answer", "generation", "response", "completion"),
}
"""What templates of judges call their two places, such as `{behavior}` and `{generation}`."""


def pieces(template: str) -> Iterator[tuple[str, str | None]]:
    """The pieces of a text template: text, and the place behind it, `query` or `answer`; None at the end.

    Raises SafetyHeadsError for a place of another name, and for a brace that is not doubled.
    """
    names = {name: place for place, known in PLACES.items() for name in known}
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise SafetyHeadsError(f"The judge's template has a brace that is not doubled ({error}).") from None
    for text, name, form, conversion in parsed:
        if name is not None and (name not in names or form or conversion):
            allowed = ", ".join(f"{{{known}}}" for known in names)
            raise SafetyHeadsError(f"The judge's template has a place {{{name}}}; allowed: {allowed}.")
        yield text, None if name is None else names[name]
