"""The heart: ablating heads in each row of a batch, passes that compute only what changes, generation with a cache.

Read it in this order: `ablation` -> `layer_shortcuts` -> `partial_forward` -> `self_checks`, then `batches`,
`kv_cache`, `prefill`, `shared_rows`, `generation`. Uses `artifacts` (for parts) and the vocabulary.
"""
