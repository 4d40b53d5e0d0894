"""SafetyHeads: which attention heads carry a model's refusals, and how fragile is that?

The modules, in the order in which data meets them: `config` (its parts are `config_*`), `heads`, `artifacts`,
`datasets` and `download`, `models`, `checkpoint` and `demo`, `decoder`, `prompts`, `ablation`, `layer_shortcuts` and
`partial_forward`, `batches`, `sweep`, `ships`, `sahara`, `plans`, `cache` and `prefill`, `generation`, `completions`,
`judges`, `statistics`, `report`. `job` and `fingerprint` serve the scripts and rules of the pipeline; nothing here
knows of Snakemake.
"""

__version__ = "0.1.0"
