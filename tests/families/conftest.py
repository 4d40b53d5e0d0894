"""Models of many families, built in memory."""

import torch

torch.set_num_threads(1)
