"""A report of an evaluation as one HTML file that needs nothing else: tables, curves, confusions, example episodes."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fieldmark.data import ImageStore
from fieldmark.evaluation.few_shot import FewShotResult
from fieldmark.files import write_beside

_FEW = 30  # a rate of fewer queries says little
HIT, MISS, INK, QUIET = "#1a7f4b", "#c2410c", "#1f2937", "#6b7280"

_STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2937; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.7rem; margin-bottom: .2rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
p.quiet, figcaption { color: #6b7280; font-size: .9rem }
table { border-collapse: collapse } th, td { padding: .3rem .9rem .3rem 0; text-align: left; border-bottom: 1px solid #e5e7eb }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
img.pixels { image-rendering: pixelated; width: 56px; height: 56px; display: block; border-radius: 3px }
.episode { display: flex; gap: 1.2rem; flex-wrap: wrap; margin: .8rem 0 1.6rem } .class { min-width: 4rem }
.row { display: flex; gap: 4px; flex-wrap: wrap; max-width: 136px } .tile { border: 3px solid; border-radius: 6px; padding: 1px }
.tile span { display: block; font-size: .7rem; text-align: center; line-height: 1.1rem } .name { font-size: .85rem; color: #6b7280 }
svg { max-width: 100%; height: auto }
.cards { display: flex; gap: 1rem; flex-wrap: wrap; margin: 1rem 0 } .card { flex: 1 1 15rem; border: 1px solid #e5e7eb; border-radius: 8px; padding: .8rem 1rem }
.card h3 { font-size: 1rem; margin: 0 0 .6rem } .card p { margin: .4rem 0 0 } .card img.pixels { width: 96px; height: 96px }
pre { background: #f3f4f6; border-radius: 6px; padding: .7rem .9rem; overflow-x: auto; font-size: .85rem }
"""


def write_report(path: str | Path, title: str, lead: str, sections: Sequence[tuple[str, str]], facts: str = "") -> Path:
    """Write a self-contained page.

    Args:
        path: File to write (``report.html``), beside and renamed.
        title: Heading.
        lead: One paragraph of plain text under it.
        sections: Pairs of a heading and HTML made by the functions below.
        facts: Plain text at the foot: where the numbers come from.
    """
    body = "".join(f"<section><h2>{html.escape(name)}</h2>{content}</section>" for name, content in sections)
    page = (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>"
        f"<p>{html.escape(lead)}</p>{body}<p class='quiet'>{html.escape(facts)}</p></body></html>\n"
    )
    return write_beside(path, lambda file: file.write(page.encode()))


def accuracy_table(results: Mapping[str, FewShotResult]) -> str:
    """A table of accuracies with 95% intervals, and a bar chart of them."""
    first = next(iter(results.values()))
    rows = []
    for name, result in results.items():
        same = result is first or result.episodes.hash != first.episodes.hash
        gap = "" if same else result.difference(first).points()
        rows.append(
            f"<tr><td>{html.escape(name)}</td><td class='number'>{result.estimate.percent()}</td>"
            f"<td class='number'>{gap}</td></tr>"
        )
    return (
        "<table><tr><th>method</th><th class='number'>accuracy in %</th>"
        f"<th class='number'>difference to the first</th></tr>{''.join(rows)}</table>"
        f"<p class='quiet'>Mean and 95% interval over {len(first.episodes)} episodes; differences are paired, "
        "episode by episode.</p>" + _bars(results)
    )


def learning_curve(
    steps: Sequence[float], curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], unit: str
) -> str:
    """Curves over training, each with its own axis range below the other.

    Args:
        steps: Where a new stage begins (vertical lines), in the unit of the horizontal axis.
        curves: For each label its horizontal and vertical values.
        unit: Label of the horizontal axis.
    """
    figure, axes = _figure(len(curves), height=1.9 * len(curves))
    for axis, (label, (x, y)) in zip(axes, curves.items(), strict=True):
        axis.plot(x, y, color=INK, marker="o", markersize=3, linewidth=1.4)
        axis.set_ylabel(label)
        for step in steps:
            axis.axvline(step, color=QUIET, linestyle=":", linewidth=1)
    axes[-1].set_xlabel(unit)
    return _svg(figure, "learning curves")


def confusions(result: FewShotResult, data: ImageStore, pairs: int = 8) -> str:
    """The pairs of classes that were most often taken for each other, with an image of each."""
    counts = result.confusion
    asked = np.maximum(counts.sum(axis=1), 1)
    met = _times_met(result)
    rate = np.where(met >= _FEW, counts / np.maximum(met, 1), 0)
    np.fill_diagonal(rate, 0)
    rate = (rate + rate.T) / 2
    upper = np.triu(rate)
    order = np.argsort(upper, axis=None)[::-1][:pairs]
    rows = []
    for first, second in zip(*np.unravel_index(order, upper.shape), strict=True):
        if upper[first, second] <= 0:
            break
        pictures = "".join(f"<td>{_picture(data, _example(data, c))}</td>" for c in (first, second))
        names = f"{html.escape(data.class_names[first])} and {html.escape(data.class_names[second])}"
        accuracy = [f"{100 * counts[c, c] / asked[c]:.0f}" for c in (first, second)]
        rows.append(
            f"<tr>{pictures}<td>{names}</td><td class='number'>{100 * upper[first, second]:.0f} %</td>"
            f"<td class='number'>{accuracy[0]} %, {accuracy[1]} %</td></tr>"
        )
    return (
        "<table><tr><th></th><th></th><th>classes</th><th class='number'>taken for each other</th>"
        f"<th class='number'>each recognised</th></tr>{''.join(rows)}</table>"
        "<p class='quiet'>Of the queries of either class in episodes that hold both.</p>"
    )


def example_episodes(result: FewShotResult, data: ImageStore, count: int = 3, queries: int = 6) -> str:
    """Some episodes as pictures: the support of each class, then queries framed by hit or miss."""
    index = result.episodes
    # One easy, one typical and one hard episode tell more than three average ones.
    order = np.argsort(result.episode_accuracies, kind="stable")
    chosen = [order[int(q * (len(order) - 1))] for q in np.linspace(0.95, 0.05, count)]
    parts = []
    for episode in chosen:
        names = [data.class_names[c] for c in index.classes[episode]]
        columns = []
        for label, name in enumerate(names):
            support = index.support[episode][index.support_labels[episode] == label][:3]
            mine = np.flatnonzero(index.query_labels[episode] == label)[:queries]
            shown = "".join(_picture(data, i) for i in support)
            asked = "".join(
                _tile(data, index.query[episode, q], label, result.predicted[episode, q], names) for q in mine
            )
            columns.append(
                f"<div class='class'><div class='name'>{html.escape(name)}</div><div class='row'>{shown}</div>"
                f"<div class='name'>queries</div><div class='row'>{asked}</div></div>"
            )
        accuracy = 100 * result.episode_accuracies[episode]
        parts.append(
            f"<p>Episode {episode + 1}: {accuracy:.0f} % of its queries right</p><div class='episode'>{''.join(columns)}</div>"
        )
    return (
        f"<p class='quiet'>Green frame: recognised. Orange frame: taken for the class written below. "
        f"Head: {html.escape(result.head)}.</p>" + "".join(parts)
    )


def _tile(data: ImageStore, image: int, label: int, predicted: int, names: list[str]) -> str:
    hit = label == predicted
    said = "✓" if hit else html.escape(_short(names[predicted]))
    colour = HIT if hit else MISS
    return f"<div class='tile' style='border-color:{colour}'>{_picture(data, image)}<span style='color:{colour}'>{said}</span></div>"


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1][:10]


def _times_met(result: FewShotResult) -> np.ndarray:
    """How many queries of class i were asked while class j was a choice."""
    classes, count = result.episodes.classes, len(result.confusion)
    asked = np.zeros((len(classes), classes.shape[1]))
    np.add.at(asked, (np.arange(len(classes))[:, None], result.episodes.query_labels), 1)
    met = np.zeros((count, count))
    np.add.at(met, (classes[:, :, None], classes[:, None, :]), asked[:, :, None])
    return met


def _example(data: ImageStore, class_number: int) -> int:
    return int(np.flatnonzero(data.labels == class_number)[0])


def _picture(data: ImageStore, image: int) -> str:
    return picture(data.gather([int(image)])[0].permute(1, 2, 0).numpy())


def picture(array: np.ndarray) -> str:
    """A small image (H, W, 3) uint8 as part of a page, enlarged without smoothing."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f"<img class='pixels' alt='' src='data:image/png;base64,{encoded}'>"


def _bars(results: Mapping[str, FewShotResult]) -> str:
    figure, axes = _figure(1, height=0.45 * len(results) + 0.7)
    axis, names = axes[0], list(results)[::-1]
    means = [100 * results[name].accuracy for name in names]
    axis.barh(
        names,
        means,
        xerr=[100 * results[name].ci95 for name in names],  # an unknown one is infinite, and then no bar is drawn
        color="#4b8bbe",
        ecolor=INK,
        height=0.6,
    )
    axis.set_xlabel("accuracy in %")
    axis.set_xlim(0, 100)
    return _svg(figure, "accuracies with 95% intervals")


def _figure(rows: int, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=rows > 1, squeeze=False)[:, 0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any, alternative: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return f"<figure role='img' aria-label='{html.escape(alternative)}'>{text[text.index('<svg') :]}</figure>"
