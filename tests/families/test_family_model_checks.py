"""Every family passes the checks of the loaded model in float32, and none is stopped in 16 bits."""

import pytest
import torch
from members import build
from registry import FAMILIES, SIZE, Family

from safetyheads.engine.ablation import install
from safetyheads.engine.model_checks import check_model

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@every_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_family_passes_the_checks(family: Family, dtype: torch.dtype) -> None:
    results = check_model(install(build(family).to(dtype)), range(3, SIZE["vocab_size"]))
    assert len(results) == 5
    allowed = {"passed"} if dtype is torch.float32 else {"passed", "warned"}
    assert {one.result for one in results} - allowed == ({"not applicable"} if family.eager else set())
    assert (results[3].result == "not applicable") == family.eager
