"""The point-distance task of `fieldmark eval`: how far a model's parts are from key points (SSANET, Fig. 4)."""

from __future__ import annotations

import argparse
from typing import Any

from fieldmark.cli.output import emit_json, print_table
from fieldmark.errors import FieldmarkError


def run(options: argparse.Namespace) -> int:
    """Measure and report."""
    from fieldmark.backbones import Encoder
    from fieldmark.cli.evaluate import how
    from fieldmark.cli.models import choose_device, find_model, image_size
    from fieldmark.evaluation.point_distance import check_parts, evaluate_point_distance
    from fieldmark.evaluation.provenance import provenance

    if options.data not in ("folder", "cub") or options.root is None:  # folder: not given
        raise FieldmarkError(
            "--task point-distance needs key points, which CUB-200-2011 has; give --root CUB_200_2011 (and --data cub "
            "or none)"
        )
    device, found = choose_device(options.device), {}
    models = {path: find_model(path, device) for path in dict.fromkeys([options.model, *options.baseline])}
    for path, (model, _) in models.items():
        check_parts(model, path)
    for path, (model, facts) in models.items():
        assert isinstance(model, Encoder)  # it has a classifier
        size = options.size or image_size(model, facts)
        fit = how(options, size, facts)["fit"]
        given = {} if options.batch_size is None else {"batch_size": options.batch_size}
        found[path] = evaluate_point_distance(model, options.root, options.split or "test", size, fit, **given)
    rows = [{"model": path, **one.to_dict()} for path, one in found.items()]
    if not emit_json(options.json, {"format": "fieldmark-point-distance-1", "rows": rows, "provenance": provenance()}):
        _print(found)
    return 0


def _print(found: dict[str, Any]) -> None:
    lines = []
    for path, one in found.items():
        for what, distances in (("proposed", one.proposed), ("aligned", one.aligned)):
            if distances is not None:
                mean = one.to_dict()["mean"][what]
                lines.append((path, what, *(f"{value:.2f}" for value in distances), f"{mean:.2f}"))
    first = next(iter(found.values()))
    parts = [f"part {number}" for number in range(1, max(len(line) for line in lines) - 2)]
    lines = [(*line[:-1], *[""] * (len(parts) + 3 - len(line)), line[-1]) for line in lines]
    print_table(
        f"{first.images} images at {first.size[0]} px: mean pixels from a part's middle to the nearest key point",
        ["model", "boxes", *parts, "mean"],
        lines,
        right=[*parts, "mean"],
    )
