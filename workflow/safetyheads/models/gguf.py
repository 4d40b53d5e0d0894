"""Make a model's folder of a GGUF file, as llama.cpp, Ollama and LM Studio have it: weights, tokenizer, chat template.

    python -m safetyheads.models.gguf model.gguf models/mine        then `models: {mine: {path: models/mine}}`

The weights become float32 numbers, which takes four bytes for each, but they stay what they were rounded to: heads of a
model in 4 bits are those of that model, not of the one that it was made from. The folder's config.json says so, and so
does the page. It is made once; every job then starts as with any other folder, and looks at the same files.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from safetyheads.errors import SafetyHeadsError
from safetyheads.models.describe import ORIGIN
from safetyheads.models.download import sha256_of
from safetyheads.models.files import read_json
from safetyheads.models.quiet import quiet


def convert(file: Path, folder: Path) -> dict[str, Any]:
    """Write the model in the GGUF file `file` into `folder`, which must not be there yet; returns what `ORIGIN` says.

    transformers reads the file, so its families are those that can be read. Raises SafetyHeadsError without the package
    `gguf`, for a file that is none, for a family that transformers does not read, and where a weight is missing.
    """
    if folder.exists():
        raise SafetyHeadsError(f"{folder} is there already. Name a folder that is not, or delete it.")
    origin = _origin(file)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    arguments: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                file.resolve().parent, **arguments, dtype=torch.float32, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(file.resolve().parent, **arguments)
    except Exception as error:  # of many kinds: transformers reads what other programs wrote
        said = (str(error).splitlines() or [""])[0].strip()
        raise SafetyHeadsError(
            f"transformers cannot read {file} ({type(error).__name__}: {said}). Newer versions know more families; or "
            "take the model's own safetensors."
        ) from None
    model, report = loaded
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    if "output.weight" not in origin.pop("names"):
        model.config.tie_word_embeddings = True
        model.tie_weights()
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    if missing := sorted(set(report["missing_keys"]) - tied):
        raise SafetyHeadsError(f"{file} lacks the weights of {len(missing)} parameters, such as {missing[0]}.")
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(read_json(path) | {ORIGIN: origin}, indent=2) + "\n", encoding="utf-8")
    return origin


def _origin(file: Path) -> dict[str, Any]:
    """What is known of a GGUF file by its header, and `names`, those of its tensors."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise SafetyHeadsError(
            "GGUF files are read with the package gguf, which is not installed. Install it with "
            "`pip install -e '.[gguf]' -c envs/constraints.txt`."
        ) from None
    try:
        tensors = GGUFReader(file).tensors
    except FileNotFoundError:
        raise SafetyHeadsError(f"{file} does not exist. A relative path starts at {Path.cwd()}.") from None
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise SafetyHeadsError(f"{file} is no whole GGUF file ({error}). Copy or download it again.") from None
    types = Counter(tensor.tensor_type.name for tensor in tensors)
    names = {tensor.name for tensor in tensors}
    return {"file": file.name, "sha256": sha256_of(file), "types": dict(sorted(types.items())), "names": names}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m safetyheads.models.gguf", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("file", type=Path, help="the GGUF file")
    parser.add_argument("folder", type=Path, help="the folder to make, for `path:` of a model")
    options = parser.parse_args()
    try:
        origin = convert(options.file, options.folder)
    except SafetyHeadsError as error:
        sys.exit(str(error))
    types = ", ".join(f"{count} of {name}" for name, count in origin["types"].items())
    print(f"{options.folder}: tensors {types}, now in float32. Their numbers are those of {options.file.name}.")


if __name__ == "__main__":
    main()
