"""The heart: ablating heads in each row of a batch, passes that compute only what changes, generation with a cache.

Read it in this order; each module uses only those before it:

1. `supported_families`, `ablation`: heads are ablated where attention happens, in each row of a batch its own.
2. `context`, `positions`: how long a text may be, and where the model's rotary frequencies change.
   `decoder`, `prefix_cache`, `layer_shortcuts`, `partial_forward`: passes leave out what an ablation does not change.
   `shared_prefix`: what all prompts begin with is computed once for each head set.
3. `self_checks`: these shortcuts, tried on the loaded model. `kernels`: which attention kernels it runs.
   `reference_attention`, `probes`, `model_checks`: whether model, device and ablation can be trusted at all.
4. `batches`, `out_of_memory`: which rows are computed together, and what if they do not fit.
5. `kv_cache`, `prefill`, `shared_rows`: prompts are computed once for the rows that share them, and rows that say what
   the plain model says are not computed twice. `generation_checks`: these, tried on the loaded model.
6. `generation`, `plain_rows`, `completions`: tokens, the names of what plain rows say, and a plan's table of both.
7. `ablated`: the public door's block, for models that a user has loaded himself. `task_accuracy` asks tasks within it.

Uses `artifacts` (for parts) and the vocabulary.
"""
