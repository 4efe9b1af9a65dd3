"""Reproduce rows: train what they need, test it by the paper's protocol, write one results file a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fieldmark.errors import FieldmarkError
from fieldmark.files import read_json
from fieldmark.reproduce.catalogue import Row
from fieldmark.reproduce.plan import Changes, Plan, RetrievalSpec, Training, plan_of
from fieldmark.reproduce.state import Places, missing_data, require_data, result_path
from fieldmark.training.checks import check_values
from fieldmark.training.recipe import check_names, set_dotted
from fieldmark.training.schema import EvaluationSpec, Recipe
from fieldmark.training.typed import build

_EVALUATED = ("commit", "time", "hardware", "threads", "versions")


def reproduce_row(
    row: Row,
    places: Places,
    *,
    seeds: Sequence[int] = (0,),
    changes: Changes | None = None,
    results: str | Path = "results",
    runs: str | Path = "runs/reproduce",
    folder: Path | None = None,
) -> Path | None:
    """Train and test a row as the paper did, and write ``results/PAPER/TABLE-ROW.json``.

    Interrupted, the same call goes on; what is in the results file already, of the same training and test, is not done
    again. Columns whose data is not here are left out, and can be added later.

    Args:
        row: An own row.
        places: Where the data is.
        seeds: Of the trainings, one model each.
        changes: What is to be done otherwise than the paper had it; the file then has a name of its own.
        results: Folder of the results.
        runs: Folder of the run folders; the same training of two rows is one run.
        folder: Where the papers' files are; default: those that come with fieldmark.

    Returns:
        The results file; in a training on several processes None for all but the first.

    Raises:
        FieldmarkError: For a row that is not run, data that is not here, or a recipe that does not take an option.
        TrainingInterrupted: After Ctrl-C or a termination signal; what was done is saved.
    """
    from fieldmark.training import is_main_process

    changes = changes or Changes()
    path = result_path(row, results, changes)
    plans = runnable(row, places, seeds, changes, folder)
    for plan in plans:
        _check(plan)
    for together in _by_training(plans):
        left = [plan for plan in together if not _is_done(path, plan)]
        if not left:
            continue
        run = _train(left[0].training, places, Path(runs))
        if is_main_process():
            _test(run, left, places)
            _add(path, row, plans, [(plan, run) for plan in left], changes)
    return path if is_main_process() else None


def runnable(
    row: Row, places: Places, seeds: Sequence[int], changes: Changes | None = None, folder: Path | None = None
) -> list[Plan]:
    """The plans of a row's cells whose data is here, for every seed.

    Raises:
        FieldmarkError: If none can be run; says what is needed.
    """
    plans = [plan_of(row, cell, seed, changes, folder) for seed in seeds for cell in row.cells.values()]
    needed = {name for plan in plans for name in plan.data}
    if "" in places.given and len(needed) > 1:
        raise FieldmarkError(
            f"{row.address} needs {len(needed)} data sets, and --root names one path; give --root DATA=PATH for each "
            f"of {', '.join(sorted(needed))}"
        )
    here = [plan for plan in plans if not missing_data(plan.data, places)]
    if not here:
        require_data(plans[0].data, places, row.address)
    return here


def _by_training(plans: Sequence[Plan]) -> Iterator[list[Plan]]:
    groups: dict[str, list[Plan]] = {}
    for plan in plans:
        groups.setdefault(plan.training.recipe.name, []).append(plan)
    yield from groups.values()


def _check(plan: Plan) -> None:
    """Refuse an option that the recipe does not take before anything is trained."""
    spec = plan.evaluation
    tested = [spec] if isinstance(spec, EvaluationSpec) else []
    if isinstance(spec, RetrievalSpec):
        from fieldmark import descriptors
        from fieldmark.evaluation.retrieval import make_similarity

        make_similarity(spec.metric, spec.metric_options)
        if spec.descriptors is not None:
            descriptors.create(spec.descriptors.name, **spec.descriptors.options)
    recipe = replace(plan.training.recipe, evaluations=tested)
    check_values(recipe)
    check_names(recipe)


def _is_done(path: Path, plan: Plan) -> bool:
    if not path.exists():
        return False
    return any(_key(row) == (plan.training.recipe.name, plan.name) and plan.cell.column.id in row["reproduces"]
               for row in read_json(path, "result")["rows"])  # fmt: skip


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["training"], row["test"]


def _train(training: Training, places: Places, runs: Path) -> Path:
    """The run folder of a training; a finished one is taken as it is, an interrupted one goes on."""
    from fieldmark.training import train

    teachers = {key: _train(one, places, runs) for key, one in training.teachers.items()}
    recipe = _placed(training.recipe, places, {key: str(path) for key, path in teachers.items()})
    return train(recipe, runs, evaluate=False)


def _placed(recipe: Recipe, places: Places, settings: Mapping[str, Any]) -> Recipe:
    """A recipe with the paths of this machine."""
    tree = recipe.to_dict()
    for key, value in settings.items():
        set_dotted(tree, key, value)
    recipe = build(Recipe, tree)
    return replace(recipe, data=replace(recipe.data, root=places.find(recipe.data.name) or None))


def _test(run: Path, plans: Sequence[Plan], places: Places) -> None:
    """A results file in the run's folder for every test that has none."""
    from fieldmark.backbones import load_model
    from fieldmark.training.evaluate import run_evaluations
    from fieldmark.training.run import device_of
    from fieldmark.training.splits import Splits

    recipe = _placed(plans[0].training.recipe, places, {})
    encoder, facts = load_model(run)
    encoder.to(device_of(recipe))
    splits = Splits(recipe.data, {}, recipe.seed)
    specs = {plan.name: plan.evaluation for plan in plans}
    trained = [_with_root(one, places) for one in specs.values() if isinstance(one, EvaluationSpec)]
    run_evaluations(replace(recipe, evaluations=trained), encoder, facts, splits.get, run / "results")
    for name, spec in specs.items():
        if isinstance(spec, RetrievalSpec) and not (run / "results" / f"{name}.json").exists():
            _test_retrieval(run, name, spec, encoder, facts, recipe, splits)


def _with_root(spec: EvaluationSpec, places: Places) -> EvaluationSpec:
    if spec.data is None:
        return spec
    return replace(spec, data=replace(spec.data, root=places.find(spec.data.name) or None))


def _test_retrieval(
    run: Path, name: str, spec: RetrievalSpec, encoder: Any, facts: dict[str, Any], recipe: Recipe, splits: Any
) -> None:
    from fieldmark.evaluation import evaluate_retrieval, make_record, save_record

    descriptors = spec.descriptors or recipe.descriptors
    result = evaluate_retrieval(
        encoder, splits.get(spec.split), spec.metric, spec.shortlist, spec.metric_options,  # type: ignore[arg-type]
        descriptors.name, descriptors.options, seed=spec.seed, facts=facts,
    )  # fmt: skip
    known = {
        "backbone": encoder.backbone.name,
        "backbone_options": encoder.backbone.options,
        "parameters": sum(p.numel() for p in encoder.backbone.parameters()),
        "trained": True,
        **facts,
    }
    row = {"model": recipe.name, **result.to_dict()}
    save_record(run / "results" / f"{name}.json", make_record(f"{recipe.name}/{name}", [row], {recipe.name: known}))


def _add(path: Path, row: Row, plans: Sequence[Plan], done: Sequence[tuple[Plan, Path]], changes: Changes) -> None:
    """Put what was measured into the row's file, beside and renamed; what it held of other cells and seeds stays."""
    from fieldmark.evaluation import load_record, make_record, save_record

    before: dict[str, Any] = load_record(path) if path.exists() else {"rows": [], "models": {}}
    rows = {_key(one): one for one in before["rows"]}
    models = dict(before["models"])
    for plan, run in done:
        recipe = plan.training.recipe
        record = load_record(run / "results" / f"{plan.name}.json")
        column, take = plan.cell.column.id, plan.cell.column.take
        # A number of the same column and seed by an older training or test gives way.
        for one in rows.values():
            if one["seed"] == recipe.seed and column in one["reproduces"]:
                one["reproduces"].pop(column)
        key = (recipe.name, plan.name)
        rows[key] = {
            **record["rows"][0],
            "seed": recipe.seed,
            "training": recipe.name,
            "training_seconds": _seconds(run, recipe),
            "test": plan.name,
            "reproduces": {**rows.get(key, {}).get("reproduces", {}), column: take},
            "evaluated": {name: record["provenance"][name] for name in _EVALUATED},
        }
        models |= record["models"]
    kept = [one for one in rows.values() if one["reproduces"]]
    models = {name: models[name] for name in dict.fromkeys(one["model"] for one in kept)}
    title = f"{row.paper}, Table {row.table}: {row.label}"
    published = [] if changes else _published(row)
    record = make_record(title, sorted(kept, key=lambda one: (one["seed"], *one["reproduces"])), models, published)
    entry = {
        "paper": row.paper, "table": row.table, "row": row.id, "label": row.label, "variant": row.variant,
        "seeds": sorted({one["seed"] for one in kept}),
        "columns": {
            **before.get("entry", {}).get("columns", {}),
            **{plan.cell.column.id: _column(plan) for plan in plans},
        },
        **({"changes": changes.to_dict()} if changes else {}),
    }  # fmt: skip
    save_record(path, {**record, "entry": entry})


def _published(row: Row) -> list[dict[str, Any]]:
    return [
        {
            "label": f"{row.paper}, Table {row.table}, {cell.column.label}",
            "mean": round(cell.value / 100, 6),
            "ci95": None if cell.ci95 is None else round(cell.ci95 / 100, 6),
            "column": name,
            "head": None,
        }
        for name, cell in row.cells.items()
        if cell.value is not None
    ]


def _column(plan: Plan) -> dict[str, Any]:
    cell = plan.cell
    return {
        "label": cell.column.label,
        "published": [cell.value, cell.ci95],
        "data": list(plan.data),
        "recipe": cell.recipe,
        "options": dict(cell.options),
        "protocol": {key: value for key, value in asdict(plan.evaluation).items() if key != "name"},
    }


def _seconds(run: Path, recipe: Recipe) -> float:
    """How long the stages of a finished run took."""
    outcomes = [read_json(run / "stages" / stage.name / "done.json", "stage") for stage in recipe.stages]
    return round(sum(epoch["seconds"] for one in outcomes for epoch in one["rows"]), 3)
