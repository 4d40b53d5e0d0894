"""Characters that no coherent text holds in numbers, and scripts that no language mixes within a word.

Both go by the Unicode database of Python, so they know every script; what is unassigned depends on its version.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise

_SCRIPTS = frozenset(
    {"ARABIC", "ARMENIAN", "BENGALI", "CHEROKEE", "CYRILLIC", "DEVANAGARI", "ETHIOPIC", "GEORGIAN", "GREEK", "GUJARATI"}
    | {
        "GURMUKHI",
        "HEBREW",
        "KANNADA",
        "KHMER",
        "LAO",
        "LATIN",
        "MALAYALAM",
        "MONGOLIAN",
        "MYANMAR",
        "ORIYA",
        "SINHALA",
    }
    | {"SYRIAC", "TAMIL", "TELUGU", "THAANA", "THAI", "TIBETAN"}
)
"""First words of the Unicode names of letters."""

_EAST_ASIAN = frozenset({"BOPOMOFO", "CJK", "HANGUL", "HIRAGANA", "IDEOGRAPHIC", "KATAKANA", "KATAKANA-HIRAGANA"})
"""One class: Chinese, Japanese and Korean words mix these."""

_WITHOUT_SPACES = frozenset({"EAST ASIAN", "KHMER", "LAO", "MYANMAR", "THAI", "TIBETAN"})
"""Scripts that stand next to Latin words without a space, or that add their endings to them."""

AFFIX = 3
"""Letters of the longest prefix or ending that languages put on Latin words: Semitic articles, Slavic cases."""

ENDING = 12
"""Letters and vowel signs of the longest ending that languages such as Kazakh and Tamil write on Latin names. They are
let off if nothing else changes within the words of the text: among tokens in random order, Latin ones end words, too.
"""

MAIN_SCRIPT = 1 / 3
"""Share of the letters of a text that its own script, if not Latin, has at least. In tokens in random order from a
vocabulary of many languages, none but Latin has as much."""

GREEK_IN_FORMULAS = 2
"""Greek letters that stand next to Latin ones in formulas and units."""

_PLANES_OF_EMOJI = range(0x1F000, 0x1FB00)
"""New emoji are assigned here each year, so models know some that this Python does not."""


@dataclass
class _Run:
    """Letters of one script that follow each other within a word."""

    script: str
    size: int


@lru_cache(maxsize=65536)
def is_letter(character: str) -> bool:
    """Whether it is a letter or the mark of one (vowel signs, accents)."""
    return unicodedata.category(character)[0] in "LM"


@lru_cache(maxsize=65536)
def _is_bad(character: str) -> bool:
    if character in "\t\n\r\f" or ord(character) in _PLANES_OF_EMOJI:
        return False
    return character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs")


@lru_cache(maxsize=65536)
def _script(character: str) -> str | None:
    """The script of a letter; None for marks that all scripts share, mathematical letters and other characters."""
    script = unicodedata.name(character, "").partition(" ")[0]
    if script in _EAST_ASIAN:
        return "EAST ASIAN"
    return script if script in _SCRIPTS else None


def letters(text: str) -> int:
    """How many characters of the text are letters or marks of letters."""
    return sum(map(is_letter, text))


def bad_characters(text: str) -> int:
    """How many are replacement, control, private or unassigned characters or halves of surrogate pairs."""
    return sum(map(_is_bad, text))


def script_changes(text: str) -> int:
    """How often letters of two scripts follow each other within a word, other than where languages do so.

    They do with Chinese, Japanese and Korean characters among themselves; with Latin words in a text without spaces;
    with short prefixes and endings on Latin words; with one or two Greek letters in a formula (πr, kΩ); and, in a text
    that has no other changes, with longer endings on Latin words, in the script of the text.
    """
    if text.isascii():
        return 0
    words = list(_words(text))
    sizes: Counter[str] = Counter()
    for run in chain.from_iterable(words):
        sizes[run.script] += run.size
    main = {script for script, size in sizes.items() if size >= MAIN_SCRIPT * sizes.total()}
    found = [_changes(word, main) for word in words]
    changes, endings = (sum(each[kind] for each in found) for kind in (0, 1))
    return changes + endings if changes else 0


def _words(text: str) -> Iterator[list[_Run]]:
    """The runs of each word."""
    word: list[_Run] = []
    for character in [*text, " "]:
        if not is_letter(character):
            if word:
                yield word
            word = []
        elif word and (_script(character) or word[-1].script) == word[-1].script:
            word[-1].size += 1
        elif script := _script(character):
            word.append(_Run(script, 1))


def _changes(word: list[_Run], main: set[str]) -> tuple[int, int]:
    """Changes of script that languages do not have, and those before a long ending in a main script."""
    changes = sum(
        not _go_together(one, other, affix=one_at == 0 or one_at == len(word) - 2)
        for one_at, (one, other) in enumerate(pairwise(word))
    )
    ending = len(word) == 2 and word[0].script == "LATIN" and word[1].script in main and word[1].size <= ENDING
    return (0, changes) if ending else (changes, 0)


def _go_together(one: _Run, other: _Run, affix: bool) -> bool:
    """Whether languages write a run of letters of one script right behind one of another."""
    if "LATIN" not in (one.script, other.script):
        return False
    foreign = other if one.script == "LATIN" else one
    if foreign.script == "GREEK":
        return foreign.size <= GREEK_IN_FORMULAS
    return foreign.script in _WITHOUT_SPACES or (affix and foreign.size <= AFFIX)
