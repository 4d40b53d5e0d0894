"""The projects of tests/workflow are used here, too."""

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1] / "workflow"))
torch.set_num_threads(1)
