"""Compute rates and effects from verdicts, with intervals and tests. Uses the vocabulary alone, without torch."""
