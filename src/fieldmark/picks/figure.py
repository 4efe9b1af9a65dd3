"""The pictures of the page: accuracy against what a query costs, one panel a number of shots."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fieldmark.evaluation.results import estimate_of
from fieldmark.files import write_beside
from fieldmark.picks.verdicts import Contest
from fieldmark.picks.wording import shots_text

COLOURS = {"pooled": "#2b6cb0", "votes": "#6b7280", "aligned": "#c2410c"}
_MARKERS = "osD^vP*X<>hd"
_INK, _QUIET = "#1f2937", "#9ca3af"


def draw(contests: Sequence[Contest], path: str | Path) -> Path:
    """Write the picture of one data set and backbone as a small WebP without loss.

    Args:
        contests: One a number of shots.
        path: Where to, beside and renamed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(3.1 * max(2, len(contests)), 3.9), layout="constrained")
    axes = figure.subplots(1, len(contests), squeeze=False)[0]
    for axis, contest in zip(axes, contests, strict=True):
        _panel(axis, contest)
    axes[0].set_ylabel("accuracy in %")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3 if len(contests) < 3 else 4, fontsize=7)
    canvas = FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.set_dpi(110)
    canvas.print_png(buffer, metadata={"Software": None})
    small = Image.open(buffer).convert("RGB").quantize(48).convert("RGB")
    return write_beside(path, lambda file: small.save(file, format="WEBP", lossless=True, quality=100, method=6))


def _panel(axis: Any, contest: Contest) -> None:
    numbers = {family: iter(_MARKERS) for family in COLOURS}
    for key, row in contest.rows.items():
        spec, found = contest.spec(key), estimate_of(row)
        axis.errorbar(
            contest.milliseconds(key), 100 * found.mean, yerr=100 * found.ci95, fmt=next(numbers[spec.family]),
            color=COLOURS[spec.family], ecolor=COLOURS[spec.family], elinewidth=0.8, markersize=5, label=spec.title,
            linestyle="none",
        )  # fmt: skip
    axis.axvline(contest.encoder_milliseconds, color=_QUIET, linestyle=":", linewidth=1)
    axis.annotate(
        "encoding an image", (contest.encoder_milliseconds, 0.02),
        xycoords=("data", "axes fraction"), rotation=90, fontsize=6,
        color=_INK, ha="right", va="bottom",
    )  # fmt: skip
    axis.set_xscale("log")
    axis.set_title(shots_text(contest.shot), fontsize=9)
    axis.set_xlabel("milliseconds a query, one thread", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(visible=True, which="major", color="#e5e7eb", linewidth=0.6)
    axis.set_axisbelow(True)
