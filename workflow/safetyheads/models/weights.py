"""A model's weights, read from its files while they are put in place, without a second copy of them in memory."""

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor

_PIECE = 2**18
"""Numbers that are read and converted at a time, by each of the threads of transformers."""
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def weights(folder: Path, shards: Sequence[str], dtype: torch.dtype) -> dict[str, Any]:
    """The weights in these safetensors files of a model's folder, by name, each to be read when it is wanted.

    What has `dtype` already is mapped into memory, which all processes that do so share. Other numbers would be there
    twice, mapped and converted: they are read and converted a piece at a time.
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
    """A tensor of a file, as transformers asks for it: `tensor[...].to(device=device, dtype=dtype)`."""

    def __init__(self, mapped: Any, path: Path, start: int, entry: dict[str, Any]) -> None:
        """`entry` is that of the file's header, `start` where the data begin behind it."""
        self.mapped, self.path = mapped, path
        self.start, self.shape, self.dtype = start + entry["data_offsets"][0], entry["shape"], _DTYPES[entry["dtype"]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.mapped, name)

    def __getitem__(self, index: Any) -> Any:
        return self if index is Ellipsis else self.mapped[index]

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Tensor:
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
