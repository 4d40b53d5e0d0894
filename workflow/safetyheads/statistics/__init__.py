"""Compute rates and effects from verdicts, with intervals and tests. Uses the vocabulary alone, and does not import torch."""
