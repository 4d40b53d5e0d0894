"""Which tensors a model's files hold, and whether each of them has its place in the model.

transformers leaves out what it finds no place for, and says so in a log that nobody reads: the scales of 8-bit weights,
the layers beyond those that config.json counts, an adapter that was never merged. The model then computes with other
weights than its own. Here every tensor is accounted for, by its name, its shape and its number format. The files' own
headers say them, so that this takes a second, however large the model is.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetyheads.errors import SafetyHeadsError
from safetyheads.models.files import INDEX, read_index, weight_files

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
    r"(^|[._:])(w?scales?|scale_inv|scale_\d|scale_weight|zero_points?|packed|blocks|g_idx|qweight|qzeros|qscales?|biases"
    r"|SCB|CB|weight_(format|shape|offset|_data)|input_offset|absmax|(nested_)?(absmax|quant_map)|quant_state\S*|_?amax"
    r"|weight\._data|qdata|W_q|Qidxs|codebooks?|codes|trellis|su|sv|suh|svh|SU|SV|q_(weight|scale\w*|perm|invperm|groups)"
    r"|qscale_(weight|act)|s_(channel|group)|quant_bias|oweight)$"
)
"""Names of what stands beside quantised weights: of compressed-tensors, ModelOpt, DeepSeek, GPTQ, AWQ, bitsandbytes,
MLX, Quanto, MXFP4, torchao, HQQ, AQLM, QuIP, EXL2, EXL3, Marlin and Mistral."""
_CHOOSE = "Choose the repository or folder with weights of 16 bits or more."
_UNNEEDED = re.compile(
    r"(^|\.)rot(ary)?_?(pos_)?emb\w*\.|(^|\.)(inv_freq|freqs_cis|cos_cached|sin_cached|position_ids|rope\.freqs)$"
    r"|(^|\.)(attn|attention)\.(masked_)?bias$|(^|\.)mtp\w*\."
)
"""Names of what a model makes itself (rotary frequencies, positions, masks), and of layers that predict more tokens."""
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
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
    index = read_index(folder / INDEX) if INDEX in names else None
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
        # A name that no file has may be a tied output layer; if the model needs it, it is missed when that is loaded.
        wrong = sorted(name for name in found.keys() & index.keys() if found[name].file != index[name])
        if wrong:
            raise SafetyHeadsError(
                f"{where}: {INDEX} says that {wrong[0]!r} is in {index[wrong[0]]}, but it is in {found[wrong[0]].file}"
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
    try:
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
    except RuntimeError as error:  # how transformers says that it cannot make one tensor of several
        if "conversion of the weights" not in str(error):
            raise
        raise SafetyHeadsError(
            f"{where}: the weights do not fill the model that its config.json describes: the tensors of experts, which "
            f"are joined to one, do not fit together{_odd_expert(tensors)}. Copy or download the weights again."
        ) from None
    check_loaded(where, result[0], result[1], tensors, senses=senses)


def check_loaded(
    where: str, model: "PreTrainedModel", report: Mapping[str, Any], tensors: Mapping[str, Stored], *, senses: bool
) -> None:
    """Raise SafetyHeadsError if weights were missing, of another shape, quantised or left out when `model` was loaded.

    `report` is what transformers returns of loading.
    """
    left_out = _needed(report["unexpected_keys"], model.config, senses)
    check_names(where, left_out)
    numbers = {_end(name): value.is_floating_point() for name, value in model.state_dict().items()}
    ignored = re.compile("|".join(model._keys_to_ignore_on_load_unexpected or ()) or r"(?!)")
    without_place = {_end(name) for name in left_out}
    for name in _needed(tensors, model.config, senses):
        if not numbers.get(_end(name), not ignored.search(name) and _end(name) not in without_place):
            continue  # a whole number in the model, too, or, such as the mask of GPT-2, nothing that it has
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


def check_index(
    where: str,
    names: Collection[str],
    config: "PreTrainedConfig",
    class_: "type[PreTrainedModel]",
    *,
    senses: bool = False,
) -> None:
    """Raise SafetyHeadsError if the index of a model's weights names scales of quantised weights among its tensors.

    Some models have scales of their own. transformers may rename them when it loads, but not their last words.
    """
    import torch

    with torch.device("meta"):
        own = {_end(name) for name in class_(config).state_dict()}
    check_names(where, (name for name in _needed(names, config, senses) if _end(name) not in own))


def check_names(where: str, names: Iterable[str]) -> None:
    """Raise SafetyHeadsError if one of these tensors, which a model has no place for, is the scale of another."""
    if scales := sorted(name for name in names if _QUANTISED.search(name)):
        raise SafetyHeadsError(
            f"{where} has {scales[0]!r}{_more(scales)}, which stands beside weights that are quantised: without it "
            f"they are other weights than the model's own. {_CHOOSE}"
        )


def _needed(names: Collection[str], config: "PreTrainedConfig", senses: bool) -> list[str]:
    """Those of the names that are not known to be unneeded where the model has no place for them, sorted.

    Layers behind all others predict further tokens if the configuration counts them, and if they have the projection
    `eh_proj` that no other layer has.
    """
    end = config.get_text_config(decoder=True).num_hidden_layers
    counted = range(end, end + (getattr(config, "num_nextn_predict_layers", None) or 0))
    further = {layer[1] for name in names if (layer := _LAYER.search(name)) and name.endswith("eh_proj.weight")}
    return sorted(
        name
        for name in names
        if not _UNNEEDED.search(name)
        and not (senses and _OTHER_SENSES.search(name))
        and not ((layer := _LAYER.search(name)) and layer[1] in further and int(layer[1]) in counted)
    )


def _end(name: str) -> str:
    """The last two words of a tensor's name, which transformers leaves as they are where it renames."""
    return ".".join(name.split(".")[-2:])


def _odd_expert(tensors: Mapping[str, Stored]) -> str:
    """The end of a sentence: which tensor of an expert is missing, or unlike those of the layer's other experts."""
    shapes: dict[str, dict[int, tuple[int, ...]]] = {}
    for name, tensor in tensors.items():
        if part := re.fullmatch(r"(.*\.experts)\.(\d+)\.(.*)", name):
            shapes.setdefault(f"{part[1]}.{{}}.{part[3]}", {})[int(part[2])] = tensor.shape
    layers: dict[str, set[int]] = {}
    for name, of_experts in shapes.items():
        layers.setdefault(name.partition("{}")[0], set()).update(of_experts)
    for name, of_experts in sorted(shapes.items()):
        usual = max(of_experts.values(), key=list(of_experts.values()).count)
        for expert in sorted(layers[name.partition("{}")[0]]):
            if expert not in of_experts:
                return f": there is no {name.format(expert)!r}"
            if of_experts[expert] != usual:
                return f": {name.format(expert)!r} is {of_experts[expert]}, and {usual} for others"
    return ""


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
