"""How good is a model: the few-shot protocol, honest statistics, and results that say where they come from."""

from fieldmark.evaluation.features import descriptors_of, encode
from fieldmark.evaluation.few_shot import FewShotResult, evaluate_few_shot, evaluate_heads, score_episodes
from fieldmark.evaluation.leakage import require_new_classes
from fieldmark.evaluation.provenance import provenance
from fieldmark.evaluation.results import compare_rows, load_record, make_record, save_record
from fieldmark.evaluation.statistics import Estimate, estimate, paired_difference

__all__ = [
    "Estimate",
    "FewShotResult",
    "compare_rows",
    "descriptors_of",
    "encode",
    "estimate",
    "evaluate_few_shot",
    "evaluate_heads",
    "load_record",
    "make_record",
    "paired_difference",
    "provenance",
    "require_new_classes",
    "save_record",
    "score_episodes",
]
