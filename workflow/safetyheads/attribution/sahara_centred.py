"""Sahara on centred states: all states less the plain model's mean over the prompts.

Sahara's first singular vector is mostly the mean of all prompts' states, which hardly turns whatever is ablated. A
group that moves all prompts alike leaves it where it is, however far it moves them; one that moves a tenth of them may
turn it further than one that moves half. Without the plain mean what is left are differences between prompts, and what
an ablation adds to them. It has to be the plain model's mean for plain and ablated states alike: their own mean would
take a move of all prompts away with it.
"""

from functools import partial

from safetyheads.attribution.sahara import sahara

sahara_centred = partial(sahara, centred=True)
"""Search a group of heads as `sahara` does, with its arguments, columns and errors, on centred states."""
