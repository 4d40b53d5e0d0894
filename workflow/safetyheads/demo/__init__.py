"""Models whose answer is known: small ones, trained here, with safety heads planted in them, and their requests.

Uses `engine` and the vocabulary.
"""
