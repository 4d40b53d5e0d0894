"""What a study costs before it runs: operations, bytes, device rates. Uses `config` and the vocabulary."""
