"""Measure comparisons: images are encoded once for a data set and backbone; a number of shots is one results file."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fieldmark.data import DATASETS, ImageStore
from fieldmark.errors import FieldmarkError
from fieldmark.files import read_json
from fieldmark.picks.catalogue import Comparison, HeadSpec
from fieldmark.reproduce.state import VARIABLE, Places

Say = Callable[[str], None]


def is_measured(comparison: Comparison, shot: int, out: str | Path) -> bool:
    """Whether the results file is there and was made with the settings that the list has now."""
    path = comparison.file(shot, out)
    return path.exists() and read_json(path, "result").get("pick", {}).get("settings") == comparison.settings(shot)


def hindrance(comparison: Comparison, places: Places) -> str:
    """Why a comparison cannot be measured here, in one line; "" if it can.

    Example:
        >>> from fieldmark.picks import find, load_list
        >>> here = Places(folders=[Path("nowhere")])
        >>> hindrance(find(load_list(), ["fc100"])[0], here).split(":")[0]
        "data set 'fc100' is not here"
    """
    spec = comparison.data
    if spec.root is not None:
        if not Path(spec.root).expanduser().exists():
            return f"no such file or folder: {spec.root}, given as the root of data set {spec.name!r}"
    elif places.find(spec.name) is None:
        obtain = DATASETS.get(spec.name).facts["obtain"] or spec.name
        return (
            f"data set {spec.name!r} is not here: {places.looked_for(spec.name)} (get it as: {obtain}); give "
            f"--root {spec.name}=PATH, or set {VARIABLE} to the folder that holds it"
        )
    model = Path(comparison.backbone.model)
    if model.suffix and not model.exists():
        return f"no model at {model}; run this in the repository's folder, where the list looks for it"
    return ""


def measure(
    comparison: Comparison, places: Places, out: str | Path = "results/picks", *, say: Say = print, device: str = "cpu"
) -> list[Path]:
    """Measure what a comparison lacks, one results file a number of shots, written as each is done.

    Interrupted, the same call goes on at the first number of shots that has no file; files of other settings than the
    list's are replaced.

    Args:
        comparison: Data set and backbone.
        places: Where data is.
        out: Folder of the results.
        say: Told what was done.
        device: Where images are encoded and heads run; what a query costs is measured on the processor.

    Returns:
        The files that were written.

    Raises:
        FieldmarkError: If the data or model is not here, or does not do for the episodes.
    """
    shots = [shot for shot in comparison.episodes if not is_measured(comparison, shot, out)]
    if not shots:
        return []
    reason = hindrance(comparison, places)
    if reason:
        raise FieldmarkError(f"{comparison.address}: {reason}")
    model, facts, size = _model(comparison, torch.device(device))
    listed, spec = comparison.listed, comparison.data
    test, base, val = (_images(comparison, split, places, size) for split in (spec.test, spec.base, spec.val))
    base = some_of(base, listed.base_images, listed.seed)
    val = some_of(val, listed.validation.images, listed.seed, listed.validation.shot + spec.queries)
    chosen = _choose(comparison, model, facts, val, base)
    for key, found in chosen.items():
        say(f"{comparison.address}: {comparison.heads[key].title}: {found['options']}, chosen on {spec.val}")
    described: dict[str, dict[str, torch.Tensor]] = {}
    written = []
    for shot in shots:
        started = time.perf_counter()
        record = _record(comparison, shot, (model, facts), test, base, chosen, described)
        written.append(_save(comparison, shot, out, record, chosen))
        say(f"{comparison.address}, {shot} shot: {time.perf_counter() - started:.0f} s, {written[-1]}")
    return written


def some_of(store: ImageStore, images: int, seed: int, least: int = 1) -> ImageStore:
    """About so many images, as many of each class, drawn by a seed; all of a small store, and of a small class.

    Args:
        store: The images.
        images: How many, about.
        seed: Of the draw.
        least: So many of each class in any case.

    Example:
        >>> from fieldmark import data
        >>> glyphs = data.load("glyphs", split="val")
        >>> some_of(glyphs, 2 * len(glyphs.class_names), 0).class_counts().tolist()[:5]
        [2, 2, 2, 2, 2]
    """
    if len(store) <= images:
        return store
    each = max(least, math.ceil(images / len(store.class_names)))
    order = np.random.default_rng(seed).permutation(len(store))
    order = order[np.argsort(store.labels[order], kind="stable")]
    labels = store.labels[order]
    place = np.arange(len(order)) - np.searchsorted(labels, labels)  # number of an image within its class
    return store.subset(np.sort(order[place < each]))


def _model(comparison: Comparison, device: torch.device) -> tuple[Any, dict[str, Any], int | None]:
    """The model, what is known of it, and the size of the images to be stored."""
    from fieldmark.backbones import Encoder
    from fieldmark.cli.models import find_model, image_size

    backbone = comparison.backbone
    model, facts = find_model(backbone.model, device)
    size = comparison.size
    if backbone.input is not None:
        if not isinstance(model, Encoder):
            raise FieldmarkError(f"backbone {backbone.model!r} has no normalisation of its own; leave out its input")
        # Small images are enlarged as they are encoded, and stored as they are.
        model.size = backbone.input
        facts = {**facts, "input_size": backbone.input}
    elif size is None:
        size = image_size(model, facts)
    return model, facts, size


def _images(comparison: Comparison, split: str, places: Places, size: int | None) -> ImageStore:
    from fieldmark import data

    spec = comparison.data
    root = spec.root if spec.root is not None else places.find(spec.name)
    return data.load(spec.name, root or None, split, size=size)


def _choose(
    comparison: Comparison, model: Any, facts: Mapping[str, Any], val: ImageStore, base: ImageStore
) -> dict[str, dict[str, Any]]:
    """For each head with a choice: its options, and how all candidates did on the validation classes."""
    from fieldmark.evaluation import evaluate_heads

    how = comparison.listed.validation
    candidates = {
        key: {f"{key} {number}": options for number, options in enumerate(_candidates(head))}
        for key, head in comparison.heads.items()
        if head.choose
    }
    if not candidates:
        return {}
    every = {
        name: (comparison.heads[key], options) for key, some in candidates.items() for name, options in some.items()
    }
    # All in one call, which encodes the images once.
    results = evaluate_heads(
        model, val, {name: head.head for name, (head, _) in every.items()}, comparison.listed.way, how.shot,
        comparison.data.queries, how.episodes, comparison.listed.seed,
        head_options={name: {**head.options, **options} for name, (head, options) in every.items()},
        base_data=base, facts=facts,
    )  # fmt: skip
    return {
        key: {
            "options": some[max(some, key=lambda name: results[name].accuracy)],
            "split": comparison.data.val,
            "candidates": [{"options": options, **results[name].estimate.to_dict()} for name, options in some.items()],
        }
        for key, some in candidates.items()
    }


def _candidates(head: HeadSpec) -> list[dict[str, Any]]:
    return [dict(zip(head.choose, values, strict=True)) for values in itertools.product(*head.choose.values())]


def _record(
    comparison: Comparison,
    shot: int,
    known: tuple[Any, Mapping[str, Any]],
    test: ImageStore,
    base: ImageStore,
    chosen: Mapping[str, Mapping[str, Any]],
    described: dict[str, dict[str, torch.Tensor]],
) -> dict[str, Any]:
    from fieldmark.evaluation import evaluate_heads, make_record

    listed, (model, facts) = comparison.listed, known
    options = {
        key: {**head.options, **chosen.get(key, {}).get("options", {})} for key, head in comparison.heads.items()
    }
    results = evaluate_heads(
        model, test, {key: head.head for key, head in comparison.heads.items()}, listed.way, shot,
        comparison.data.queries, comparison.episodes[shot], listed.seed, head_options=options, base_data=base,
        facts=facts, described=described, cost_episodes=listed.cost_episodes,
    )  # fmt: skip
    name = comparison.backbone.model
    rows = [{"model": name, "pick": key, **result.to_dict()} for key, result in results.items()]
    return make_record(f"What to pick: {comparison.address}, {shot} shot", rows, {name: facts})


def _save(
    comparison: Comparison, shot: int, out: str | Path, record: Mapping[str, Any], chosen: Mapping[str, Any]
) -> Path:
    from fieldmark.evaluation import save_record
    from fieldmark.evaluation.provenance import provenance

    command = ["python", "-m", "fieldmark.picks", comparison.address, "--run"]
    pick = {"address": comparison.address, "shot": shot, "settings": comparison.settings(shot), "chosen": chosen}
    made = {**record["provenance"], "command": provenance(command)["command"]}
    return save_record(comparison.file(shot, out), {**record, "provenance": made, "pick": pick})


def overview(comparisons: Sequence[Comparison], places: Places, out: str | Path) -> list[tuple[str, ...]]:
    """For each comparison: address, episodes by shots, the shots that are measured, and what hinders the rest."""
    lines: list[tuple[str, ...]] = []
    for one in comparisons:
        done = [shot for shot in one.episodes if is_measured(one, shot, out)]
        other = [shot for shot in one.episodes if shot not in done and one.file(shot, out).exists()]
        left = len(done) < len(one.episodes)
        told = [", ".join(map(str, done))] + ([f"{', '.join(map(str, other))} with other settings"] if other else [])
        episodes = ", ".join(map(str, one.episodes.values()))
        state = hindrance(one, places) or "can be measured" if left else ""
        lines.append((one.address, episodes, "; ".join(filter(None, told)), state))
    return lines
