"""The table of methods says what their modules do."""

import pytest

from safetyheads.attribution import knockouts, mask
from safetyheads.config.attribution import Attribution
from safetyheads.methods import MASK_ROWS, MASK_STEPS, METHODS, masks_of

SETTINGS = Attribution().plain()


def test_estimates_go_by_the_numbers_of_the_modules() -> None:
    assert (MASK_STEPS, MASK_ROWS) == (mask.STEPS, mask.ROWS)
    for heads in (4, 32, 100, 200, 1024):
        assert masks_of(SETTINGS, heads) == knockouts.number_of_masks(heads)
    few = Attribution.model_validate({"knockouts": {"masks": 100}}).plain()
    assert masks_of(few, 1024) == 100


def test_a_hundred_masks_are_a_tenth_of_a_sweep_over_a_thousand_heads() -> None:
    few = Attribution.model_validate({"knockouts": {"masks": 100}}).plain()
    passes = METHODS["knockouts"].passes(few, 1024, 60)
    sweep = METHODS["ships"].sweeps(few) * 1024 * 60
    assert passes == 100 * 60 and passes < sweep / 10


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_settings_of_its_own_line_and_no_others(name: str) -> None:
    method, found = METHODS[name], Attribution().of(name)
    own = set(SETTINGS.get(name, {})) | set(method.shared)
    assert set(found) == own | ({"openings"} if method.by_first_token else set())
    assert method.sweeps(SETTINGS) + method.passes(SETTINGS, 32, 10) > 0
