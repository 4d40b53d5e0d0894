"""The configuration: what a YAML file may say, what its names stand for, and what is said of its mistakes.

Uses the vocabulary alone. Importing it is quick: no torch, no pandas.
"""
