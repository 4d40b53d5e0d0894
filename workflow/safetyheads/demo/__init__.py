"""The demo: small models, trained here with safety heads planted in them, and harmless requests for them.

Because it is known which heads matter, the whole pipeline can be checked against the truth. Uses `engine` and the
vocabulary.
"""
