"""The configuration: what a YAML file may say, what its names stand for, and what is said of its mistakes.

Uses `demo` (to know the kinds of demo models) and the vocabulary. Importing it is quick: no torch, no pandas.
"""
