"""Templates: from one query to the text of a prompt, and from that to token ids. All of the project tokenises here."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from safetyheads.errors import SafetyHeadsError, nearest

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

DATE, DATE_FORMAT = "26 Jul 2024", "%d %b %Y"
"""The day that chat templates take for today unless a template's `date` says another one, and how it is written.

Some templates write today's date into the prompt. The same study would have other prompts tomorrow. This day is the one
that Llama-3.1's template falls back to.
"""

OPENINGS = (
    "I cannot",
    "I can't",
    "I'm sorry",
    "I am sorry",
    "Sorry",
    "I apologize",
    "As an AI",
    "Unfortunately",
    "No",
)
"""How refusals begin, unless the configuration says otherwise (`attribution: openings`)."""

_TAIL = 32
"""Characters of a prompt's end that an opening is tokenised behind. What stands before them does not reach so far."""

_PLACE = "\uf8f0"
"""Stands for the query where it is asked what the template puts around it: no template and no query has it."""


def render(query: str, template: Mapping[str, Any], tokenizer: "PreTrainedTokenizerBase") -> str:
    """The text of a prompt: the query in its template, then the beginning of the answer, if the template has one.

    `template` has either `text`, in which `{query}` is replaced, or `chat` for the tokenizer's chat template: true, or
    arguments of that template, such as `{"enable_thinking": False}`. With it there may be a `system` prompt, the `name`
    of one of several templates, and the `date` that is today for it. `prefill` is the beginning of the answer. Raises
    SafetyHeadsError if the tokenizer has no such chat template, or if that does not accept the messages.
    """
    return Writer(template, tokenizer).text(query)


def tokenise(text: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The token ids of a prompt, with the tokenizer's beginning of sequence, such as `<s>`, exactly once in front.

    Chat templates often write `<s>` into the text themselves, and the tokenizer would add a second one. Some tokenizers
    also add `</s>` at the end, which is left out, because it would tell the model that the text is over.
    """
    return _begun(_bare(text, tokenizer), tokenizer)


def _bare(text: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _begun(ids: list[int], tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    start = _start(tokenizer)
    return ids if ids[: len(start)] == start else [*start, *ids]


def _start(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The ids that the tokenizer puts in front of every text: one for the beginning of a sequence, several, or none."""
    bare, whole = _bare("a", tokenizer), list(tokenizer("a")["input_ids"])
    places = [place for place in range(len(whole)) if whole[place : place + len(bare)] == bare]
    return whole[: places[0]] if bare and places else []


def opening_tokens(
    prompts: Iterable[str], openings: Sequence[str], tokenizer: "PreTrainedTokenizerBase"
) -> tuple[int, ...]:
    """The ids of the tokens that an answer to one of the prompts begins with if it is a refusal that opens so, sorted.

    An answer may follow a prompt directly or behind a space, as in `## Answer: I cannot`, and both count. Two things
    say nothing and do not count: a first token that is white space only, and an opening whose beginning the tokenizer
    joins with the end of the prompt, because a model cannot write such a token behind the prompt.
    """
    found = set()
    for tail in sorted({text[-_TAIL:] for text in prompts}):
        before = _bare(tail, tokenizer)
        for opening in openings:
            for answer in (opening, f" {opening}"):
                ids = _bare(tail + answer, tokenizer)
                if ids[: len(before)] == before and len(ids) > len(before):
                    found.add(ids[len(before)])
    return tuple(sorted(id_ for id_ in found if str(tokenizer.decode([id_])).strip()))


class Writer:
    """Writes the prompts of one template for one tokenizer."""

    def __init__(self, template: Mapping[str, Any], tokenizer: "PreTrainedTokenizerBase") -> None:
        self.template, self.tokenizer, self.parts = template, tokenizer, False
        self.source = _chat_template(template, tokenizer) if template.get("chat") else None
        self.copies: dict[tuple[str, ...], Tokenizer] = {}
        if self.source is not None:
            self.parts = not self._holds_query() and self._holds_query(parts=True)
        self.frame = self.text(_PLACE)
        self.control = _control_tokens(tokenizer, self.frame)

    def _holds_query(self, *, parts: bool = False) -> bool:
        """Whether a query is in the text that the chat template makes of it, and not as Python shows a list."""
        try:
            text = self._chat(_PLACE, parts=parts)
        except SafetyHeadsError:
            return False
        return _PLACE in text and "'type'" not in text

    @property
    def ignores_query(self) -> bool:
        """Whether the template writes a text in which the query has no place, whatever words that text holds."""
        return _PLACE not in self.frame

    def text(self, query: str) -> str:
        prefill = str(self.template.get("prefill") or "")
        if self.source is None:
            return str(self.template["text"]).replace("{query}", query) + prefill
        return self._chat(query, parts=self.parts) + prefill

    def _chat(self, query: str, *, parts: bool) -> str:
        """What the chat template makes of the query, with the system prompt if there is one."""
        said = [("system", self.template["system"])] if self.template.get("system") else []
        said.append(("user", query))
        messages: list[Any] = [
            {"role": role, "content": [{"type": "text", "text": x}] if parts else x} for role, x in said
        ]
        arguments = self.template["chat"] if isinstance(self.template["chat"], Mapping) else {}
        try:
            text = self.tokenizer.apply_chat_template(
                messages, chat_template=self.source, tokenize=False, add_generation_prompt=True, **arguments
            )
        except Exception as error:  # a template is a program: any error may come out of it
            about = str(error) or type(error).__name__
            kind = "" if type(error).__module__.startswith("jinja2") else f"{type(error).__name__}: "
            raise SafetyHeadsError(
                f"The tokenizer's chat template does not accept these messages: {kind}{about.rstrip('.')}."
            ) from None
        return str(text)

    def token_ids(self, query: str, text: str) -> list[int]:
        """The ids of a prompt's text. Control tokens in the query stay text, unless the template lets them in.

        The text is tokenised as a whole. Where the query has the text of control tokens, this is done by a copy of the
        tokenizer in which these tokens have other names; they are called so wherever the template wrote them.
        """
        held = tuple(sorted(token for token in self.control if token in query))
        if not held or self.template.get("control_tokens"):
            return tokenise(text, self.tokenizer)
        names = {token: f"\uf8f1{number}\uf8f2" for number, token in enumerate(held)}
        frame, forms = self.frame, (query, query.strip(), query.rstrip(), query.lstrip())
        content = next((form for form in forms if frame.replace(_PLACE, form) == text), None)
        try:
            if held not in self.copies:
                self.copies[held] = _renamed(self.tokenizer.backend_tokenizer, names)
            if content is None:
                raise ValueError("the template changes the query")
        except Exception as error:  # the tokenizers library raises a bare Exception
            raise SafetyHeadsError(
                f"The query {query!r} holds the text of the control token {held[0]!r}, which cannot be kept as text "
                f"here ({error}). Take it out of the query, or set `control_tokens: true` in the template, which makes "
                "it the control token."
            ) from None
        for token in sorted(held, key=len, reverse=True):
            frame = frame.replace(token, names[token])
        return _begun(
            self.copies[held].encode(frame.replace(_PLACE, content), add_special_tokens=False).ids, self.tokenizer
        )


def _chat_template(template: Mapping[str, Any], tokenizer: "PreTrainedTokenizerBase") -> str:
    """The source of the tokenizer's chat template, in which today is the template's `date`.

    Raises SafetyHeadsError if there is none, none of that name, or none that has the arguments given.
    """
    known = tokenizer.chat_template
    if not known:
        raise SafetyHeadsError(
            "The tokenizer has no chat template. Give the model one with `chat_template:`, or use a text template."
        )
    templates: dict[str, str] = known if isinstance(known, dict) else {"default": known}
    name = template.get("name") or "default"
    if name not in templates:
        raise SafetyHeadsError(
            f"The tokenizer has no chat template of the name {name!r}; it has {', '.join(templates)}. Choose one by "
            f"`name:` in the template.{nearest(name, templates)}"
        )
    source, words = templates[name], set(re.findall(r"\w+", templates[name]))
    arguments = template["chat"] if isinstance(template["chat"], Mapping) else {}
    if unknown := sorted(set(arguments) - words):
        raise SafetyHeadsError(
            f"The tokenizer's chat template has no argument {unknown[0]!r}.{nearest(unknown[0], words)}"
        )
    return _dated(source, template.get("date") or DATE)


def _dated(source: str, date: str) -> str:
    """A chat template for which today is `date`.

    Chat templates ask for the date by `strftime_now(format)`. A macro of this name, put in front, answers instead.
    """
    day = datetime.strptime(date, DATE_FORMAT)
    fields = {f"%{letter}": day.strftime(f"%{letter}") for letter in "%aAbBcdeDFGHIjklmMnpPrRSTuUVwWxXyYzZ"}
    fields |= {f"%-{letter}": day.strftime(f"%-{letter}") for letter in "dHIjmMSy"}
    replaced = "".join(f"|replace({field!r}, {value!r})" for field, value in fields.items() if field != "%%")
    macro = f"{{%- macro strftime_now(format) -%}}{{{{ format{replaced}|replace('%%', '%') }}}}{{%- endmacro %}}"
    macro += "{{ '' }}"  # else the template's own line ends would be taken for those behind a block
    return macro + source if "strftime_now" in source else source


def _control_tokens(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[str]:
    """The texts of the tokens that steer a model: special ones, and added ones that a template writes.

    `text` is what the template at hand writes around a query; the tokenizer's chat templates count too. Added tokens
    that no template writes are text with a number of its own, such as Gemma's runs of line ends.
    """
    known = tokenizer.chat_template or {}
    written = "\0".join([text, *(known.values() if isinstance(known, dict) else [known])])
    return [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.special or (token.content in written and not token.content.isspace())
    ]


def _renamed(tokenizer: "Tokenizer", names: Mapping[str, str]) -> "Tokenizer":
    """A copy of a tokenizer in which some tokens have other texts, and the same ids."""
    from tokenizers import Tokenizer

    values = json.loads(tokenizer.to_str())
    for token in values["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = values["model"]
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(text, text): number for text, number in vocabulary.items()}
    elif vocabulary:  # of a Unigram model: pairs of text and score
        model["vocab"] = [[names.get(text, text), score] for text, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    made = Tokenizer.from_str(json.dumps(values))
    made.no_truncation()
    made.no_padding()
    return made
