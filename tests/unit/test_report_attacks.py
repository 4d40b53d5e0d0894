"""What the page says of attack templates: whether they are attacks at all, on rows made up by hand."""

import pandas as pd

from safetyheads.report.attacks import of_plain, plain_words

KEYS = {"plan": "none", "decoding": "greedy", "judge": "paper"}


def plain(clean: tuple[float, float], attack: tuple[float, float]) -> list[pd.Series]:
    both = (("simple", clean), ("play", attack))
    rows = [KEYS | {"template": name, "coherent_asr": asr, "degenerate": broken} for name, (asr, broken) in both]
    rows.append(rows[0] | {"plan": "top-1", "coherent_asr": 0.9})
    return of_plain(pd.DataFrame(rows), "simple", "play")


def test_rates_are_those_of_the_plain_model_by_one_judge_under_both_templates() -> None:
    assert [row["coherent_asr"] for row in plain((0.1, 0), (0.75, 0))] == [0.1, 0.75]
    assert of_plain(pd.DataFrame(), "simple", "play") == []
    other = pd.DataFrame([KEYS | {"template": "simple"}, KEYS | {"template": "play", "judge": "gcg"}])
    assert of_plain(other, "simple", "play") == []


def test_an_attack_that_works_is_told_by_its_numbers() -> None:
    words = plain_words([{"p_harmful": 0.94}, {"p_harmful": 0.021}], plain((0.1, 0), (0.75, 0)))
    assert words == (
        " Without and with the attack the plain model begins with a refusal with probability 0.94 and 0.021, answers "
        "10\u00a0% and 75\u00a0%, breaks its text in 0\u00a0% and 0\u00a0%."
    )


def test_templates_that_break_text_or_free_nothing_are_no_attacks() -> None:
    assert "breaks text" in plain_words([None, None], plain((0.0, 0.0), (0.75, 0.5)))
    assert "hardly frees an answer" in plain_words([{}, {"p_harmful": 0.1}], plain((0.5, 0.0), (0.55, 0.05)))
    assert plain_words([None, None], []) == ""
