"""The columns of tables that have many, separated by spaces, what some of them mean, and the types of all columns.

`schemas` uses them.
"""

CORRECTED_BY = "labels whose errors were counted: `plain`, `ablated`, `all`; null: none, or a useless judge"
COMPARED = "plain ablated effect effect_low effect_high p_value p_adjusted"
EFFECTS = " ".join(
    (
        *(f"n {COMPARED}", *(f"{name}{end}" for end in ("_asr", "_refused") for name in COMPARED.split())),
        "control over_control over_control_low over_control_high p_control p_control_least draws",
        "over_control_asr p_control_asr uniform potency interaction degenerate harmless_kl over_refusal leaks",
        "selected_here corrected_asr corrected_low corrected_high",
        "corrected_effect corrected_effect_low corrected_effect_high corrected_by",
    )
)
ABOUT_EFFECTS = {
    **{"n": "prompts", "plain": "share with outcome `complied`; `_asr`: as the judge says; `_refused`: that refuse"},
    **{"effect_high": "score interval, 95 %", "p_value": "exact sign test", "p_adjusted": "Holm"},
    **{"control": "mean of `matched-PLAN`", "over_control": "effect less that of the control"},
    **{"over_control_high": "bootstrap over prompts and draws, 95 %", "p_control": "randomisation"},
    **{"p_control_least": "the smallest that `draws` can give", "uniform": "mean of `random-N`"},
    **{"potency": "effect over what is possible", "interaction": "effect less its heads' own effects"},
    **{"degenerate": "share of broken answers", "harmless_kl": "nats, on benign data sets"},
    **{"over_refusal": "change of the refused share there", "leaks": "queries that heads were chosen on"},
    **{"selected_here": "heads were chosen on the measured data set"},
    **{"corrected_asr": "ablated, corrected for the judge's errors", "corrected_high": "bootstrap, 95 %"},
    **{"corrected_effect": "less the plain one, corrected", "corrected_by": CORRECTED_BY},
}
ABOUT_SCORES = {
    **{"step": "from 1, of a method that searches; null: it does not"},
    **{"score": "by the method; the higher, the more the head matters; of those with a sign, for refusing"},
    **{"support": "share of resampled masks, or of starts, that choose the head; null: there are none"},
    **{"selected": "the head is of the method's own choice; null: it makes none"},
}
_CHANGES = [
    f"{name}_{end}"
    for name in ("score", "refusal_shift", "to_query")
    for end in ("clean", "attack", "change", "change_low", "change_high")
]
ATTACKS = " ".join(("model dataset ablation clean attack layer head n", *_CHANGES))
ABOUT_ATTACKS = {
    **{"clean": "template", "attack": "template", "n": "queries that both have", "score_clean": "mean Ships, nats"},
    **{"score_change": "attack less clean", "score_change_high": "bootstrap over queries, 95 %"},
    **{"refusal_shift_clean": "mean, nats; null: the model hardly refuses", "to_query_clean": "mean share"},
}
MAP = "plain highest lowest expected_highest expected_lowest spread expected_spread p_value cochran_q cochran_p up down"
MAPS = " ".join(("n n_heads needed", *(f"{name}{end}" for end in ("", "_asr") for name in MAP.split())))
MAP_HEAD = "plain ablated effect up down p_value p_adjusted"
MAPS_BY_HEAD = " ".join(f"{name}{end}" for end in ("", "_asr") for name in MAP_HEAD.split())
CONCENTRATION = " ".join(
    (
        "n_heads gini top_share effective_heads largest heads_asr heads_coherent",
        *(
            f"{name}_correlation{end}"
            for end in ("", "_asr")
            for name in ("score", "refusal_shift", "answer_shift", "highest")
        ),
        "p_refusal p_refusal_benign refusal_auroc",
    )
)

ABOUT_CONCENTRATION = {
    "n_heads": "of the model",
    **{"source": "the data set that heads are chosen on", "gini": "of the mean scores of heads, at least 0"},
    **{"top_share": "of the sum, that the highest 1 % of heads have", "effective_heads": "1 / sum of squared shares"},
    **{"largest": "the most heads that were ablated", "heads_asr": "the fewest with an ASR of 0.5 or more"},
    **{"heads_coherent": "with a coherent ASR of 0.5 or more"},
    **{"score_correlation": "over heads, with the effect of each alone (Spearman); `_asr`: on ASR"},
    **{"highest_correlation": "of the best ranking, below 1 as heads tie that do the same"},
    **{"p_refusal": "of the plain model's first token, on the prompts of the scores"},
    **{"refusal_auroc": "harmful against benign"},
}
PAPER_VS_OURS = (
    "place quantity model dataset template ablation plan paper spread about our_model our_dataset our_template "
    "our_ablation decoding judge n ours low high agreement why coherent"
)
ABOUT_PAPER_VS_OURS = {
    **{"place": "in the paper", "model": "this and the next: the paper's; empty: not stated", "high": "95 %"},
    **{"our_model": "this and the next: of the cell that measured it", "coherent": "the same of coherent answers"},
    "agreement": "`inside` the interval, `outside`, `not comparable` (and `why`), `not run`",
}

_COUNTS = ("tp", "fp", "tn", "fn")
CALIBRATION = " ".join(
    (
        *("n unsure", *_COUNTS, *(f"{name}_share" for name in _COUNTS)),
        "sensitivity sensitivity_low sensitivity_high specificity specificity_low specificity_high",
        "kappa annotators pairs people_kappa corrected_by reason",
    )
)
ABOUT_CALIBRATION = {
    **{"condition": "`plain`, `ablated`, `all`", "n": "texts with a decision of people", "unsure": "without one"},
    **{"tp": "harmful to judge and people", "fn": "harmful to people alone", "tp_share": "weighted"},
    **{"sensitivity_high": "posterior draws within strata, 95 %", "kappa": "judge and people"},
    **{"pairs": "of labels by two people on one text", "people_kappa": "people with each other"},
    **{"corrected_by": "the labels by which rates of this condition are corrected", "reason": "why others, or none"},
}
AGREEMENT = "n both_harmful only_first only_second neither agreement kappa"

_NUMBERS = (
    "score support refusal_shift answer_shift probability first_kl plain_nll asr low high delta delta_low delta_high "
    f"coherent_asr coherent_low coherent_high refused unfinished short other share margin {CONCENTRATION}"
)
TYPES = {
    **dict.fromkeys(("layer", "head", "step"), "int16"),
    **dict.fromkeys(("sample", "n_tokens"), "int32"),
    **dict.fromkeys([*_NUMBERS.split(), "to_query", *_CHANGES], "float64"),
    **dict.fromkeys(("largest", "heads_asr", "heads_coherent"), "int64"),
    "chosen": "bool",
    **dict.fromkeys([*EFFECTS.split(), *MAPS.split(), *MAPS_BY_HEAD.split()], "float64"),
    **dict.fromkeys([*CALIBRATION.split(), *AGREEMENT.split(), "weight", "asr_lowest", "asr_highest"], "float64"),
    **dict.fromkeys(("unsure", "tp", "fp", "tn", "fn", "annotators", "pairs"), "int64"),
    **dict.fromkeys(("both_harmful", "only_first", "only_second", "neither"), "int64"),
    **{"label": "bool", "judged": "bool", "corrected_by": "string", "reason": "string"},
    **dict.fromkeys(("n_heads", "needed", "up", "down", "up_asr", "down_asr"), "int64"),
    **{"item": "int32", "value": "float64"},
    **dict.fromkeys(("paper", "spread", "ours", "coherent"), "float64"),
    **{"texts": "float64", "verdicts": "float64", "draws": "int64", "leaks": "int64", "selected_here": "bool"},
    **{"n": "int64", "selected": "bool", "token_ids": "tokens", "heads": "heads"},
}
"""The types of columns by name; others are text. `harmful` is missing: it is true or false, but a number in rates."""
