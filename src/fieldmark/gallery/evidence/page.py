"""Evidence as one static page: pictures inside, no script, nothing fetched."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from fieldmark.gallery.evidence import ClassEvidence, Explanation, PhotoEvidence

FIRST, SECOND = "#0f766e", "#c2410c"  # the nearest class and the other; distinct for colour-blind readers too
MARKS = ("#e69f00", "#56b4e9", "#cc79a7", "#f0e442", "#009e73", "#d55e00", "#0072b2", "#9467bd")
SHADE = 0.6  # opacity of the strongest place
_LISTED = 5

_STYLE = """
:root { color-scheme: light }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", sans-serif; color: #1f2933; background: #f6f7f8; margin: 0 }
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 40px }
h1 { font-size: 30px; line-height: 1.2; margin: 2px 0 4px; overflow-wrap: anywhere }
h2 { font-size: 19px; margin: 0; overflow-wrap: anywhere } h3 { font-size: 14px; margin: 0 0 8px; color: #52606d; font-weight: 600 }
p { margin: 4px 0 } .quiet { color: #52606d } .small { font-size: 13px } .over { color: #52606d; font-size: 14px; overflow-wrap: anywhere }
.card { background: #fff; border: 1px solid #e1e5e9; border-radius: 12px; padding: 20px; margin-top: 18px }
.top { display: grid; grid-template-columns: 240px 240px 1fr; gap: 24px } .both { display: grid; grid-template-columns: 1fr 1fr; gap: 18px }
svg.photo { width: 100%; height: auto; display: block; border-radius: 8px; background: #e5e8eb }
figure { margin: 0 } figcaption { font-size: 13px; color: #52606d; margin-top: 6px; overflow-wrap: anywhere }
.bars { display: grid; grid-template-columns: minmax(80px, 1.3fr) 2fr auto; gap: 5px 10px; align-items: center; font-size: 14px }
.bars .name { overflow-wrap: anywhere; line-height: 1.25 } .bars .value { text-align: right; font-variant-numeric: tabular-nums }
.bars .total { font-weight: 700; border-top: 1px solid #cbd2d9; padding-top: 5px } .track { height: 10px; position: relative; border-radius: 5px; background: #eef1f3 }
.track i { position: absolute; top: 0; bottom: 0; border-radius: 5px } .track b { position: absolute; top: -3px; bottom: -3px; width: 1px; background: #9aa5b1 }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 10px; margin-top: 16px } .pair .line { grid-column: 1 / 3; display: flex; justify-content: space-between; gap: 10px; font-size: 14px }
.tag { display: inline-block; border-radius: 999px; padding: 1px 10px; color: #fff; font-size: 13px; font-weight: 600 }
.key i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin: 0 5px 0 0; vertical-align: -1px } .key span { margin-right: 14px; white-space: nowrap }
.gone { display: grid; place-items: center; aspect-ratio: 1; background: #eef1f3; border-radius: 8px; color: #52606d; font-size: 13px; text-align: center; padding: 12px }
@media (max-width: 860px) { .top, .both { grid-template-columns: 1fr } }
"""


def page(found: Explanation) -> str:
    """The whole page."""
    colours = (FIRST, SECOND)
    columns = "".join(_column(found, one, colours[i]) for i, one in enumerate(found.classes))
    title = f"{found.name}: {found.prediction.label}"
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<svg width='0' height='0' style='position:absolute'><defs>{_picture(found.image, 'query')}</defs></svg>"
        f"<main>{_heading(found)}{_overview(found)}<div class='both'>{columns}</div>{_foot(found)}</main></body></html>\n"
    )


def words(found: Explanation) -> tuple[str, str]:
    """The answer in two lines: the label, and how sure it is.

    The same words stand in the figure.
    """
    prediction, nearest = found.prediction, str(found.classes[0].label)
    sure = f"{percent(found.classes[0].probability)} sure that it is {nearest}, if it is one of the classes"
    if prediction.rejected is None:
        return str(prediction.label), sure
    line = f"score {found.classes[0].score:.2f}, line for “none of these” {found.line:.2f}"
    if prediction.rejected:
        return str(prediction.label), f"below the line for “none of these”: {line} · nearest: {nearest}"
    return str(prediction.label), f"{sure} · {line}"


def percent(share: float) -> str:
    """A probability as people read it; never a certainty that it is not.

    Example:
        >>> percent(0.123), percent(0.9999), percent(0.0001)
        ('12 %', 'over 99 %', 'under 1 %')
    """
    if share > 0.99:
        return "over 99 %"
    return "under 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def how(found: Explanation) -> str:
    """How the parts are to be read, in one or two sentences."""
    if found.additive:
        return (
            "Every score is a sum: what each support photo adds, and a constant. What a photo adds is again a sum over "
            "pairs of a place of the query and a place of the photo: places are shaded by what they add (in the colour of the "
            "other class where they take away), and the pairs that add most are framed and numbered. "
            "A place has seen more than its square (the receptive field of the network)."
        )
    return (
        f"Scores of head {found.facts['head']} do not split into places. Shown beside them is the optimal matching (EMD) "
        "of the query with each photo: its parts add up to the similarity under the photo, not to the score."
    )


def made(found: Explanation) -> str:
    """Backbone, head and size in one line."""
    facts = found.facts
    height, width = facts["size"]
    places = f"{found.grid[0]} × {found.grid[1]} places"
    return f"{facts['backbone']} at {width} × {height} pixels ({facts['fit']}), {places} · head {facts['head']}"


def _heading(found: Explanation) -> str:
    answer, sure = words(found)
    colour = "#6b7280" if found.prediction.rejected else FIRST
    return (
        f"<header><p class='over'>{html.escape(found.name)}</p><h1 style='color:{colour}'>{html.escape(answer)}</h1>"
        f"<p class='quiet'>{html.escape(sure)}</p></header>"
    )


def _overview(found: Explanation) -> str:
    height, width = found.image.shape[:2]
    plain = f"<figure>{_svg(height, width, '<use href=#query />')}<figcaption>The photo as the model sees it</figcaption></figure>"
    bars = _probabilities(found)
    difference = found.difference
    if difference is None:
        return f"<section class='card top'>{plain}{bars}</section>"
    names = [html.escape(str(one.label)) for one in found.classes]
    key = f"<span><i style='background:{FIRST}'></i>{names[0]}</span><span><i style='background:{SECOND}'></i>{names[1]}</span>"
    heat = _svg(height, width, "<use href=#query />" + _cells(found.boxes(), difference))
    caption = (
        "Which places speak for which of the two" if found.additive else "Which places match which of the two better"
    )
    return (
        f"<section class='card top'>{plain}<figure>{heat}<figcaption>{caption}<br><span class='key'>{key}</span>"
        f"</figcaption></figure>{bars}</section>"
    )


def _probabilities(found: Explanation) -> str:
    rows = []
    for rank, (label, chance) in enumerate(found.prediction.top[:_LISTED]):
        colour = FIRST if rank == 0 else SECOND if _is_second(found, label) else "#9aa5b1"
        rows.append(
            f"<span class='name'>{html.escape(str(label))}</span><span class='track'>"
            f"<i style='left:0;width:{100 * chance:.1f}%;background:{colour}'></i></span>"
            f"<span class='value'>{percent(chance)}</span>"
        )
    more = len(found.prediction.top) - _LISTED
    rest = f"<p class='quiet small'>and {more} more class{'es' if more > 1 else ''}</p>" if more > 0 else ""
    return f"<div><h3>Probability, if it is one of the classes</h3><div class='bars'>{''.join(rows)}</div>{rest}</div>"


def _is_second(found: Explanation, label: object) -> bool:
    return len(found.classes) > 1 and str(found.classes[1].label) == str(label)


def _column(found: Explanation, one: ClassEvidence, colour: str) -> str:
    pairs = "".join(_pair(found, photo, colour) for photo in one.photos)
    return (
        f"<section class='card'><span class='tag' style='background:{colour}'>{percent(one.probability)}</span> "
        f"<h2 style='color:{colour};display:inline'>{html.escape(str(one.label))}</h2>{_sum(found, one, colour)}{pairs}</section>"
    )


def _sum(found: Explanation, one: ClassEvidence, colour: str) -> str:
    if not found.additive:
        return f"<p class='quiet'>score {one.score:.2f}</p>"
    every = [value for other in found.classes for _, value in [*other.terms, ("", other.score)]]
    low, high = min(0.0, *every), max(0.0, *every)
    span = (high - low) or 1.0
    zero = -low / span

    def row(name: str, value: float, kind: str = "") -> str:
        left, width = (zero, value / span) if value >= 0 else (zero + value / span, -value / span)
        tone = colour if value >= 0 else "#9aa5b1"
        return (
            f"<span class='name {kind}'>{html.escape(name)}</span><span class='track'>"
            f"<i style='left:{100 * left:.1f}%;width:{max(100 * width, 0.4):.1f}%;background:{tone}'></i>"
            f"<b style='left:{100 * zero:.1f}%'></b></span><span class='value {kind}'>{signed(value, not kind)}</span>"
        )

    rows = [row(name, value) for name, value in one.terms] + [row("score", one.score, "total")]
    return f"<div class='bars' style='margin-top:14px'>{''.join(rows)}</div>"


def signed(value: float, sign: bool = True) -> str:
    """A number with two places and a true minus sign.

    Example:
        >>> signed(-1.234), signed(1.234), signed(1.234, sign=False), signed(-0.001)
        ('−1.23', '+1.23', '1.23', '0.00')
    """
    text = f"{abs(value):.2f}"
    if float(text) == 0:
        return text
    return ("−" if value < 0 else "+" if sign else "") + text


def _pair(found: Explanation, photo: PhotoEvidence, colour: str) -> str:
    height, width = found.image.shape[:2]
    boxes = found.boxes()
    mine = (
        "<use href=#query />"
        + _cells(boxes, photo.contributions.sum(1), colour)
        + "".join(_box(boxes[pair.query], MARKS[i % len(MARKS)], i + 1, width) for i, pair in enumerate(photo.regions))
    )
    if photo.image is None:
        shown = "<div class='gone'>This photo cannot be shown:<br>its file has moved or was never kept.</div>"
    else:
        rows, columns = photo.image.shape[:2]
        places = found.boxes(photo.image)
        shade = _cells(places, photo.contributions.sum(0), colour)
        shown = _svg(rows, columns, _picture(photo.image) + shade + "".join(
            _box(places[pair.support], MARKS[i % len(MARKS)], i + 1, columns) for i, pair in enumerate(photo.regions)
        ))  # fmt: skip
    drawn = sum(pair.adds for pair in photo.regions)
    part = signed(photo.adds) + (f" · numbered pairs {signed(drawn)}" if photo.regions else "")
    return (
        f"<div class='pair'><div class='line'><span class='name'>{html.escape(photo.name)}</span>"
        f"<span class='quiet'>{part}</span></div>{_svg(height, width, mine)}{shown}</div>"
    )


def _foot(found: Explanation) -> str:
    return f"<p class='quiet small' style='margin-top:18px'>{html.escape(how(found))}</p><p class='quiet small'>{html.escape(made(found))}</p>"


def _svg(height: int, width: int, content: str) -> str:
    return f"<svg class='photo' viewBox='0 0 {width} {height}' role='img'>{content}</svg>"


def _picture(image: np.ndarray, name: str = "") -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "jpeg", quality=90)
    data = base64.b64encode(buffer.getvalue()).decode()
    key = f"id='{name}' " if name else ""
    return f"<image {key}width='{image.shape[1]}' height='{image.shape[0]}' href='data:image/jpeg;base64,{data}'/>"


def _cells(boxes: np.ndarray, values: np.ndarray, plus: str = FIRST) -> str:
    """Places in the colour of what they speak for; what speaks for nothing stays clear."""
    most = float(np.abs(values).max()) or 1.0
    minus = SECOND if plus == FIRST else FIRST
    cells = []
    for (left, top, right, bottom), value in zip(boxes, values, strict=True):
        alpha = SHADE * abs(float(value)) / most
        if alpha > 0.02:
            cells.append(
                f"<rect x='{left:.1f}' y='{top:.1f}' width='{right - left:.1f}' height='{bottom - top:.1f}' "
                f"fill='{plus if value > 0 else minus}' fill-opacity='{alpha:.2f}'/>"
            )
    return "".join(cells)


def _box(box: np.ndarray, colour: str, number: int, width: int) -> str:
    left, top, right, bottom = (float(value) for value in box)
    line, tag = width / 90, width / 13
    frame = f"x='{left + line:.1f}' y='{top + line:.1f}' width='{right - left - 2 * line:.1f}' height='{bottom - top - 2 * line:.1f}' fill='none'"
    return (
        f"<rect {frame} stroke='#fff' stroke-width='{2 * line:.1f}'/><rect {frame} stroke='{colour}' stroke-width='{1.2 * line:.1f}'/>"
        f"<rect x='{left:.1f}' y='{top:.1f}' width='{tag:.1f}' height='{tag:.1f}' fill='{colour}'/>"
        f"<text x='{left + tag / 2:.1f}' y='{top + 0.78 * tag:.1f}' font-size='{0.8 * tag:.1f}' text-anchor='middle' "
        f"font-family='system-ui, sans-serif' font-weight='700' fill='#1f2933'>{number}</text>"
    )
