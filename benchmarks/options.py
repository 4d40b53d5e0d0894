"""Command line that the benchmarks share."""

import argparse
import os
import platform
import re
from pathlib import Path

import torch
from sizes import SIZES, Size

from safetyheads.memory import save_page_faults

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options of every benchmark."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    options.add_argument("--threads", type=int, default=cores, help="of the CPU")
    options.add_argument("--token-budget", type=int, help="tokens of a batch; default: the size's own")
    return options


def timing_parser(description: str | None) -> argparse.ArgumentParser:
    """Options of the benchmarks that measure time."""
    options = parser(description)
    options.add_argument("--size", choices=SIZES, required=True)
    options.add_argument("--dtype", choices=DTYPES, help="default: the size's own")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--limit", type=float, default=420.0, help="seconds after which no round may end")
    options.add_argument("--save", action="store_true", help="keep the outcome in benchmarks/results")
    return options


def device_of(arguments: argparse.Namespace) -> torch.device:
    """The device that was asked for. Sets the number of threads, and the memory as `models.load` does."""
    save_page_faults()
    torch.set_num_threads(arguments.threads)
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(auto if arguments.device == "auto" else arguments.device)


def dtype_of(arguments: argparse.Namespace, size: Size) -> torch.dtype:
    """The type of number that was asked for, or the size's own."""
    return DTYPES[arguments.dtype] if arguments.dtype else size.dtype


def device_name(device: torch.device) -> str:
    """The device's name, with the number of threads if it is the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    name = found[1].strip() if found else platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {threads} {'thread' if threads == 1 else 'threads'}"


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` of torch.float32."""
    return str(dtype).removeprefix("torch.")
