"""Words of judges that the configuration shares: what they find, which need a model, how templates are written."""

from typing import Literal

Detects = Literal["refusal", "harm"]
"""What a judge finds: that a request is refused (keyword lists), or that an answer is harmful (classifiers of harm)."""

NEED_A_MODEL = ("classifier", "generative")
"""The kinds of judges that compute with a model of their own. They judge in a job of their own (rule `judged`)."""

CHAT = "chat"
"""The template of a judge that is the chat template of its own tokenizer."""

PLACES = {
    "query": ("query", "behavior", "forbidden_prompt", "prompt", "goal", "request", "instruction"),
    "answer": ("answer", "generation", "response", "completion"),
}
"""What templates of judges call their two places, such as `{behavior}` and `{generation}`."""
