"""Which models can be measured.

They are decoders with one stack of layers, all of which attend through the attention interface of transformers: that
is where heads are ablated.
"""

import sys
from typing import TYPE_CHECKING, NoReturn

from safetyheads.errors import SafetyHeadsError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

SUPPORTED = (
    "Supported are decoders whose layers all attend through the attention interface of transformers: Llama, Mistral, "
    "Mixtral, Qwen2, Qwen3, Gemma 1-3, Phi, Phi-3, GPT-NeoX, GPT-2, OPT, OLMo, Granite, StarCoder2, StableLM, Cohere, "
    "SmolLM3, GLM-4, GPT-OSS, DeepSeek-V3 and many others."
)


def refuse(what: str, config: "PreTrainedConfig") -> NoReturn:
    """Raise SafetyHeadsError for what transformers does not load as a decoder alone; `what` begins the message."""
    if getattr(config, "is_encoder_decoder", False):
        raise SafetyHeadsError(f"{what} has an encoder besides its decoder. {SUPPORTED}")
    text = (
        " Its text decoder may be one of them: save that alone as a folder, and name it with `path:`."
        if "text_config" in config.sub_configs
        else ""
    )
    raise SafetyHeadsError(f"{what} is not a decoder that generates text left to right. {SUPPORTED}{text}")


def check_family(class_: "type[PreTrainedModel]", config: "PreTrainedConfig", what: str) -> None:
    """Raise SafetyHeadsError for a class of models whose heads cannot be ablated; `what` begins the message.

    This looks at the class and the configuration alone. Whether all layers come to the interface can only be seen when
    the model runs: `decoder.decoder` does.
    """
    if getattr(config, "is_encoder_decoder", False):
        refuse(what, config)
    interface = getattr(sys.modules[class_.__module__], "ALL_ATTENTION_FUNCTIONS", None)
    if interface is None and not class_._supports_attention_backend:
        raise SafetyHeadsError(
            f"{what} does not use the attention interface of transformers, so its heads cannot be ablated. {SUPPORTED}"
        )
    kinds = set(getattr(config.get_text_config(decoder=True), "layer_types", None) or [])
    headless = sorted(kind for kind in kinds if kind == "linear_attention" or not kind.endswith("attention"))
    if headless:
        raise SafetyHeadsError(
            f"{what} has layers of kind {', '.join(headless)}, which have no attention heads to ablate. {SUPPORTED}"
        )
