"""The command line options that the benchmarks share."""

import argparse
import os
import platform
import re
from pathlib import Path

import torch
from sizes import SIZES, Size

from safetyheads.models.memory import save_page_faults

RESULTS = Path(__file__).parent / "results"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def count(text: str) -> int:
    """A whole number of at least 1, for argparse. Raises ArgumentTypeError for any other text."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: a whole number of at least 1")
    return int(text)


def seconds(text: str) -> float:
    """A number above 0, for argparse. Raises ArgumentTypeError for any other text."""
    try:
        if (number := float(text)) > 0:
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"found {text!r}; allowed: a number of seconds above 0")


def parser(description: str | None, token_budget: int | None = None) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark. A `token_budget` of None stands for that of the chosen size."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if there is one"
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    options.add_argument("--threads", type=count, default=cores, help="of the CPU; default: all %(default)s cores")
    budget = token_budget or "the size's own"
    options.add_argument(
        "--token-budget", type=count, default=token_budget, help=f"tokens of a batch; default: {budget}"
    )
    return options


def sized_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of the benchmarks whose model is one of `sizes.SIZES`."""
    options = parser(description)
    options.add_argument("--size", choices=SIZES, required=True)
    options.add_argument("--dtype", choices=DTYPES, help="default: the size's own")
    options.add_argument(
        "--save", type=Path, nargs="?", const=RESULTS, metavar="FOLDER",
        help="keep the outcome in a folder; without one, in benchmarks/results",
    )  # fmt: skip
    return options


def timing_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of the benchmarks that measure time."""
    options = sized_parser(description)
    options.add_argument("--rounds", type=count, default=3, help="default: %(default)s")
    options.add_argument(
        "--limit", type=seconds, default=420.0, help="seconds after which no round may end; default: %(default)g"
    )
    return options


def device_of(options: argparse.ArgumentParser, arguments: argparse.Namespace) -> torch.device:
    """The device that the options ask for; ends the program if it is not there.

    Also sets the number of CPU threads, and how memory is allocated, as `models.load` does in the pipeline.
    """
    save_page_faults()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        options.error(f"--device cuda: torch {torch.__version__} sees no GPU here. Use --device auto or cpu.")
    torch.set_num_threads(arguments.threads)
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(auto if arguments.device == "auto" else arguments.device)


def dtype_of(arguments: argparse.Namespace, size: Size) -> torch.dtype:
    """The type of number that the options ask for, or that of the size."""
    return DTYPES[arguments.dtype] if arguments.dtype else size.dtype


def device_name(device: torch.device) -> str:
    """The name of the device; of a CPU, with the number of threads, such as `AMD EPYC, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    name = found[1].strip() if found else platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {threads} {'thread' if threads == 1 else 'threads'}"


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a type of number without the prefix: `float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")
