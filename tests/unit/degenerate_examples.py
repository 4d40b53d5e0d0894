"""Made-up and generated texts, coherent and broken, that the detector of degenerate text is fitted and tested on.

The coherent ones are those of tests/data/coherent_texts.txt, each also cut as a limit on new tokens cuts an answer,
and tables, forms and data that are made here. The broken ones are made here: loops of pieces of the coherent prose,
few phrases in random order, broken characters, and vocabulary in random order. Each example belongs to one of two
halves by its place in its list: thresholds were fitted on the half "fit" and are reported on the half "test".
"""

import base64
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parents[1] / "data" / "coherent_texts.txt"


@dataclass(frozen=True)
class Example:
    kind: str
    name: str
    text: str
    half: str = "fit"

    def __str__(self) -> str:
        return f"{self.kind}-{self.name}"


def _halves(examples: Iterator[Example]) -> list[Example]:
    return [Example(each.kind, each.name, each.text, ("fit", "test")[place % 2]) for place, each in enumerate(examples)]


def written() -> list[tuple[str, str, str, str]]:
    """Kind, script, name and text of each example in the file."""
    parts = re.split(r"^%% (\S+) (\S+) (\S+)\n", FILE.read_text(encoding="utf-8"), flags=re.M)[1:]
    return [(parts[i], parts[i + 1], parts[i + 2], parts[i + 3].removesuffix("\n")) for i in range(0, len(parts), 4)]


def coherent() -> list[Example]:
    return [*_halves(_whole()), *_halves(_cut()), *_halves(_made()), *_halves(_lists()), *_halves(_boards())]


def broken() -> list[Example]:
    return [*_halves(_loops()), *_halves(_phrases()), *_halves(_broken_characters()), *_halves(_ends())]


def _whole() -> Iterator[Example]:
    for kind, _, name, text in written():
        yield Example(kind, name, text)


def _cut() -> Iterator[Example]:
    """Each text cut somewhere after its first third, within a word, a row or a rule."""
    places = random.Random(1)
    for kind, _, name, text in written():
        if len(text) > 30:
            yield Example(kind, f"{name}_cut", text[: places.randint(len(text) // 3, len(text) - 1)])


def _made() -> Iterator[Example]:
    seeded = random.Random(2)
    words = [
        word for kind, script, _, text in written() if (kind, script) == ("prose", "Latin") for word in text.split()
    ]
    names = [word.strip(".,").lower() for word in words if len(word) > 4]
    for number in (2, 3, 7, 9, 12):
        for sign, size in (("x", 10), ("*", 12), ("×", 20)):
            rows = [f"{number} {sign} {i} = {number * i}" for i in range(1, size + 1)]
            yield Example("table", f"times_{number}_{size}", "\n".join(rows))
        yield Example("table", f"sums_{number}", ", ".join(f"{i} + {number} = {i + number}" for i in range(1, 25)))
    for yes, no in (("True", "False"), ("yes", "no"), ("✓", "✗")):
        rows = [" | ".join(yes if row >> bit & 1 else no for bit in (3, 2, 1, 0)) for row in range(16)]
        yield Example("table", f"truth_{yes}", "| A | B | C | D |\n|---|---|---|---|\n| " + " |\n| ".join(rows) + " |")
    grid = "\n".join(" ".join(f"{i * j:3d}" for j in range(1, 11)) for i in range(1, 11))
    yield Example("table", "times_grid", grid)
    for name, numbers in {
        "counting": range(1, 60),
        "evens": range(2, 120, 2),
        "tens": range(10, 800, 10),
        "squares": [i * i for i in range(1, 40)],
        "powers": [2**i for i in range(30)],
        "backwards": range(50, 0, -1),
        "coins": [seeded.randint(0, 1) for _ in range(80)],
        "dice": [seeded.randint(1, 6) for _ in range(90)],
        "percent": [seeded.randint(0, 100) for _ in range(60)],
    }.items():
        for separator in (", ", " ", "\n"):
            yield Example("numbers", f"{name}_{separator!r}", separator.join(map(str, numbers)))
    for rows in (3, 8, 15):
        people = [
            {"id": i, "name": seeded.choice(names), "age": seeded.randint(18, 90), "member": seeded.random() < 0.5}
            for i in range(rows)
        ]
        yield Example("data", f"json_{rows}", json.dumps(people))
        yield Example("data", f"json_indented_{rows}", json.dumps(people, indent=2))
        yield Example("data", f"csv_{rows}", "\n".join(",".join(map(str, each.values())) for each in people))
        table = "\n".join(f"| {p['id']} | {p['name']:12} | {p['age']} |" for p in people)
        yield Example("table", f"markdown_{rows}", f"| id | name | age |\n|----|--------------|-----|\n{table}")
        page = "".join(f"<tr><td>{p['id']}</td><td>{p['name']}</td><td>{p['age']}</td></tr>\n" for p in people)
        yield Example("code", f"html_{rows}", f"<table>\n{page}</table>")
        yield Example("code", f"calls_{rows}", "\n".join(f'add("{p["name"]}", {p["age"]})' for p in people))
        log = "\n".join(f"2020-05-{p['id'] + 1:02d} INFO user {p['name']} logged in" for p in people)
        yield Example("data", f"log_{rows}", log)
        yield Example("list", f"names_{rows}", "\n".join(f"{p['id'] + 1}. {p['name'].title()}" for p in people))
        form = "\n".join(f"{p['name'].title()}: {'_' * 30}" for p in people)
        yield Example("form", f"fields_{rows}", form)
        contents = "\n".join(f"{p['name'].title():.<40} {p['age']}" for p in people)
        yield Example("form", f"contents_{rows}", contents)
        yield Example("data", f"base64_{rows}", base64.b64encode(seeded.randbytes(20 * rows)).decode())
        yield Example("data", f"hex_{rows}", seeded.randbytes(15 * rows).hex())
        songs = "\n".join(f"{seeded.choice(names).title()} {seeded.choice(names)}, la la la," for _ in range(rows))
        yield Example("song", f"la_la_{rows}", songs)
        verses = "\n".join(f"Oh, the {p['name']} on the hill,\nsing along, sing along!" for p in people)
        yield Example("song", f"refrain_{rows}", verses)
        yield Example("list", f"like_{rows}", " ".join(f"I like {p['name']}." for p in people))
    prose = [text for kind, _, _, text in written() if kind in ("prose", "story", "legal", "recipe")]
    yield Example("prose", "twenty_thousand", "\n\n".join(seeded.sample(words, len(words)).__str__() for _ in range(6)))
    for script in sorted({script for _, script, _, _ in written()}):
        own = [text for kind, each, _, text in written() if kind == "prose" and each == script]
        if own:
            yield Example("prose", f"repeated_word_{script}", f"{own[0]} {own[0][:9]} {own[0][:9]} {own[-1]}")
    yield Example("prose", "long", "\n\n".join(prose))


ENTRIES = {
    "English": "Week {}: Walk 30 minutes every day",
    "knitting": "Row {}: K2, P2, repeat to end of row.",
    "boxes": "- [ ] Day {}: drink two litres of water",
    "rooms": "Room 1{:02d}: available",
    "links": '  <li><a href="#">Link {}</a></li>',
    "meadow": "{} men went to mow, went to mow a meadow.",
    "addresses": "https://example.org/lesson/{}",
    "German": "Woche {}: dreimal pro Woche schwimmen gehen",
    "Spanish": "- **Semana {}:** regar las plantas cada dos días",
    "Polish": "* Tydzień {} – trzy spacery i jeden trening",
    "Indonesian": "Hari ke-{}: jalan pagi tiga puluh menit",
    "Russian": "День {}: зарядка и прогулка",
    "Greek": "Ημέρα {}: περπάτημα για μισή ώρα",
    "Armenian": "Օր {}. կես ժամ քայլել այգում",
    "Georgian": "დღე {}: ნახევარი საათი სეირნობა",
    "Arabic": "اليوم {}: المشي نصف ساعة",
    "Hebrew": "יום {}: הליכה של חצי שעה",
    "Hindi": "दिन {}: सुबह आधा घंटा टहलें",
    "Tamil": "நாள் {}: காலையில் நடைப்பயிற்சி",
    "Amharic": "ቀን {}: ግማሽ ሰዓት መራመድ",
    "Thai": "วันที่ {}: เดินสามสิบนาที",
    "Chinese": "第{}天：跑步三十分钟",
    "Japanese": "{}日目：朝に三十分歩く",
    "Korean": "{}일차: 아침에 삼십 분 걷기",
}
"""Entries of lists that differ by a number alone, which counts something."""


def _lists() -> Iterator[Example]:
    seeded = random.Random(6)
    for name, entry in ENTRIES.items():
        rows = "\n".join(entry.format(i) for i in range(1, seeded.randint(8, 21)))
        yield Example("list", f"entries_{name}", rows)
        yield Example("list", f"entries_{name}_framed", f"Sure, here it is:\n\n{rows}\n\nIs there more to do?")
        yield Example("list", f"entries_{name}_cut", rows[: seeded.randint(len(rows) // 3, len(rows) - 1)])
    bottles = "\n".join(f"{i} green bottles hanging on the wall" for i in range(10, 0, -1))
    yield Example("song", "bottles", bottles)
    mantra = "Hare Krishna Hare Krishna\nKrishna Krishna Hare Hare\nHare Rama Hare Rama\nRama Rama Hare Hare\n"
    yield Example("song", "mantra", mantra * 2)
    talk = "A: Are we there yet?\nB: No.\n" * 4
    yield Example("story", "talk", f"{talk}A: And now?\nB: Yes, we are here.")


def _boards() -> Iterator[Example]:
    for rows in (5, 8, 10):
        for name, before, row, after in (
            ("matrix", "grid = [\n", "    [0, 0, 0, 0, 0, 0, 0, 0],\n", "]"),
            ("rows", "<table>\n", "  <tr><td></td><td></td><td></td></tr>\n", "</table>"),
            ("cells", "<div>\n", '  <div class="cell"><p></p></div>\n', "</div>"),
            ("board", "Here is the empty grid:\n\n", "| . . . | . . . | . . . |\n", ""),
        ):
            yield Example("table", f"{name}_{rows}", before + row * rows + after)


def _ends() -> Iterator[Example]:
    """Signs that a sentence runs on into, and a sentence said three times, without a space behind."""
    sentence = "The weather in the valley is mild and the farmers bring in the hay before the rain comes over."
    for unit in ("!", "?!", "1", " 0", ", ", "；", "…", "؟"):
        yield Example("loop", f"runs_on_{unit}", f"{sentence} {unit * (60 // len(unit))}")
    for name, said in {
        "English": "The fence is painted in two coats. ",
        "Russian": "Забор красят в два слоя. ",
        "Arabic": "يطلى السياج بطبقتين من الطلاء. ",
        "Hindi": "बाड़ पर दो बार रंग चढ़ता है। ",
        "Greek": "Ο φράχτης βάφεται δύο φορές. ",
    }.items():
        yield Example("loop", f"three_times_{name}", said * 3)


_UNITS = (1, 2, 3, 4, 5, 7, 9, 12, 16, 22, 30, 41, 60, 90, 130, 200)


def _loops() -> Iterator[Example]:
    seeded = random.Random(3)
    prose = {(script, name): text for kind, script, name, text in written() if kind == "prose" and script != "Mixed"}
    joined: dict[str, str] = {}
    for (script, _), text in prose.items():
        joined[script] = joined.get(script, "") + text + " "
    for script, text in joined.items():
        text = text * (1 + 700 // len(text))
        for size in seeded.sample(_UNITS, 8):
            start = text.find(" ") + 1 if script not in ("Han", "Japanese", "Thai", "Khmer") else seeded.randint(0, 20)
            unit = text[start : start + size].strip() + seeded.choice([" ", "\n", "", "\n\n"])
            copies = max(3, seeded.randint(45, 400) // len(unit) + 1)
            length = len(unit) * copies + seeded.randint(0, len(unit))
            loop = (unit * (copies + 2))[: max(length, 42)]
            before = text[300 : 300 + seeded.choice([0, 0, 5, 20, len(loop) // 2])]
            yield Example("loop", f"{script}_{size}", before + loop)
        unit = text[20 : 20 + seeded.randint(8, 30)] + " "
        yield Example("loop", f"{script}_at_the_end", text[40:440] + unit * 6)
        other = text[60 : 60 + seeded.randint(8, 30)] + "\n"
        yield Example("loop", f"{script}_alternating", (unit + other) * 5 + unit[:4])
        item = text[20 : 20 + seeded.randint(15, 40)].replace("\n", " ")
        yield Example("loop", f"{script}_counter", "\n".join(f"{i}. {item}" for i in range(1, 10)))
        yield Example("loop", f"{script}_counter_in_line", " ".join(f"{i}) {item}" for i in range(3, 11)))
    for unit in ("!", "?", ".", "-", "_", "=", " .", "()", "0", "12", "<br>", "\\n", "| ", "#", "🎉", "…", "。", "1, "):
        yield Example("loop", f"signs_{unit}", unit * (256 // len(unit)))


def _phrases() -> Iterator[Example]:
    """Few words or phrases in random order, as a model does that lost everything but its likeliest tokens."""
    seeded = random.Random(4)
    stock = {
        "English": ["no ", "yes ", "the ", "of the ", "and ", "I will ", "not "],
        "sentences": ["I cannot do that. ", "I will do it. ", "Yes. ", "It is good. "],
        "Cyrillic": ["и ", "нет ", "да ", "что "],
        "Han": ["我们", "可以", "的", "是"],
        "Thai": ["ครับ", "นะ", "ค่ะ"],
        "Hangul": ["그리고 ", "저는 ", "그 "],
        "Arabic": ["في ", "من ", "على "],
        "Greek": ["και ", "το ", "να "],
        "Hebrew": ["לא ", "כן ", "אני "],
        "Devanagari": ["है ", "और ", "का "],
        "Japanese": ["です", "ます", "の", "は"],
        "German": ["und ", "die ", "der ", "ein ", "nicht "],
    }
    for name, phrases in stock.items():
        for size in (250, 350, 500):
            text = ""
            while len(text) < size:
                text += seeded.choice(phrases)
            yield Example("phrases", f"{name}_{size}", text)


def _broken_characters() -> Iterator[Example]:
    seeded = random.Random(5)
    for size in (40, 80, 160, 300):
        yield Example("characters", f"bytes_{size}", seeded.randbytes(size).decode("utf-8", "replace"))
        noise = [chr(seeded.choice([0xFFFD, 0x02, 0x1B, 0x378, 0xE000, 0x41, 0x20])) for _ in range(size)]
        yield Example("characters", f"noise_{size}", "".join(noise))
        halves = [seeded.choice(["the ", "�", "a�� ", "ro", "\x0b", "wa "]) for _ in range(size // 2)]
        yield Example("characters", f"half_words_{size}", "".join(halves))
