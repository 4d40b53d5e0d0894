"""Decide where a model's weights lie: on one device, spread over several GPUs, or partly in main memory and on disk.

The package accelerate does the spreading. A layer computes on the GPU that holds its weights; weights in main memory or
on disk are copied to a GPU for each pass. Scores are those of a model on one device, up to rounding.
"""

import re
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from safetyheads.errors import SafetyHeadsError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MaxMemory = Mapping[Any, str]
"""How much memory weights may take, such as `{0: "20GiB", "cpu": "100GiB"}`.

A number is a place among the GPUs of the job: 0 is its first GPU, whichever number that has on the machine.
"""

_ROOM = 0.9
"""The share of a GPU's free memory that weights may take where the configuration does not say.

The rest is for the activations of the passes.
"""
_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


class Placement:
    """Where `from_pretrained` is to put the weights of a model.

    `arguments` are those for `from_pretrained`, `first` is the device of the first layers, and `folder` is a temporary
    folder for weights that stay on disk, or None if none can.
    """

    def __init__(self, device: str, gpus: int | Sequence[int], max_memory: MaxMemory | None) -> None:
        """Plan for `device` (`auto`, `cpu`, `cuda` or `cuda:N`).

        `gpus` is how many GPUs to use, from `device` on, or a list of their numbers. `max_memory` limits what weights
        may take; None is no limit but the GPUs' own memory. Raises SafetyHeadsError for devices that are not there.
        """
        import torch

        self.first = _first(device, gpus)
        self.max_memory = max_memory
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        self.arguments: dict[str, Any] = {"device_map": {"": self.first}}
        used = _gpus(self.first, gpus)
        if max_memory is None and len(used) < 2:
            return
        limits: dict[int | str, int] = {gpu: int(torch.cuda.mem_get_info(gpu)[0] * _ROOM) for gpu in used}
        for key, size in (max_memory or {}).items():
            if isinstance(key, int) and key < len(used):
                limits[used[key]] = in_bytes(size)
            elif key == "cpu":
                limits["cpu"] = in_bytes(size)
        self.folder = tempfile.TemporaryDirectory(prefix="safetyheads-")
        self.arguments = {
            "device_map": "sequential" if max_memory else "balanced",
            "max_memory": limits,
            "offload_folder": self.folder.name,
        }

    @property
    def on_disk(self) -> bool:
        """Whether some of the weights may stay on disk."""
        return self.folder is not None

    def check(self, model: "PreTrainedModel") -> None:
        """Raise SafetyHeadsError if weights of the loaded `model` are on disk although no `max_memory` was given.

        Computing from disk is slow, so it must be asked for. The temporary folder is deleted together with the model.
        """
        if self.folder is None:
            return
        weakref.finalize(model, self.folder.cleanup)  # it holds weights that cannot stay in the model's files
        if self.max_memory is None and "disk" in _places(model):
            raise SafetyHeadsError(
                "The model does not fit into the memory of its GPUs. Give it more of them (`gpus:`), set `dtype: "
                "bfloat16`, or let main memory and disk take the rest, which is slow: `max_memory: {cpu: 100GiB}`."
            )


def _places(model: Any) -> set[Any]:
    return set(model.hf_device_map.values())


def in_bytes(size: str) -> int:
    """The number of bytes in a size such as `20GiB` (powers of 1024) or `500MB` (powers of 1000).

    Raises ValueError for a text that is not a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)(i?)B", size)
    if match is None:
        raise ValueError(f"found {size!r}; allowed: a size, such as 20GiB or 500MB")
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** _UNITS[unit])


def _first(device: str, gpus: int | Sequence[int]) -> "torch.device":
    import torch

    count = torch.cuda.device_count()
    where = torch.device(("cuda" if count else "cpu") if device == "auto" else device)
    if where.type != "cuda":
        return where
    if where.index is None and not isinstance(gpus, int):
        where = torch.device("cuda", gpus[0])
    wanted = _gpus(where, gpus)
    if max(wanted) >= count:
        asked = f"`compute: device: {device}`" + (f" with {len(wanted)} GPUs" if len(wanted) > 1 else "")
        raise SafetyHeadsError(
            f"{asked} was asked for; GPUs that torch {torch.__version__} sees here (counted from "
            f"0): {count}. Use auto or cpu, or fewer `gpus`; if there is a GPU, install its driver and a torch that is "
            "built for CUDA."
        )
    return where


def _gpus(first: "torch.device", gpus: int | Sequence[int]) -> list[int]:
    """The numbers of the GPUs that are used, as torch counts them; none on the CPU."""
    if first.type != "cuda":
        return []
    start = first.index or 0
    return list(range(start, start + gpus)) if isinstance(gpus, int) else list(gpus)
