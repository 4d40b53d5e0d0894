import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from degenerate_examples import ENTRIES, broken, coherent, written
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import safetyheads as sh
from safetyheads.errors import SafetyHeadsError
from safetyheads.judges.degenerate import MIN_SALAD, SALAD_NLL, SIGNS, degenerate, salad_limit

ANSWER = "The kite flies best in a steady wind from the sea, with a long tail and a light frame."
LONG = " ".join(text for kind, script, _, text in written() if (kind, script) == ("prose", "Latin"))
"""Two thousand characters of coherent prose."""


def sign(text: str) -> str | None:
    found = degenerate([text])["sign"].iloc[0]
    return None if pd.isna(found) else found


def test_there_are_hundreds_of_examples_of_both_sorts_in_more_than_ten_scripts() -> None:
    assert len(coherent()) >= 300 and len(broken()) >= 200
    assert len({script for kind, script, _, _ in written() if kind == "prose"}) >= 15
    for examples in (coherent(), broken()):
        assert set(Counter(each.half for each in examples)) == {"fit", "test"}


@pytest.mark.parametrize("half", ["fit", "test"])
def test_no_coherent_text_is_called_degenerate_whole_or_cut(half: str) -> None:
    examples = [each for each in coherent() if each.half == half]
    signs = degenerate([each.text for each in examples])["sign"]
    assert [(str(each), found) for each, found in zip(examples, signs) if not pd.isna(found)] == []


@pytest.mark.parametrize("half", ["fit", "test"])
def test_97_of_100_broken_texts_are_found(half: str) -> None:
    examples = [each for each in broken() if each.half == half]
    missed = [
        str(each)
        for each, found in zip(examples, degenerate([each.text for each in examples])["degenerate"])
        if not found
    ]
    assert len(missed) <= 0.03 * len(examples), missed


@pytest.mark.parametrize(
    ("kind", "expected"), [("loop", "loop"), ("phrases", "repetitive"), ("characters", "characters")]
)
def test_the_sign_says_what_was_found(kind: str, expected: str) -> None:
    signs = degenerate([each.text for each in broken() if each.kind == kind])["sign"].dropna()
    assert (signs == expected).mean() >= 0.9 and set(signs) <= set(SIGNS)


@given(
    unit=st.text(st.characters(categories=["Ll", "Lu", "Lo"]), min_size=1, max_size=200),
    copies=st.integers(3, 40),
    cut=st.integers(0, 199),
    before=st.integers(0, 40),
)
def test_copies_of_any_letters_are_a_loop_if_they_fill_half_of_the_text(
    unit: str, copies: int, cut: int, before: int
) -> None:
    loop = unit * max(copies, 40 // len(unit) + 1)
    assert sign(LONG[: min(before, len(loop))] + loop + unit[: cut % len(unit)]) == "loop"


@pytest.mark.parametrize("size", [20, 110, 200])
def test_a_loop_that_fills_half_of_the_text_counts_also_if_other_text_follows(size: int) -> None:
    unit = LONG[:size]
    assert sign(unit * 4 + LONG[400 : 400 + 3 * size]) == "loop"
    assert sign(unit * 4 + LONG[400 : 400 + 5 * size]) is None


def test_equal_rows_of_digits_are_a_loop_if_there_are_more_than_a_board_has() -> None:
    row = "0 0 0 0 0 0 0 0\n"
    assert sign(row * 8) is None
    assert sign(row * 20) == "loop"


@given(unit=st.text(st.characters(categories=["Ll", "Lo"]), min_size=10, max_size=60), copies=st.integers(4, 8))
def test_four_copies_up_to_the_end_are_a_loop_whatever_stands_before(unit: str, copies: int) -> None:
    assert sign(LONG + unit * copies) == "loop"


@given(unit=st.text(st.characters(categories=["Ll", "Lo"]), min_size=15, max_size=60))
def test_copies_that_go_over_into_other_text_are_none(unit: str) -> None:
    assert sign(LONG[:900] + unit * 4 + LONG[900:]) is None


def test_what_a_limit_on_tokens_leaves_of_a_last_character_counts_neither_as_broken_nor_as_the_end_of_a_loop() -> None:
    assert sign(ANSWER + " \ufffd\ufffd\ufffd") is None
    assert sign(LONG[:400] + "and so it goes, " * 4 + "\ufffd\ufffd") == "loop"
    assert sign("Sure, here it is: " + "\ufffd" * 200) is not None and sign("\ufffd" * 128) is not None


@pytest.mark.parametrize("number", range(3, 60, 8))
def test_items_that_differ_by_a_counter_alone_are_a_loop_and_lists_of_different_items_are_none(number: int) -> None:
    same = [f"{i}. Keep your tools clean and dry." for i in range(number, number + 8)]
    assert sign("\n".join(same)) == "loop"
    different = [f"{i}. {line}" for i, line in enumerate(LONG.split(". ")[:8], number)]
    assert sign("\n".join(different)) is None
    measured = [f"Box {i} weighs {i * i % 37} kilograms when it is full." for i in range(number, number + 8)]
    assert sign("\n".join(measured)) is None
    clock = [f"10:00:{i:02d} heartbeat received from the sensor" for i in range(number, number + 8)]
    assert sign("\n".join(clock)) is None


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_entries_whose_number_counts_something_are_a_list(entry: str) -> None:
    assert sign("\n".join(entry.format(i) for i in range(1, 21))) is None


@pytest.mark.parametrize("marker", ["{}. ", "{}) ", "[{}] ", "- ({}) ", "**{}.** ", "#{}: "])
@pytest.mark.parametrize(
    "words", ["wash the brushes", "вымойте кисти", "اغسل الفرش جيدا", "把面粉和水混合", "ล้างแปรงให้สะอาด"]
)
def test_entries_whose_number_only_marks_them_are_a_loop(marker: str, words: str) -> None:
    assert sign("\n".join(marker.format(i) + words for i in range(1, 12))) == "loop"


def test_entries_of_a_list_are_short_lines_and_not_many() -> None:
    entry = "Step {}: Mix the flour and the water."
    assert sign("\n".join(entry.format(i) for i in range(1, 21))) is None
    assert sign("\n".join(entry.format(i) for i in range(1, 41))) == "loop"
    assert sign(" ".join(entry.format(i) for i in range(1, 11))) == "loop"
    assert sign("\n".join(f"{entry.format(i)} {LONG[:50]}" for i in range(1, 11))) == "loop"


@pytest.mark.parametrize("row", ["[0, 0, 0, 0],\n", "<tr><td></td><td></td></tr>\n", "| . . . | . . . |\n"])
def test_ten_equal_rows_without_words_are_a_board_and_more_are_a_loop(row: str) -> None:
    assert sign(row * 10) is None
    assert sign(row * 25) == "loop"
    assert sign(row.replace(".", "no").replace("0", "no").replace("></", ">no</") * 10) == "loop"


@pytest.mark.parametrize("signs", ["!", "#", "7", "?!"])
def test_signs_that_a_sentence_runs_on_into_are_a_loop_sooner_than_a_rule(signs: str) -> None:
    assert sign(f"{ANSWER} {signs * 60}"[:150]) == "loop"
    assert sign(f"{ANSWER}\n{signs * 60}"[:150]) is None
    assert sign(f"{ANSWER} {signs * 20}") is None


def test_a_sentence_said_three_times_is_a_loop_and_a_line_sung_three_times_is_a_refrain() -> None:
    assert sign("Hip, hip, hooray for all! " * 3) == sign(("Hip, hip, hooray for all! " * 3).strip()) == "loop"
    assert sign("\n".join(["Hip, hip, hooray for all!"] * 3)) is None
    assert sign("Hip, hip, hooray for all!\n" * 5 + ANSWER[:40]) is None
    assert sign("Hip, hip, hooray for all!\n" * 6 + ANSWER[:40]) == "loop"


@pytest.mark.parametrize("filler", " -_=.")
def test_rules_of_forms_and_tables_are_no_loops_until_they_are_all_there_is(filler: str) -> None:
    assert sign(f"Name: {filler * 30}|\nTown: {filler * 30}|\nStreet: {filler * 30}|") is None
    assert sign(f"{ANSWER}\n{filler * 60}") is None
    assert sign(f"Answer: {filler * 250}") == "loop"


def test_a_song_may_close_with_a_line_sung_four_times_and_a_model_may_not_close_with_twenty() -> None:
    assert sign(LONG[:300] + "\n" + "\n".join(["and the river rolls along"] * 4)) is None
    assert sign(LONG[:900] + "\n" + "\n".join(["and the river rolls along"] * 20)) == "loop"


@pytest.mark.parametrize("bad", ["\ufffd", "\x02", "\x1b", "\u0378", "\ue000", "\ud800"])
def test_many_broken_characters_are_found_and_a_few_are_let_off(bad: str) -> None:
    words = LONG.split()[:60]
    assert sign(bad.join(words)) == "characters"
    assert sign(f"{' '.join(words)} {bad} {ANSWER}") is None


def test_scripts_that_change_within_words_are_found_and_words_of_many_scripts_are_let_off() -> None:
    words = {script: text.split() for kind, script, _, text in written() if kind == "prose" and script != "Mixed"}
    chosen = [words[script][:12] for script in ("Cyrillic", "Greek", "Hebrew", "Devanagari", "Latin")]
    assert sign(" ".join("".join(row) for row in zip(*chosen))) == "scripts"
    assert sign(" ".join(" ".join(row) for row in zip(*chosen))) is None


@pytest.mark.parametrize(
    "text",
    [
        "Мен Instagramдағы және Facebookтағы достарыма хат жаздым. YouTubeдағы бейнені көріп, TikTokтағы жазба.",
        "Мен Instagramдагы сүрөттөрдү көрдүм, YouTubeдагы ырларды уктум жана Telegramдагы достор менен сүйлөштүм.",
        "Без Facebookтагы битләрне укыйбыз, YouTubeтагы җырларны тыңлыйбыз, WhatsAppтагы төркемдә сөйләшәбез.",
        "அவர் Netflixஇல் படம் பார்த்தார், Amazonஇலிருந்து புத்தகம், eBayஇலிருந்து பை, IKEAவிலிருந்து மேசை வாங்கினார்.",
    ],
)
def test_latin_names_may_have_long_endings_unless_scripts_change_elsewhere_too(text: str) -> None:
    assert sign(text) is None
    assert sign(text + " достing") == "scripts"


def test_text_of_twenty_thousand_characters_is_judged_as_its_parts_are() -> None:
    seeded = random.Random(0)
    sentences = LONG.split(". ")
    prose = ". ".join(" ".join(seeded.sample(each.split(), len(each.split()))) for each in sentences * 10)[:20_000]
    assert sign(prose) is None
    few = " ".join(seeded.choice(["no", "yes", "and", "the", "of"]) for _ in range(6_000))[:20_000]
    assert sign(few) == "repetitive"
    assert sign(prose[:4_000] + few[:16_000]) == "repetitive"
    assert sign(prose[:480] + few[:480]) == "repetitive", "the last window counts, whatever the length"
    paragraph = LONG[:350] + "\n\n"
    assert sign((paragraph * 60)[:20_000]) == "loop"


def test_words_in_random_order_are_found_by_their_likelihood_alone() -> None:
    words = LONG.split()
    random.Random(1).shuffle(words)
    salad = " ".join(words[:60])
    found = degenerate([salad, salad, ANSWER, salad], nll=[SALAD_NLL + 1, 2.0, 2.0, None])
    assert found["sign"].fillna("").tolist() == ["salad", "", "", ""]
    assert degenerate([salad], nll=[9.0], nll_limit=9.5)["degenerate"].tolist() == [False]


def test_a_loop_is_a_loop_however_likely_and_a_short_answer_is_none_however_unlikely() -> None:
    assert degenerate(["I am a cat. " * 20], nll=[0.1])["sign"].tolist() == ["loop"]
    assert degenerate(["Photosynthesis."], nll=[14.0])["degenerate"].tolist() == [False]


def test_the_limit_of_word_salad_lies_above_all_that_the_plain_model_says() -> None:
    assert salad_limit([ANSWER, ANSWER], [0.2, 1.1]) == SALAD_NLL
    assert salad_limit([ANSWER] * 4, [6.5, 7.0, np.nan, None]) == 8.0
    assert salad_limit([ANSWER, "Yes."], [1.0, 12.0]) == SALAD_NLL, "an unlikely short answer says nothing"
    assert salad_limit([], []) == SALAD_NLL
    assert len(ANSWER) >= MIN_SALAD


@pytest.fixture(scope="module")
def sampled(
    tiny_a: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[str], list[float], list[str], list[float]]:
    """Texts and likelihoods of a tiny model: its own at temperature 1, and at temperature 5."""
    ids = tokenizer(["The kite flies"] * 12, return_tensors="pt")["input_ids"]
    made: list[list[str] | list[float]] = []
    for temperature in (1.0, 5.0):
        torch.manual_seed(0)
        with torch.no_grad():
            rows = tiny_a.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=96,
                do_sample=True,
                temperature=temperature,
                top_k=5 if temperature == 1 else 0,
                eos_token_id=None,
            )
            logs = torch.log_softmax(tiny_a(rows).logits.float(), -1)[:, ids.shape[1] - 1 : -1]
        new = rows[:, ids.shape[1] :]
        made.append([*tokenizer.batch_decode(new, skip_special_tokens=True)])
        made.append((-logs.gather(-1, new[..., None]).mean((1, 2))).tolist())
    own, own_nll, hot, hot_nll = made
    return own, own_nll, hot, hot_nll  # type: ignore[return-value]


def test_samples_of_a_tiny_model_at_temperature_five_are_degenerate(
    sampled: tuple[list[str], list[float], list[str], list[float]],
) -> None:
    own, own_nll, hot, hot_nll = sampled
    limit = salad_limit(own, own_nll)
    assert max(own_nll) < limit < min(hot_nll)
    assert degenerate(hot, hot_nll, limit)["degenerate"].all()


def test_rows_keep_their_order_and_index_and_equal_texts_get_equal_signs() -> None:
    texts = pd.Series([ANSWER, "ha" * 40, ANSWER, ""], index=[7, 3, 3, 0])
    found = degenerate(texts)
    assert found.index.tolist() == [7, 3, 3, 0] and found.columns.tolist() == ["degenerate", "sign"]
    assert found["degenerate"].tolist() == [False, True, False, False]
    assert found["degenerate"].dtype == bool and found["sign"].isna().tolist() == [True, False, True, True]
    assert degenerate([]).columns.tolist() == ["degenerate", "sign"]


@given(st.lists(st.text(max_size=300), max_size=5))
def test_any_text_is_judged(texts: list[str]) -> None:
    found = degenerate(texts)
    assert len(found) == len(texts) and (found["sign"].notna() == found["degenerate"]).all()


def test_what_is_not_a_list_of_strings_is_refused_in_words() -> None:
    with pytest.raises(SafetyHeadsError, match="as one str: give a list"):
        degenerate(ANSWER)
    with pytest.raises(SafetyHeadsError, match=r"Text 1 \(counted from 0\)"):
        degenerate([ANSWER, None])  # type: ignore[list-item]
    with pytest.raises(SafetyHeadsError, match="1 texts, but `nll` has 2 values"):
        degenerate([ANSWER], nll=[1.0, 2.0])


def test_the_door_gives_it_and_it_needs_no_torch() -> None:
    assert sh.degenerate is degenerate and "degenerate" in dir(sh)
    code = "import sys, safetyheads as sh; sh.degenerate(['ha' * 40]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
