"""Models: find one on disk or on Hugging Face, check and describe it, and load it ready for ablation.

A model's files may come from anybody. So weights are read from safetensors files only, because loading pickled ones can
run code, and code that comes with a model is never run. Uses `engine`, `artifacts` and the vocabulary.
"""
