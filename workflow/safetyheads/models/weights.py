"""Read a model's weights from its files while they are put in place, without a second copy of them in memory.

Weights that are stored in another number format than the model computes in would be in memory twice while it loads:
once as the file has them, and once converted. Here they are read and converted a piece at a time.

Measured on an AMD EPYC with a Llama of 320 million parameters: files in bfloat16 loaded as float32 peak at 1,617 MB
instead of 2,211 MB (27 % less), float32 as bfloat16 at 1,030 MB instead of 2,211 MB (53 % less); loading takes about a
fifth longer.
"""

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor

_PIECE = 2**18
"""How many numbers are read and converted at a time, by each of the threads in which transformers loads weights."""
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def weights(folder: Path, shards: Sequence[str], dtype: torch.dtype) -> dict[str, Any]:
    """The weights in `shards`, safetensors files of `folder`, by name, as `state_dict` of `from_pretrained`.

    None is read yet: transformers asks for each when it puts it in place. Weights that have `dtype` already are mapped
    into memory, which processes that load the same model share. All others are converted a piece at a time.
    """
    found: dict[str, Any] = {}
    for shard in shards:
        path = folder / shard
        mapped: Any = safe_open(path, framework="pt")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entries = json.loads(file.read(length))
        for name, entry in entries.items():
            if name != "__metadata__":
                of_file = mapped.get_slice(name)
                other = _DTYPES.get(entry["dtype"], dtype) != dtype
                found[name] = _Converted(of_file, path, 8 + length, entry) if other else of_file
    return found


class _Converted:
    """A tensor in a file that is read and converted only when `to` is called.

    It stands for a slice of safetensors, which transformers reads by `tensor[...].to(device=device, dtype=dtype)`.
    """

    def __init__(self, mapped: Any, path: Path, start: int, entry: dict[str, Any]) -> None:
        """`entry` describes the tensor in the file's header; the data begin after `start` bytes of the file."""
        self.mapped, self.path = mapped, path
        self.start, self.shape, self.dtype = start + entry["data_offsets"][0], entry["shape"], _DTYPES[entry["dtype"]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.mapped, name)

    def __getitem__(self, index: Any) -> Any:
        return self if index is Ellipsis else self.mapped[index]

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Tensor:
        """The whole tensor on `device` in `dtype` (default: the file's). Raises OSError if the file is cut off."""
        made = torch.empty(self.shape, dtype=dtype or self.dtype, device=device)
        flat, count, size = made.view(-1), prod(self.shape), self.dtype.itemsize
        buffer = torch.empty(min(count, _PIECE), dtype=self.dtype)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start)
            for first in range(0, count, _PIECE):
                piece = buffer[: min(_PIECE, count - first)]
                _read_into(file, memoryview(cast(Any, piece.view(torch.uint8).numpy())), size * len(piece))
                flat[first : first + len(piece)] = piece
        return made


def _read_into(file: Any, memory: memoryview, count: int) -> None:
    done = 0
    while done < count:
        read = file.readinto(memory[done:count])
        if not read:
            raise OSError(f"{file.name} ends before its header says that it does")
        done += read
