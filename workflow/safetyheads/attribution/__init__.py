"""Which heads matter: one module for each method, and the passes over prompts x heads that they share.

Uses `engine`, `artifacts` and the vocabulary.
"""
