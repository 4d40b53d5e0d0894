"""Choose the implementation of attention that a model runs with.

There are three: PyTorch's (`sdpa`), the one in the code of the model's family (`eager`), and the package flash-attn
(`flash_attention_2`). They compute the same function, but round differently and differ in speed.
"""

from typing import TYPE_CHECKING

from safetyheads.errors import SafetyHeadsError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

FLASH = "flash_attention_2"


def implementation(
    class_: "type[PreTrainedModel]", config: "PreTrainedConfig", wanted: str, *, device: str, dtype: str
) -> str:
    """The implementation that `wanted`, the configuration's `attention`, stands for.

    `wanted` is `auto`, `sdpa`, `eager` or `flash_attention_2`. `auto` is sdpa where sdpa can compute what the model
    needs. It is eager for models that soft-cap their attention scores, and for families that sdpa does not support,
    such as those with attention sinks. `device` is `cpu` or `cuda`, `dtype` the name of a number format such as
    `bfloat16`. Raises SafetyHeadsError if `wanted` is not possible for this model, device or dtype.
    """
    capped = getattr(config.get_text_config(decoder=True), "attn_logit_softcapping", None) is not None
    has_sdpa = class_._supports_sdpa and not capped
    if wanted == "auto":
        return "sdpa" if has_sdpa else "eager"
    if wanted == "sdpa" and not has_sdpa:
        why = "caps its attention scores" if capped else "computes more than sdpa can"
        raise SafetyHeadsError(f"`attention: sdpa`: {class_.__name__} {why}. Set auto or eager.")
    if wanted == FLASH:
        _check_flash(class_, device, dtype)
    return wanted


def _check_flash(class_: "type[PreTrainedModel]", device: str, dtype: str) -> None:
    from transformers.utils.import_utils import is_flash_attn_2_available

    versions = class_._compatible_flash_implementations
    reasons = {
        f"{class_.__name__} does not support it": not class_._supports_flash_attn
        or (versions is not None and FLASH not in versions),
        f"it needs a GPU, and the model is on {device}": device != "cuda",
        f"it computes in 16 bits, and the model's dtype is {dtype}": dtype not in ("bfloat16", "float16"),
        "the package flash-attn is not installed": not is_flash_attn_2_available(),
    }
    if found := [reason for reason, holds in reasons.items() if holds]:
        raise SafetyHeadsError(
            f"`attention: {FLASH}` cannot be had: {'; '.join(found)}. Set `attention: auto`, or see to it "
            "(`pip install flash-attn`, `dtype: bfloat16`, `device: cuda`)."
        )
