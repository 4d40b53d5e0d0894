"""From verdicts to rates, intervals and tests. Uses the vocabulary alone, and imports no torch."""
