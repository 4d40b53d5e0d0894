"""Loops: text in which a substring comes again and again, back to back.

To find copies of a substring of p characters, the text is compared with itself, shifted by p: a stretch of the text
that has period p is a run of positions i with text[i] == text[i + p], plus the p characters behind it. That is one pass
for each p up to `LONGEST`, so the time is linear in the length of the text, in any script, and what stands before the
loop or a last copy that was cut does not matter.

Coherent texts repeat themselves, too: a refrain is sung three times, a form has empty rows, a drawing has equal lines.
What models loop in, they do not leave. So a stretch counts more if it lasts up to the end of the text.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safetyheads.judges.characters import is_letter

LONGEST = 204
"""Characters of the longest substring whose copies are looked for one by one: 200 and a break of lines between them.
Longer ones are found only if the last of them ends the text."""

SHORTEST_LOOP = 40
"""Characters that all copies have together. "No, no, no!" is no loop."""

COPIES = 3
"""Whole copies of which a loop consists if it fills half of the text."""

COPIES_AT_THE_END = 4
"""Whole copies of which a loop consists that lasts up to the end of the text but fills less than half of it."""

LINES_OF_A_REFRAIN = 5
"""Up to so many equal lines, the last one whole, close a song."""

SHORTEST_OF_SIGNS = 100
"""Characters of a loop of signs or digits beside other text: rules (*****, ~~~~~) and padding are shorter."""

SHORTEST_OF_ROWS = 160
"""Characters of a loop of whole rows of signs or digits: boards of 8 x 8 fields and empty tables are shorter."""

SHORTEST_ROW = 8
"""Characters of the shortest such row, its line break included."""

COPIES_WITH_COUNTER = 5
"""Whole copies of which a loop consists if they differ by a number that counts up."""

LETTERS_WITH_COUNTER = 12
"""Bytes of letters (UTF-8) in such a copy: "Day 1: rest" and "1. Yes" are entries of coherent lists."""

_CLOCK = re.compile("0[-:/.]0")
"""Times, dates and versions: lines of a log differ by them, and mean something."""

_TAIL = 32
"""Last characters whose earlier place tells the period of a loop of long copies."""

_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Stretch:
    """A stretch of a text, `start` to `end`, in which each character equals that `period` characters before."""

    start: int
    end: int
    period: int

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def copies(self) -> int:
        """Whole copies."""
        return self.size // self.period


def has_loop(text: str) -> bool:
    """Whether the text holds a loop, or copies that differ by a counter alone.

    A loop is at least `COPIES` copies back to back and `SHORTEST_LOOP` characters that fill half of the text, or at
    least `COPIES_AT_THE_END` up to its end. Refrains, rows of signs and rules are let off, as the constants say.
    """
    size, text = len(text), text.rstrip()
    if 2 * len(text) <= size:
        return size >= SHORTEST_LOOP
    if any(_is_loop(text, stretch) for stretch in _stretches(text)):
        return True
    counted = _DIGITS.sub("0", text)
    return counted != text and _has_counted_loop(text, counted)


def _stretches(text: str) -> Iterator[Stretch]:
    """The longest stretch of each period, and the one that ends the text, if they may be loops."""
    if len(text) < SHORTEST_LOOP:
        return
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    periods = list(range(1, min(LONGEST, len(text) // COPIES) + 1))
    before = text.rfind(text[-_TAIL:], 0, -1)
    if before >= 0 and (period := len(text) - _TAIL - before) > LONGEST:
        periods.append(period)
    for period in periods:
        yield from _of_period(codes, period)


def _of_period(codes: NDArray[np.uint32], period: int) -> Iterator[Stretch]:
    same = codes[period:] == codes[:-period]
    needed = max(SHORTEST_LOOP, COPIES * period) - period
    if np.count_nonzero(same) < needed:
        return
    breaks = np.concatenate(([-1], np.flatnonzero(~same), [len(same)]))
    runs = np.diff(breaks) - 1
    for run in sorted({int(runs.argmax()), len(runs) - 1}):
        if runs[run] >= needed:
            yield Stretch(int(breaks[run]) + 1, int(breaks[run + 1]) + period, period)


def _is_loop(text: str, stretch: Stretch) -> bool:
    unit = text[stretch.start : stretch.start + stretch.period]
    ends = stretch.end == len(text)
    fills = 2 * stretch.size >= len(text)
    if not any(_says_something(character) for character in unit):
        if "\n" in unit and stretch.period >= SHORTEST_ROW:
            return fills and stretch.size >= SHORTEST_OF_ROWS
        return stretch.size >= 0.9 * len(text) or ((fills or ends) and stretch.size >= SHORTEST_OF_SIGNS)
    lines = "\n" in unit
    if fills and (ends or not lines or stretch.copies > COPIES):
        return True
    # The space or line break behind the last copy was stripped with the end of the text.
    copies, cut = divmod(stretch.size + 1, stretch.period)
    refrain = lines and cut <= 1 and copies <= LINES_OF_A_REFRAIN
    return ends and copies >= COPIES_AT_THE_END and not refrain


def _says_something(character: str) -> bool:
    """Whether it is a letter or an emoji: not a digit, nor a sign of which rules, tables and drawings are made."""
    return is_letter(character) or (unicodedata.category(character) == "So" and not 0x2500 <= ord(character) <= 0x25FF)


def _has_counted_loop(text: str, counted: str) -> bool:
    """Whether copies that differ by one number alone, which counts up by one, make a loop of `counted`: the text with
    each number as 0."""
    for stretch in _stretches(counted):
        unit = counted[stretch.start : stretch.start + stretch.period]
        letters = "".join(character for character in unit if is_letter(character))
        if (
            stretch.copies >= COPIES_WITH_COUNTER
            and len(letters.encode("utf-8", "surrogatepass")) >= LETTERS_WITH_COUNTER
            and "_" not in unit
            and not _CLOCK.search(unit)
            and (2 * stretch.size >= len(counted) or stretch.end == len(counted))
            and _counts_up(_numbers(text, counted, stretch))
        ):
            return True
    return False


def _numbers(text: str, counted: str, stretch: Stretch) -> NDArray[np.int64]:
    """The numbers in the whole copies of the stretch: one row for each copy."""
    # No digit is left in `counted` but the zeros, so the n-th zero stands for the n-th number.
    first = counted.count("0", 0, stretch.start)
    each = counted.count("0", stretch.start, stretch.start + stretch.period)
    found = _DIGITS.findall(text)[first : first + each * stretch.copies]
    return np.array([int(number[:15]) for number in found]).reshape(stretch.copies, each)


def _counts_up(numbers: NDArray[np.int64]) -> bool:
    steps = np.diff(numbers, axis=0)
    return bool((np.sum((steps == 1).all(axis=0)) == 1) and ((steps == 1) | (steps == 0)).all())
