"""How an experiment's metrics are shown: their title, unit and digits, and which way is better."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Measure(NamedTuple):
    """How a metric is shown."""

    title: str
    scale: float = 1.0  # from the number in the table to the number shown
    digits: int = 1
    better: str = ""  # lower, higher, or neither
    unit: str = ""  # behind a figure
    points: str = ""  # behind a difference
    judged: bool = False  # its differences are called sure or not, and share in Holm's correction
    is_change: bool = False  # a difference itself

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1."""
        return self.scale == 100.0 and not self.is_change


def _share(title: str, better: str = "", *, judged: bool = False) -> Measure:
    return Measure(f"{title} %", 100.0, 1, better, " %", " points", judged)


def _change(title: str, better: str = "", *, judged: bool = False) -> Measure:
    return Measure(title, 100.0, 1, better, " points", " points", judged, is_change=True)


def _number(title: str, better: str = "", digits: int = 2) -> Measure:
    return Measure(title, 1.0, digits, better)


MEASURES: dict[str, Measure] = {
    "chair_s": _share("CHAIRs", "lower"),
    "chair_i": _share("CHAIRi", "lower", judged=True),
    "recall": _share("Recall", "higher", judged=True),
    "length": Measure("Length", 1.0, 1, "", " words", " words"),
    "tokens": Measure("tokens", 1.0, 1, "lower", " tokens", " tokens"),
    "budget": Measure("tokens to compare at", 1.0, 1, "", " tokens", " tokens"),
    "ms": Measure("ms", 1.0, 1, "lower", " ms", " ms"),
    "value_tokens": Measure("value tokens", 1.0, 1, "", " value tokens", " value tokens"),
    "prefill_tokens": Measure("prefill tokens", 1.0, 1, "", " prefill tokens", " prefill tokens"),
    "texts_scored": Measure("texts scored", 1.0, 1, "", " texts", " texts"),
    "rank_within": _number("rank correlation", "higher"),
    "auc_within": _number("AUC of returns", "higher"),
    "spearman": _number("rank correlation, pooled", "higher"),
    "spread": _number("spread of V", "", 3),
    "refused": Measure("refused", 1.0, 0),
    "td_error": _number("mean TD error", "", 3),
    "auc": _number("AUC", "higher"),
    "auc_pooled": _number("AUC, pooled", "higher"),
    "step_spread": _number("spread in a step", "", 3),
    "distinct": _share("distinct candidates"),
    "ties": _share("steps without a choice"),
    "agreement": _share("same captions"),
    "first_agreement": _share("same first sentence"),
    "pair_agreement": _share("same order of two candidates", "higher"),
    "pair_accuracy": _share("better one of two", "higher"),
    "swap_agreement": _share("same verdict when swapped", "higher"),
    "first_wins": _share("verdicts for what stands first"),
    "undecided": _share("no verdict"),
    "refined": _share("refined"),
    "changed": Measure("sentences replaced or dropped", 1.0, 2),
    "sentences": Measure("sentences", 1.0, 2),
    "greedy_chosen": _share("choices that are greedy"),
    "wrong_proposed": _share("hallucinated, proposed", "lower"),
    "wrong_chosen": _share("hallucinated, chosen", "lower"),
    "setup_seconds": Measure("s before the first caption", 1.0, 1, "lower", " s", " s"),
    "total_seconds": Measure("s in all", 1.0, 1, "lower", " s", " s"),
    "peak_mib": Measure("peak MiB", 1.0, 0, "lower", " MiB", " MiB"),
    "candidates": Measure("K", 1.0, 0),
    "tau": _number("margin", "", 3),
    "below_tau": _share("scores below the margin"),
    "accuracy": _share("accuracy", "higher", judged=True),
    "staged": _share("in four stages"),
    "concluded": _share("that conclude", "higher"),
    "same_answers": _share("answers as before", "higher"),
    "general_change": _change("change of general accuracy", "higher", judged=True),
    "length_change": _change("change of length %"),
    "ngram_drift": _number("word-pair divergence", "lower", 3),
    "ngram_drift_chance": _number("the same by chance", "", 3),
    "vocabulary_kept": _share("words the base used"),
    "shared_pairs": _share("word pairs shared with the base"),
    "repetition": _share("repeated sentences", "lower"),
    "examples": Measure("examples learned", 1.0, 0),
    "parameters": Measure("parameters", 1.0, 0, "", " parameters"),
    "pairs": Measure("pairs", 1.0, 0, "", " pairs"),
    "identical": _share("pairs of equal captions"),
    "ratings": Measure("ratings", 1.0, 0, "", " ratings"),
    "win_rate": _share("called better", "higher"),
    "tie_rate": _share("called equal"),
    "loss_rate": _share("called worse", "lower"),
    "net_rate": _change("called better less called worse", "higher", judged=True),
    "right_rate": _share("right side chosen"),
    "missing": Measure("pairs not rated", 1.0, 0, "", " pairs"),
    "cohen_kappa": _number("Cohen's kappa"),
    "krippendorff_alpha": _number("Krippendorff's alpha"),
}

# Metrics of many kinds: what stands before the kind, and how that kind is shown.
FAMILIES: dict[str, Callable[[str], Measure]] = {
    "stop: ": lambda kind: _share(f"stop: {kind}"),
    "T=": lambda kind: _share(f"T={kind}"),
    "chair_i: ": lambda kind: _share(f"CHAIRi, {kind}", "lower", judged=True),
    "recall: ": lambda kind: _share(f"Recall, {kind}", "higher"),
    "accuracy_": lambda kind: _share(f"accuracy, {kind.replace('_', ' ')}", "higher"),
    "rank: ": lambda kind: _number(f"rank with {kind}"),
}


def measure_of(metric: str) -> Measure:
    """How a metric is shown; one of a family by its kind, a difference as what it is of, an unknown one as it is."""
    plain = metric.partition(" - ")[0]
    for family, of_kind in FAMILIES.items():
        if plain.startswith(family):
            return of_kind(plain.removeprefix(family))
    return MEASURES.get(plain, Measure(plain, 1.0, 3))
