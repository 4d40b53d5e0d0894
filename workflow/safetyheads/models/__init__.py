"""Models: find one on disk or on Hugging Face, check and describe it, load it ready for ablation.

Only safetensors are read, and code that comes with a model is never run. Uses `engine`, `artifacts` and the vocabulary.
"""
