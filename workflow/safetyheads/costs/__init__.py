"""What a study costs before it runs: operations and bytes by formula, a device's rates, seconds and memory of a job.

Uses `config` and the vocabulary.
"""
