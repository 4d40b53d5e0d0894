"""Which tensors a model's files hold, and whether each of them has its place in the model.

transformers leaves out what it finds no place for, and says so in a log that nobody reads: the scales of 8-bit weights,
the layers beyond those that config.json counts, an adapter that was never merged. The model then computes with other
weights than its own. Here every tensor is accounted for, by its name, its shape and its number format. The files' own
headers say them, so that this takes a second, however large the model is.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetyheads.errors import SafetyHeadsError
from safetyheads.models.files import INDEX, read_json, weight_files

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


class Stored(NamedTuple):
    """A tensor as it is stored: in which file, in which number format (as safetensors calls it), and its shape."""

    file: str
    dtype: str
    shape: tuple[int, ...]


Header = Mapping[str, Mapping[str, Any]]
"""What a safetensors file says of its tensors: by name, `dtype` and `shape`."""

_FLOATS = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_QUANTISED = re.compile(
    r"(^|[._])(scales?|scale_inv|scale_\d|zero_points?|packed|blocks|g_idx|qweight|qzeros|qscales?|biases|SCB|CB"
    r"|weight_format|absmax|(nested_)?(absmax|quant_map)|quant_state\S*|weight\._data)$"
)
"""Names of what stands beside quantised weights: of compressed-tensors, ModelOpt, DeepSeek, GPTQ, AWQ, bitsandbytes,
MLX, Quanto and MXFP4."""
_CHOOSE = "Choose the repository or folder with weights of 16 bits or more."
_UNNEEDED = re.compile(
    r"(^|\.)rot(ary)?_?(pos_)?emb\w*\.|(^|\.)(inv_freq|freqs_cis|cos_cached|sin_cached|position_ids|rope\.freqs)$"
    r"|(attn|attention)\.(masked_)?bias$|(^|\.)mtp\w*\."
)
"""Names of what a model makes itself (rotary frequencies, positions, masks), and of layers that predict more tokens."""
_OTHER_SENSES = re.compile(
    r"(^|\.)\w*(vision|visual|image|audio|speech|video|multi_?modal|mm_|patch_embed)\w*\.|"
    r"(^|\.)(\w*projector|\w*connector|resampler|perceiver|aligner|merger|qformer)\."
)
"""Names of what a model of text, pictures and sound has besides its text decoder."""


def stored(folder: Path) -> dict[str, Stored]:
    """Every tensor in the files of the weights of the model in `folder`, by name.

    Raises SafetyHeadsError if a tensor is in two files, and if the index says another file than the one that has it.
    """
    names = weight_files(folder)
    headers = {name: read_header(folder / name) for name in names if name != INDEX}
    index = read_json(folder / INDEX)["weight_map"] if INDEX in names else None
    return by_name(f"The model folder {folder}", headers, index)


def by_name(where: str, headers: Mapping[str, Header], index: Mapping[str, str] | None) -> dict[str, Stored]:
    """The tensors of several files by name. `index` names the file of each, if there is an index.

    Raises SafetyHeadsError as `stored` does. `where` begins the messages.
    """
    found: dict[str, Stored] = {}
    for file in sorted(headers):
        for name, entry in headers[file].items():
            if name in found:
                said = f"{INDEX} says {index[name]}" if index and name in index else f"{INDEX} names neither"
                raise SafetyHeadsError(
                    f"{where} has the tensor {name!r} twice, in {found[name].file} and in {file}; {said}. Delete the "
                    "one that does not count: a loader may take either."
                )
            found[name] = Stored(file, entry["dtype"], tuple(entry["shape"]))
    if index is not None:
        wrong = sorted(name for name in index if name not in found or found[name].file != index[name])
        if wrong:
            there = f"is in {found[wrong[0]].file}" if wrong[0] in found else "is in none of the files"
            raise SafetyHeadsError(
                f"{where}: {INDEX} says that {wrong[0]!r} is in {index[wrong[0]]}, but it {there}"
                f"{_more(wrong)}. The index belongs to other files: copy it and the weights from one place."
            )
        if unnamed := sorted(name for name in found if name not in index and not _UNNEEDED.search(name)):
            raise SafetyHeadsError(
                f"{where}: {found[unnamed[0]].file} has the tensor {unnamed[0]!r}, which {INDEX} does not name"
                f"{_more(unnamed)}. The index belongs to other files: copy it and the weights from one place."
            )
    return found


def read_header(path: Path) -> Header:
    """What a safetensors file says of its tensors. Nothing else of the file is read."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries: dict[str, Mapping[str, Any]] = json.loads(file.read(length))
    return {name: entry for name, entry in entries.items() if name != "__metadata__"}


def check_tensors(
    where: str,
    tensors: Mapping[str, Stored],
    config: "PreTrainedConfig",
    class_: "type[PreTrainedModel]",
    *,
    senses: bool = False,
) -> None:
    """Raise SafetyHeadsError unless each tensor has its place in a model of `class_`, as 16 to 64 bit floats.

    transformers itself puts them into place, on torch's device `meta`, where tensors have a shape and no numbers: its
    own renaming counts. `senses` is true if `config` is the part of a model that also sees or hears. `where` begins the
    messages, such as "The model folder x".
    """
    import torch

    from safetyheads.models.quiet import quiet

    state = {
        name: torch.empty(tensor.shape, dtype=getattr(torch, _FLOATS.get(tensor.dtype, "int64")), device="meta")
        for name, tensor in tensors.items()
    }
    with quiet():
        result: Any = class_.from_pretrained(
            None,
            config=config,
            state_dict=state,
            device_map={"": "meta"},
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    check_loaded(where, result[0], result[1], tensors, senses=senses)


def check_loaded(
    where: str, model: "PreTrainedModel", report: Mapping[str, Any], tensors: Mapping[str, Stored], *, senses: bool
) -> None:
    """Raise SafetyHeadsError if weights were missing, of another shape, quantised or left out when `model` was loaded.

    `report` is what transformers returns of loading.
    """
    left_out = sorted(name for name in report["unexpected_keys"] if not _is_unneeded(name, model.config, senses))
    check_names(where, left_out)
    whole = {name for name, value in model.state_dict().items() if not value.is_floating_point()}
    for name in sorted(set(tensors) - set(report["unexpected_keys"]) - whole):
        if tensors[name].dtype not in _FLOATS:
            raise SafetyHeadsError(
                f"{where} has {name!r} as {tensors[name].dtype} numbers, which are quantised: they mean nothing "
                f"without the rule by which they were made. {_CHOOSE}"
            )
    lost = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if lost or report["error_msgs"]:
        raise SafetyHeadsError(
            f"{where}: the weights do not fill the model that its config.json describes: {len(lost)} parameters are "
            f"missing or of another shape ({', '.join(lost[:5])}{', ...' if len(lost) > 5 else ''}). They would be "
            "random numbers. Check that config.json belongs to these weights."
        )
    if left_out:
        raise SafetyHeadsError(
            f"{where} has the tensor {left_out[0]!r}{_more(left_out)}, for which the model that its config.json "
            "describes has no place. It would be left out, and the model would be another one. Check that config.json "
            "belongs to these weights; merge adapters; delete what does not belong to the model."
        )


def check_index(where: str, names: Iterable[str], config: "PreTrainedConfig", class_: "type[PreTrainedModel]") -> None:
    """Raise SafetyHeadsError if the index of a model's weights names scales of quantised weights among its tensors."""
    import torch

    with torch.device("meta"):
        check_names(where, set(names) - class_(config).state_dict().keys())


def check_names(where: str, names: Iterable[str]) -> None:
    """Raise SafetyHeadsError if one of these tensors, which a model has no place for, is the scale of another."""
    if scales := sorted(name for name in names if _QUANTISED.search(name)):
        raise SafetyHeadsError(
            f"{where} has {scales[0]!r}{_more(scales)}, which stands beside weights that are quantised: without it "
            f"they are other weights than the model's own. {_CHOOSE}"
        )


def _is_unneeded(name: str, config: "PreTrainedConfig", senses: bool) -> bool:
    """Whether a tensor that finds no place is known not to be needed."""
    if _UNNEEDED.search(name) or (senses and _OTHER_SENSES.search(name)):
        return True
    further = getattr(config, "num_nextn_predict_layers", None) or 0  # layers that predict further tokens, behind all
    layer = re.search(r"(?:^|\.)layers\.(\d+)\.", name)
    return bool(layer and 0 <= int(layer[1]) - config.num_hidden_layers < further)


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
