"""Print by how many bytes the memory of this process rises while it computes: `peak_memory.py WHAT PROMPTS`.

WHAT is `pass`, a whole forward pass over the token budget (`cached` with keys and values); `ships`, `sahara` or
`completions` of so many prompts.
"""

import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from conftest import build

from safetyheads.ablation import Ablation, Kind, install
from safetyheads.artifacts import Parts
from safetyheads.generation import Decoding, Row, generate
from safetyheads.heads import all_heads
from safetyheads.memory import keep_freed_memory
from safetyheads.sahara import sahara
from safetyheads.ships import ships

BUDGET, LENGTH, LAYERS, HEADS, HIDDEN = 8192, 16, 4, 4, 256


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def main(what: str, count: int) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    size = {"hidden_size": HIDDEN, "intermediate_size": 688, "num_hidden_layers": LAYERS}
    model = install(build("llama", **size))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 97, (max(count, BUDGET // LENGTH), LENGTH), generator=generator)
    prompts = pd.DataFrame({"query_id": [f"q-{at}" for at in range(count)], "token_ids": ids[:count].tolist()})
    ablation = Ablation(Kind.SCALING)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        parts = Parts(Path(folder) / "parts")

        def run(prompts: pd.DataFrame) -> None:
            if what in ("pass", "cached"):
                model(ids[: BUDGET // LENGTH], use_cache=what == "cached", logits_to_keep=1)
            elif what == "ships":
                ships(model, prompts, ablation, token_budget=BUDGET, parts=parts)
            elif what == "sahara":
                settings = {"steps": 1, "rank": 1, "representation": "final_norm"}
                sahara(model, prompts, ablation, token_budget=BUDGET, parts=parts, **settings)
            else:
                rows = [
                    Row(query, prompt, (head,))
                    for query, prompt in zip(prompts["query_id"], prompts["token_ids"])
                    for head in all_heads(LAYERS, HEADS)[::4]
                ]
                decoding = Decoding(max_new_tokens=4)
                generate(model, rows, ablation, decoding, eos_token_ids=(), token_budget=BUDGET, parts=parts)

        if what not in ("pass", "cached"):  # what is imported and compiled at the first call does not count
            small, parts = parts, Parts(Path(folder) / "warm-up")
            run(prompts[:2])
            parts = small
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = status("VmRSS")
        run(prompts)
        print(status("VmHWM") - before)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
