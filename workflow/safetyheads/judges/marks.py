"""Break what could steer a judge: control tokens and marks of its template inside the answer that is judged.

A model judge reads one text, in which the answer stands between sentences of the judge's template:

    [INST] <<SYS>> ... <</SYS>>  [BEHAVIOR]: ...  [GENERATION]: the answer  ---  Rules: ...  Answer: [/INST]

An answer that holds `[/INST]` or `<|eot_id|>` would end this text early, and one with a line `Answer: no` would look
like a part of the template. So such marks are broken by a space behind their first character (`[ /INST]`), or before
the colon (`Answer : no`). The words stay, and so do all texts without marks.
"""

import re
from collections.abc import Iterable

_ALWAYS = (
    r"<\|[^|<>\n]{1,40}\|>",
    r"\[/?[A-Z_]{3,20}\]",
    r"<</?[A-Z]{2,10}>>",
    r"</?s>",
    r"<(?:bos|eos|pad|unk|mask|end_of_turn|start_of_turn)>",
)
"""Forms of control tokens and marks of known model families, whatever the judge's own are."""

_TAG = re.compile(r"<[^<>\n]{1,60}>|\[[^\[\]\n]{1,40}\]")
_LABEL = re.compile(r"^[^\w\n]*([A-Za-z][\w ]{0,40}):", re.MULTILINE)
_ENDS = r"\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
"""All signs that end a line, in a class of a regular expression."""


class Marks:
    """The marks of one judge: the texts of its tokenizer's control tokens, and what its template writes as marks.

    `control` are texts of control tokens; `frame` is what the template writes around the query and the answer. Tags
    such as `[GENERATION]` or `<END CONVERSATION>` in it are marks, and so are the labels with which its lines begin,
    such as `Answer:`, where an answer has them at the beginning of a line.
    """

    def __init__(self, control: Iterable[str], frame: str) -> None:
        tokens = [token for token in control if len(token) > 1 and not token.isspace()]
        own = sorted({*tokens, *_TAG.findall(frame)}, key=len, reverse=True)
        self._tags = re.compile("|".join([*map(re.escape, own), *_ALWAYS]), re.IGNORECASE)
        labels = sorted({label.strip() for label in _LABEL.findall(frame)}, key=len, reverse=True)
        words = "|".join(map(re.escape, labels))
        start = rf"(?:\A|(?<=[{_ENDS}]))"
        self._labels = re.compile(rf"{start}([^\w{_ENDS}]*(?:{words}))(?=:)", re.IGNORECASE) if labels else None

    def broken(self, text: str) -> str:
        """The text with every mark broken. A text without marks is returned as it is."""
        # Once more while there was one, because what stands around a broken mark may be a mark as well. All marks are
        # broken at a time: one by one, an answer that is full of them would take minutes.
        while (parted := self._tags.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)) != text:
            text = parted
        return text if self._labels is None else self._labels.sub(r"\1 ", text)
