"""How good is a model: the few-shot protocol, honest statistics, and results that say where they come from."""

from fieldmark.evaluation.features import encode
from fieldmark.evaluation.few_shot import FewShotResult, evaluate_few_shot, evaluate_heads, score_episodes
from fieldmark.evaluation.leakage import require_new_classes
from fieldmark.evaluation.provenance import provenance
from fieldmark.evaluation.results import compare_rows, load_record, make_record, save_record
from fieldmark.evaluation.retrieval import RetrievalResult, evaluate_metrics, evaluate_retrieval
from fieldmark.evaluation.retrieval_measures import RetrievalMeasures, retrieval_measures
from fieldmark.evaluation.robustness import RobustnessResult, evaluate_robustness
from fieldmark.evaluation.runs import FewShotRuns, evaluate_runs
from fieldmark.evaluation.statistics import Estimate, estimate, paired_difference
from fieldmark.evaluation.top1 import evaluate_top1
from fieldmark.evaluation.top1_result import Top1Result

__all__ = [
    "Estimate",
    "FewShotResult",
    "FewShotRuns",
    "RetrievalMeasures",
    "RetrievalResult",
    "RobustnessResult",
    "Top1Result",
    "compare_rows",
    "encode",
    "estimate",
    "evaluate_few_shot",
    "evaluate_heads",
    "evaluate_metrics",
    "evaluate_retrieval",
    "evaluate_robustness",
    "evaluate_runs",
    "evaluate_top1",
    "load_record",
    "make_record",
    "paired_difference",
    "provenance",
    "require_new_classes",
    "retrieval_measures",
    "save_record",
    "score_episodes",
]
