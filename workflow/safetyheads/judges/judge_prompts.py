"""Write what a model judge reads: its template, with a query and an answer in it, as text and as token ids.

A template is either the tokenizer's own chat template, which gets the query as the user's message and the answer as the
assistant's, or a text with two places in it. The text is made as the judge's own code makes it: the answer is clipped
to so many of the judge's tokens and put into its place, and the whole text is tokenised at once. Marks in the query and
in the answer are broken (`marks`) before and after clipping, which may join what stood apart: a tokenizer leaves out
signs that it does not know. At last it is checked that no token there steers the judge.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from safetyheads.errors import SafetyHeadsError
from safetyheads.judges.marks import Marks
from safetyheads.judging import CHAT, PLACES, pieces
from safetyheads.templates import Writer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = {"query": "\ue000", "answer": "\ue001"}
"""Stand in for both where only the template is of interest: no template has them."""

_TRIES = 8
"""How often a token that steers the judge is broken anew before the answer is refused."""


@dataclass(frozen=True)
class Clip:
    """How long answers are cut, in tokens of the judge, those at the beginning of every text included."""

    tokens: int
    side: str = "right"
    """Where tokens are taken away: `right`, at the end, or `left`."""
    special: bool = False
    """Whether the text of the tokens at the beginning of every text, such as `<bos>`, is written before the answer. So
    does the code of some judges, whose numbers were made with it."""


class Prompt(NamedTuple):
    """A judge's prompt: its text, and where in it query and answer stand, each as (start, end) in characters."""

    text: str
    query: tuple[int, int]
    answer: tuple[int, int]


class JudgePrompts:
    """Writes the prompts of one judge.

    `template` is `CHAT`, or a text with places as `str.format` has them, of names in `PLACES`; braces of its own are
    doubled. Classifiers may read the answer alone: with `query` false, the template may have no place for the query.
    `leads` are what the judge's own answer begins with; such lines within an answer are broken like the template's.
    Raises SafetyHeadsError for a template that has not one place for each.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        template: str,
        clip: Clip | None = None,
        *,
        query: bool = True,
        leads: Sequence[str] = (),
    ) -> None:
        self.tokenizer, self.template, self.clip = tokenizer, template, clip
        made = self._chat(_MARK) if template == CHAT else "".join(_filled(template))
        for place, mark in _MARK.items():
            if made.count(mark) != 1 and (query or place == "answer" or made.count(mark) > 1):
                names = "" if template == CHAT else f", called {' or '.join(f'{{{name}}}' for name in PLACES[place])}"
                raise SafetyHeadsError(
                    f"The judge's template has {made.count(mark)} places for the {place}; allowed: one{names}."
                )
        self.pieces = re.split(f"([{''.join(_MARK.values())}])", made)
        self.frame = "".join(piece for piece in self.pieces if piece not in _MARK.values())
        self.control = Writer({"text": self.frame}, tokenizer).control
        self.marks = Marks(self.control, "\n".join([self.frame, *leads]))

    def write(self, query: str, answer: str) -> Prompt:
        """The prompt for an answer to a query, both with their marks broken, and the answer clipped."""
        return self._put(self.marks.broken(query), *self._clipped(self.marks.broken(answer)))

    def token_ids(self, query: str, answer: str, *leads: str) -> list[list[int]]:
        """The ids of the prompt for an answer, for each of `leads` with the beginning of the judge's own answer behind.

        Raises SafetyHeadsError if the tokenizer makes a token that steers the judge of a part of the query or the
        answer, however often that part is broken.
        """
        query, (before, answer) = self.marks.broken(query), self._clipped(self.marks.broken(answer))
        for _ in range(_TRIES):
            prompt = self._put(query, before, answer)
            found = list(self._steering(prompt.text))
            inside = [[at for at in found if at[0] < last and at[1] > first] for first, last in prompt[1:]]
            if not any(inside):
                return [self._encode(prompt.text + lead) for lead in leads or ("",)]
            query, answer = (
                _broken_at(prompt.text[first:last], places, first) for places, (first, last) in zip(inside, prompt[1:])
            )
        raise SafetyHeadsError(
            f"The answer to {query!r} holds text that the judge's tokenizer reads as a control token, however it is "
            "broken. Take the query out of the data set, or use another judge."
        )

    def _put(self, query: str, before: str, answer: str) -> Prompt:
        """The prompt with both in their places as they are, and `before` in front of the answer."""
        said = {"query": query, "answer": answer}
        if self.template == CHAT:
            whole = self._chat(said)
            forms = [{"query": q, "answer": a} for q in _forms(query) for a in _forms(answer)]
            said = next((form for form in forms if self._joined(form, "")[0] == whole), {})
            if not said:
                raise SafetyHeadsError(
                    "The judge's chat template writes something else than the query and the answer themselves. Give "
                    "the judge a `template:` of its own."
                )
        text, places = self._joined(said, before)
        return Prompt(text, *places)

    def _joined(self, said: dict[str, str], before: str) -> tuple[str, list[tuple[int, int]]]:
        """The text, and where query and answer stand in it."""
        text, places = "", {"query": (0, 0)}
        names = {mark: place for place, mark in _MARK.items()}
        for piece in self.pieces:
            if piece in names:
                name = names[piece]
                text += before if name == "answer" else ""
                places[name] = (len(text), len(text) + len(said[name]))
                piece = said[name]
            text += piece
        return text, [places["query"], places["answer"]]

    def _clipped(self, answer: str) -> tuple[str, str]:
        """What is written before the answer, and the answer as the judge's own code clips it, its marks broken."""
        if self.clip is None:
            return "", answer
        side, self.tokenizer.truncation_side = self.tokenizer.truncation_side, self.clip.side
        try:
            ids = self.tokenizer(answer, max_length=self.clip.tokens, truncation=True)["input_ids"]
        finally:
            self.tokenizer.truncation_side = side
        clipped = str(self.tokenizer.decode(ids, skip_special_tokens=not self.clip.special))
        start = str(self.tokenizer.decode(self.tokenizer("")["input_ids"])) if self.clip.special else ""
        before = start if clipped.startswith(start) else ""
        rest, unknown = clipped.removeprefix(before), self._unknown
        parts = rest.split(unknown) if unknown else [rest]  # `<unk>` is no mark where decoding has written it
        return before, (unknown or "").join(map(self.marks.broken, parts))

    def _chat(self, said: dict[str, str]) -> str:
        messages = [{"role": "user", "content": said["query"]}, {"role": "assistant", "content": said["answer"]}]
        if not self.tokenizer.chat_template:
            raise SafetyHeadsError("The judge's tokenizer has no chat template. Give the judge a `template:`.")
        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False))
        except Exception as error:  # a template is a program: any error may come out of it
            raise SafetyHeadsError(f"The judge's chat template fails: {error}") from None

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=self.template != CHAT)["input_ids"])

    @cached_property
    def _unknown(self) -> str | None:
        """The token for signs that the tokenizer does not know, which steers nothing; None if it is the end's, too."""
        token, ends = self.tokenizer.unk_token, (self.tokenizer.bos_token, self.tokenizer.eos_token)
        return str(token) if token and token not in ends else None

    @cached_property
    def _control_ids(self) -> set[int]:
        return {
            id_
            for token in self.control
            if isinstance(id_ := self.tokenizer.convert_tokens_to_ids(token), int) and token != self._unknown
        }

    def _steering(self, text: str) -> Iterator[tuple[int, int]]:
        """Where in the text tokens stand that steer the judge, as (start, end) in characters."""
        if not self.tokenizer.is_fast:
            raise SafetyHeadsError(
                "The judge's tokenizer does not say where in a text its tokens stand, so it cannot be checked that no "
                "answer steers the judge. Use a judge with a tokenizer.json."
            )
        made = self.tokenizer(text, add_special_tokens=self.template != CHAT, return_offsets_mapping=True)
        places: Any = made["offset_mapping"]
        for id_, (start, end) in zip(made["input_ids"], places):
            if id_ in self._control_ids:
                yield start, end


def _filled(template: str) -> Iterator[str]:
    """The pieces of a text template, with marks in both places."""
    for text, place in pieces(template):
        yield text
        if place:
            yield _MARK[place]


def _forms(text: str) -> tuple[str, ...]:
    """The text as it is, and as templates strip it."""
    return text, text.strip(), text.rstrip(), text.lstrip()


def _broken_at(text: str, places: Sequence[tuple[int, int]], first: int) -> str:
    """The text with a space behind the first character of each place; a place of one character becomes a space.

    Places are counted in a longer text, in which this one begins at `first`.
    """
    for start, end in reversed(places):
        start, end = max(0, start - first), min(len(text), end - first)
        text = f"{text[: start + 1]} {text[start + 1 :]}" if end - start > 1 else f"{text[:start]} {text[end:]}"
    return text
