"""Describe and load sequence classifiers, by which judges tell refusals or harm."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetyheads.errors import SafetyHeadsError
from safetyheads.models.describe import checked_sums
from safetyheads.models.files import check_not_quantised, read_json, weight_files
from safetyheads.models.load import AUTOMATIC
from safetyheads.models.quiet import quiet
from safetyheads.models.tokenizer import tokenizer_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LONGEST = 512
"""Tokens that a classifier reads at once, unless its configuration or the study says otherwise."""


def describe_classifier(folder: Path) -> dict[str, Any]:
    """What `judges/{judge}.json` tells of a classifier: class, labels by number, longest text and sums of its files.

    Raises SafetyHeadsError if `folder` does not hold a sequence classifier whose weights are whole and safetensors.
    """
    config = read_json(folder / "config.json")
    named = [str(name) for name in config.get("architectures") or ()]
    if not any(name.endswith("ForSequenceClassification") for name in named):
        found = ", ".join(named) or "a model without a named class"
        raise SafetyHeadsError(
            f"{folder} holds {found}, and no sequence classifier. Is it a judge of kind: generative?"
        )
    check_not_quantised(folder)
    names = ["config.json", *weight_files(folder), *tokenizer_files(folder)]
    labels = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    return {
        "class": named[0],
        "labels": {str(id_): str(name) for id_, name in labels.items()},
        "longest": _longest(folder, config),
        "files": checked_sums(folder, names),
    }


def window_of(folder: Path, wanted: int | None, longest: int) -> int:
    """The tokens that the classifier in `folder` reads at once: `wanted`, or else `longest`, but at most `LONGEST`.

    Raises SafetyHeadsError if it has no positions for so many.
    """
    most = _positions(read_json(folder / "config.json"))
    if wanted and most and wanted > most:
        raise SafetyHeadsError(
            f"The judge's `window` is {wanted}, but the classifier in {folder} has positions for {most} tokens; "
            f"allowed: at most {most}."
        )
    return wanted or min(LONGEST, longest)


def _positions(config: dict[str, Any]) -> int | None:
    """The most tokens of a text that a model with this configuration has positions for; None if it does not tell."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions <= 0:
        return None
    if config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "longformer"):
        positions -= int(config.get("pad_token_id") or 0) + 1  # their positions begin behind that of padding
    return positions


def _longest(folder: Path, config: dict[str, Any]) -> int:
    """The most tokens of a text that the model has read, as far as its files tell."""
    path = folder / "tokenizer_config.json"
    told = read_json(path).get("model_max_length") if path.is_file() else None
    values = (_positions(config), told)
    known = [int(value) for value in values if isinstance(value, int | float) and 0 < value < 10**6]
    return min(known, default=LONGEST)


def load_classifier(
    folder: Path, *, dtype: str, device: str, attention: str = "auto", threads: int = 1
) -> "PreTrainedModel":
    """Load the sequence classifier in `folder`, frozen and in evaluation mode.

    From then on the process computes on `threads` CPU threads. Raises SafetyHeadsError if a weight of it, such as the
    head that classifies, is in none of the files.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(threads)
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    precision = AUTOMATIC[where.type] if dtype == "auto" else dtype
    number = torch.float32 if precision == "tf32" else getattr(torch, precision)
    try:
        with quiet():
            result: Any = AutoModelForSequenceClassification.from_pretrained(
                folder,
                dtype=number,
                attn_implementation=None if attention == "auto" else attention,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (ImportError, ValueError, OSError) as error:
        raise SafetyHeadsError(f"The classifier in {folder} cannot be loaded: {error}") from None
    model, report = result
    if missing := sorted(report["missing_keys"]):
        raise SafetyHeadsError(
            f"The classifier in {folder} has no weights for {', '.join(missing[:3])}: it would judge at random. Use a "
            "model that was trained as a classifier."
        )
    loaded: PreTrainedModel = model.to(where).eval().requires_grad_(False)
    return loaded
