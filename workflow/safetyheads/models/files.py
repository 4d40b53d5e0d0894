"""Check a model's folder before anything is loaded: are its weights there and whole, and can its heads be ablated?

These checks take seconds, so a mistake is reported before gigabytes are downloaded or read.
"""

import json
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetyheads.engine.supported_families import check_family, refuse
from safetyheads.errors import SafetyHeadsError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_WEIGHTS = "model.safetensors"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_QUANTISED = re.compile(
    r"(?!.*(cache|kv_))(.*quanti[sz](e|ed|ation)?(_|$)|(.*_)?quant(_|$)|compression_config$|load_in_[48]bit$|w?_?bits?$"
    r"|(.*_)?(fp|int|nf)[48](_|$))",
    re.IGNORECASE,
)
"""Keys of config.json by which tools say that weights are quantised."""
_FILE_OF_QUANTISATION = re.compile(r"(.*quant.*|qconfig.*|compression_config)\.json", re.IGNORECASE)
_RUNNING = frozenset(
    {
        *(
            f"{prefix}{part}_implementation{end}"
            for prefix in ("", "_")
            for part in ("attn", "experts")
            for end in ("", "_internal", "_autoset")
        ),
        *("return_dict", "use_return_dict", "output_attentions", "_output_attentions", "output_hidden_states"),
        *("use_cache", "torchscript", "dtype", "torch_dtype", "quantization_config"),
        *("id2label", "label2id", "num_labels", "problem_type"),
    }
)
"""Keys of config.json that do not matter.

Which attention and which number format compute is the study's word, and what a pass returns is the engine's. Labels are
those of classifiers. A way of quantisation that is still there when these are taken out is an empty one.
"""
INDEX = "model.safetensors.index.json"
"""The file that lists the shards of a model whose weights are in several files."""


def weight_files(folder: Path) -> list[str]:
    """The names of the files in `folder` that the weights are read from: one file, or the index and its shards.

    The header of each file is read, which shows whether the file is whole. Raises SafetyHeadsError if there are no
    weights or only pickled ones, and if a file is missing or cut off.
    """
    from safetensors import SafetensorError, safe_open

    names = weight_names(f"The model folder {folder}", {path.name for path in folder.iterdir()}, folder / INDEX)
    for name in names:
        if name == INDEX:
            continue
        try:
            with safe_open(folder / name, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            raise SafetyHeadsError(
                f"{folder / name} is not a whole safetensors file ({error}). Copy or download it again; in a "
                "clone made with git, run `git lfs pull`."
            ) from None
    return names


def weight_names(where: str, names: Collection[str], index: Path) -> list[str]:
    """Which of `names`, the files of a model, hold its weights: `model.safetensors`, or the index and its shards.

    Only names are looked at, so that this also works for a repository that has not been downloaded. `where` is what
    messages call the folder or repository. `index` is the path of the index, which is read if there is one. Raises
    SafetyHeadsError for a PEFT adapter, if there are no weights or only pickled ones, and if shards are missing.
    """
    if "adapter_config.json" in names:
        raise SafetyHeadsError(f"{where} holds a PEFT adapter. Merge it into its model and save that as safetensors.")
    if _WEIGHTS in names:
        if others := sorted({*(read_index(index).values() if INDEX in names else ())} & {*names} - {_WEIGHTS}):
            raise SafetyHeadsError(
                f"{where} has {_WEIGHTS}, and {INDEX} names other files that are there ({', '.join(others)}). Which "
                "of them are the model's is not clear. Delete those that are not, in a copy of your own if need be."
            )
        return [_WEIGHTS]
    if INDEX not in names:
        pickled = sorted(name for name in names if name.endswith(_PICKLED) or ".bin." in name)
        found = f"only pickled weights ({', '.join(pickled)})" if pickled else "no weights"
        raise SafetyHeadsError(
            f"{where} has neither {_WEIGHTS} nor {INDEX}; it has {found}. Pickled weights (.bin, "
            ".pt) are never loaded: choose a repository or revision with safetensors, or convert the model with "
            "`save_pretrained` of transformers and name the new folder with `path:`."
        )
    shards = sorted(set(read_index(index).values()))
    missing = [name for name in shards if name not in names]
    if missing:
        raise SafetyHeadsError(
            f"{where} has {INDEX}, which lists {len(shards)} files of weights, of which {len(missing)} are missing: "
            f"{', '.join(missing)}. Copy or download them again."
        )
    return [INDEX, *shards]


def read_index(path: Path) -> dict[str, str]:
    """The file of each tensor, by the index of a model's weights at `path`.

    Raises SafetyHeadsError if it names no tensors, or a file that is not one beside it.
    """
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise SafetyHeadsError(
            f"{path} has no `weight_map` that names the file of each tensor. Copy or download it again."
        )
    for name, file in places.items():
        if not isinstance(file, str) or not file.endswith(".safetensors") or re.search(r"[/\\]", file):
            raise SafetyHeadsError(
                f"{path} says that the tensor {name!r} is in {file!r}. Allowed is the name of a safetensors file that "
                "lies beside the index. Copy or download it again."
            )
    return places


def architecture(folder: Path) -> tuple["PreTrainedConfig", "type[PreTrainedModel]"]:
    """The configuration and the class of the model in `folder`; of a multimodal model, those of its text decoder.

    The model is built once without weights, on torch's device `meta`, so that a config.json that describes an
    impossible model is noticed. Imports torch. Raises SafetyHeadsError for a model that transformers does not
    implement, whose heads cannot be ablated, whose weights are quantised, or whose config.json is not valid.
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

    raw = read_json(folder / "config.json")
    model_type = str(raw.get("model_type"))
    if model_type not in CONFIG_MAPPING:
        advice = (
            "It brings its own code, which is never run: choose a model that transformers itself implements."
            if "auto_map" in raw
            else f"A newer transformers may know it.{nearest(model_type, CONFIG_MAPPING.keys())}"
        )
        raise SafetyHeadsError(
            f"{folder / 'config.json'}: transformers has no model type {raw.get('model_type')!r}. {advice}"
        )
    check_not_quantised(folder)
    with _valid(folder / "config.json", model_type), tempfile.TemporaryDirectory(prefix="safetyheads-") as cleaned:
        Path(cleaned, "config.json").write_text(json.dumps(_without_ways_of_running(raw)), encoding="utf-8")
        config = AutoConfig.from_pretrained(cleaned, local_files_only=True, trust_remote_code=False)
    named = (raw.get("architectures") or [f"{model_type} model"])[0]
    what = f"{folder} holds a {named}, which"
    if config.is_encoder_decoder or type(config) not in AutoModelForCausalLM._model_mapping:
        refuse(what, config)
    class_: Any = AutoModelForCausalLM._model_mapping[type(config)]
    if class_.config_class is config.sub_configs.get("text_config"):
        config = config.get_text_config(decoder=True)  # the text decoder of a multimodal model is a class of its own
    check_family(class_, config, what if "architectures" in raw else f"{folder} holds a {class_.__name__}, which")
    with _valid(folder / "config.json", model_type), torch.device("meta"):
        _check_grid(config.get_text_config(decoder=True))
        class_(config)  # without weights: what cannot be built is known before weights are read
    return config, class_


def check_not_quantised(folder: Path) -> None:
    """Raise SafetyHeadsError if config.json, or a file beside it that is made for this, says so of the weights."""
    made_for_it = (path for path in sorted(folder.iterdir()) if _FILE_OF_QUANTISATION.fullmatch(path.name))
    for path, values in [
        (folder / "config.json", read_json(folder / "config.json")),
        *((path, {"quantization": read_json(path)}) for path in made_for_it),
    ]:
        for key, value in _settings(values):
            number = str(value) if key.endswith("dtype") else ""
            if (_QUANTISED.match(key) and _says_so(value)) or re.search(r"int|(float|fp|nf)[48]", number):
                how = _method(value) or number or "some method"
                raise SafetyHeadsError(
                    f"{path}: the weights are quantised ({how}), which is not supported: its heads would be those of "
                    "other weights than the model's own. Choose the repository or folder with 16-bit weights."
                )


def _settings(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keys and values of a config.json, and of its parts, such as that of the text decoder."""
    for key, value in values.items():
        yield key, value
        if isinstance(value, dict) and not _QUANTISED.match(key):
            yield from _settings(value)


def _says_so(value: Any) -> bool:
    """Whether a setting says that weights are quantised. It may say so of the key/value cache alone."""
    if isinstance(value, dict) and isinstance(value.get("quantization"), dict):
        value = value["quantization"]  # as in hf_quant_config.json
    if isinstance(value, dict) and "quant_algo" in value:
        value = value["quant_algo"]
    return bool(value) and str(value).lower() not in ("none", "no", "false")


def _method(value: Any) -> str | None:
    """The name of the way weights were quantised, if it is said."""
    if not isinstance(value, dict):
        return value if isinstance(value, str) else None
    named = (value.get(key) for key in ("quant_method", "quant_algo", "format"))
    bits = f"{value['bits']} bits" if value.get("bits") else None
    return next((str(name) for name in named if name), None) or bits or _method(value.get("quantization"))


def has_other_senses(folder: Path) -> bool:
    """Whether the model in `folder` sees or hears besides reading: its config.json has a part for that."""
    parts = (key for key, value in read_json(folder / "config.json").items() if isinstance(value, dict))
    return any(re.search(r"vision|visual|image|audio|speech|video", part) for part in parts)


def _without_ways_of_running(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a config.json and of its parts without what does not matter here."""
    return {
        key: _without_ways_of_running(value) if isinstance(value, dict) else value
        for key, value in raw.items()
        if key not in _RUNNING
    }


@contextmanager
def _valid(path: Path, model_type: str) -> Iterator[None]:
    """Turn any error of transformers within the block into a SafetyHeadsError about the config.json at `path`."""
    try:
        yield
    except Exception as error:  # a setting that makes no sense may fail anywhere in a model's code, with any error
        problem = f"{path} is not a valid {model_type} configuration: {type(error).__name__}: {error}"
        raise SafetyHeadsError(problem) from None


def _check_grid(config: "PreTrainedConfig") -> None:
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    if layers < 1 or heads < 1 or heads % groups:
        raise ValueError(f"{layers} layers, {heads} attention heads, {groups} key/value heads")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in one of a model's files. Raises SafetyHeadsError if the file is missing or holds no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SafetyHeadsError(f"{path} is missing: a model folder holds config.json beside its weights.") from None
    except (OSError, ValueError) as error:
        raise SafetyHeadsError(f"{path} cannot be read as JSON ({error}). Copy or download it again.") from None
    if not isinstance(value, dict):
        raise SafetyHeadsError(f"{path} must hold a JSON object.")
    return value
