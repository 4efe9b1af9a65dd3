"""The evaluations of a recipe, each written as a results file when it is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fieldmark.backbones import Encoder
from fieldmark.data import ImageStore, own_episodes
from fieldmark.training.schema import DataSpec, EvaluationSpec, Recipe

Load = Callable[[str, DataSpec | None], ImageStore]


def run_evaluations(recipe: Recipe, encoder: Encoder, facts: dict[str, Any], load: Load, folder: Path) -> None:
    """Run those that have no results file yet.

    Args:
        recipe: Names the evaluations.
        encoder: The finished model.
        facts: What is known of it, for the leakage check and the record.
        load: Split and data set to images.
        folder: Where the results go, one JSON file each.

    Raises:
        FieldmarkError: If a test class of few-shot episodes was trained on, the data has too few classes or images, or
            other classes than the model's classifier.
    """
    from fieldmark.evaluation import make_record, save_record

    for spec in recipe.evaluations:
        title = spec.title(recipe.data.name)
        path = folder / f"{title}.json"
        if path.exists():
            continue
        rows = (_rows if spec.task == "few-shot" else _top1_rows)(recipe, spec, encoder, facts, load)
        known = {
            "backbone": encoder.backbone.name,
            "backbone_options": encoder.backbone.options,
            "parameters": sum(p.numel() for p in encoder.backbone.parameters()),
            "trained": True,
            **facts,
        }
        save_record(path, make_record(f"{recipe.name}/{title}", rows, {recipe.name: known}))


def _rows(
    recipe: Recipe, spec: EvaluationSpec, encoder: Encoder, facts: dict[str, Any], load: Load
) -> list[dict[str, Any]]:
    from fieldmark import heads
    from fieldmark.evaluation import evaluate_runs
    from fieldmark.evaluation.leakage import require_new_classes

    names = {str(number): head.name for number, head in enumerate(spec.heads)}
    options = {str(number): head.options for number, head in enumerate(spec.heads)}
    needs_base = any(heads.create_for(encoder, head.name, **head.options).needs_base for head in spec.heads)
    store = load(spec.split, spec.data)
    left_out: list[str] = []
    if spec.seen_classes == "leave_out":
        left_out = require_new_classes(facts, store, allow=True)
        store = store.select_classes([name for name in store.class_names if name not in left_out])
    episodes = own_episodes((spec.data or recipe.data).name, store) or spec.episodes
    descriptors = spec.descriptors or recipe.descriptors
    results = evaluate_runs(
        encoder, store, names, spec.runs, spec.way, spec.shot, spec.queries, episodes, spec.seed,
        support_copies=spec.support_copies, head_options=options, descriptors=descriptors.name,
        descriptor_options=descriptors.options, facts=facts, allow_leakage=spec.seen_classes == "allow",
        base_data=load(recipe.data.train, None) if needs_base else None,
    )  # fmt: skip
    extra = {"left_out_classes": left_out} if left_out else {}
    return [{"model": recipe.name, **result.to_dict(), **extra} for result in results.values()]


def _top1_rows(
    recipe: Recipe, spec: EvaluationSpec, encoder: Encoder, facts: dict[str, Any], load: Load
) -> list[dict[str, Any]]:
    from fieldmark.evaluation import evaluate_robustness, evaluate_top1

    descriptors = spec.descriptors or recipe.descriptors
    evaluate: Callable[..., Any] = evaluate_top1 if spec.task == "top1" else evaluate_robustness
    given: dict[str, Any] = {"facts": facts, "seed": spec.seed}
    if spec.head is not None:
        given |= {
            "head": spec.head.name,
            "head_options": spec.head.options,
            "support_data": load((spec.data or recipe.data).train, spec.data),
            "descriptors": descriptors.name,
            "descriptor_options": descriptors.options,
        }
    result = evaluate(encoder, load(spec.split, spec.data), **given)
    return [{"model": recipe.name, **result.to_dict()}]
