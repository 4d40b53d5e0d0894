"""The columns of every stage's artefact, after those that repeat the keys of its path: the public contract."""

import pyarrow as pa

SCHEMA_VERSION = 1
_TEXT, _TOKENS, _HEAD = pa.string(), pa.list_(pa.int32()), {"layer": pa.int16(), "head": pa.int16()}
_PROMPTS = {"model": _TEXT, "dataset": _TEXT, "template": _TEXT}
_SCORES = _PROMPTS | {"ablation": _TEXT}
_COMPLETIONS = _SCORES | {"plan": _TEXT, "decoding": _TEXT}
_VERDICTS = _COMPLETIONS | {"judge": _TEXT}

SCHEMAS: dict[str, pa.Schema] = {
    stage: pa.schema(columns)
    for stage, columns in {
        "datasets": {"dataset": _TEXT, "query_id": _TEXT, "query": _TEXT, "category": _TEXT, "target": _TEXT},
        "prompts": _PROMPTS | {"query_id": _TEXT, "text": _TEXT, "token_ids": _TOKENS},
        "ships": _SCORES | {"query_id": _TEXT, **_HEAD, "score": pa.float64()},
        "sahara": _SCORES | {"step": pa.int16(), **_HEAD, "score": pa.float64(), "selected": pa.bool_()},
        "completions": _COMPLETIONS
        | {
            "query_id": _TEXT,
            "variant": _TEXT,
            "heads": pa.list_(pa.struct(_HEAD)),
            "sample": pa.int32(),
            "text": _TEXT,
            "token_ids": _TOKENS,
            "n_tokens": pa.int32(),
            "finish_reason": _TEXT,
        },
        "verdicts": _VERDICTS
        | {
            "query_id": _TEXT,
            "variant": _TEXT,
            "sample": pa.int32(),
            "harmful": pa.bool_(),
            "probability": pa.float64(),
            "reason": _TEXT,
        },
        "rates": _VERDICTS
        | {"variant": _TEXT, "n": pa.int64()}
        | dict.fromkeys(("harmful", "asr", "low", "high", "delta", "p_value", "p_adjusted"), pa.float64()),
    }.items()
}
