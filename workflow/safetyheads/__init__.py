"""SafetyHeads: which attention heads carry a model's refusals, and how fragile is that?"""

__version__ = "0.1.0"
