"""The pieces of HTML that the page is made of; every text from outside is escaped here."""

from __future__ import annotations

import html
from collections.abc import Collection, Mapping, Sequence

from fieldmark.gallery.evidence.page import FIRST, SECOND, percent
from fieldmark.gallery.prediction import Prediction
from fieldmark.gallery.records import ClassSummary, Photo

_GREY = "#9aa5b1"


def escaped(text: object) -> str:
    """A text for HTML that goes through Gradio's templates, for which braces and back-ticks mean something.

    Example:
        >>> escaped("<b>${x}")
        '&lt;b&gt;&#36;&#123;x&#125;'
    """
    out = html.escape(str(text))
    for character in "{}$`\\":
        out = out.replace(character, f"&#{ord(character)};")
    return out


def heading(name: str, photos: int, classes: int, read_only: bool) -> str:
    """What gallery this is."""
    state = " · read-only" if read_only else ""
    return (
        f"<div class='fm-head'><b>{escaped(name)}</b><span class='fm-quiet'>{_count(photos, 'photo')} of "
        f"{_count(classes, 'class', 'classes')}{state}</span></div>"
    )


def title(name: str, photos: int) -> str:
    """Above the photos of a class."""
    return f"<div class='fm-head'><b>{escaped(name)}</b><span class='fm-quiet'>{_count(photos, 'photo')}</span></div>"


def subtitle(text: str) -> str:
    """Above a group of buttons."""
    return f"<div class='fm-sub'>{escaped(text)}</div>"


def drop_place(key: str = "") -> str:
    """Where photos are dropped; with the one that was asked about last."""
    if key:
        inside = f"<img src='api/asked/{escaped(key)}/image' alt='the photo'><span>Drop another photo, or click</span>"
    else:
        inside = "<b>Drop a photo here</b><span>or click to choose one, or paste it</span>"
    return (
        f"<label class='fm-drop'>{inside}<input type='file' accept='image/*' aria-label='photo to recognise'></label>"
    )


def answer_card(found: Prediction, line: float | None) -> str:
    """Answer, confidence and the nearest classes."""
    nearest, chance = found.top[0]
    sure = f"{percent(chance)} sure that it is {escaped(nearest)}, if it is one of the classes"
    if found.rejected:
        said = f"Its score {found.score:.2f} is below the line for “none of these”, {line:.2f}."
        said += f" Nearest: {escaped(nearest)}."
    elif found.rejected is None:
        said = "No line for “none of these” is known yet: it takes classes with two photos."
    else:
        said = f"Score {found.score:.2f}; the line for “none of these” is {line:.2f}."
    rows = []
    for rank, (label, value) in enumerate(found.top[:5]):
        colour = FIRST if rank == 0 else SECOND if rank == 1 else _GREY
        rows.append(
            f"<span>{escaped(label)}</span><i><b style='width:{100 * value:.1f}%;background:{colour}'></b></i>"
            f"<em>{percent(value)}</em>"
        )
    kind = " class='fm-none'" if found.rejected else ""
    return (
        f"<div class='fm-card'><h2{kind}>{escaped(found.label)}</h2>"
        f"<p>{'' if found.rejected else sure}</p><p>{said}</p>"
        f"<div class='fm-bars'>{''.join(rows)}</div></div>"
    )


def note(text: str, bad: bool = False) -> str:
    """One line about what was done, or could not be."""
    role, kind = ("alert", " fm-bad") if bad else ("status", "")
    return f"<div class='fm-note{kind}' role='{role}'>{escaped(text)}</div>"


def empty(text: str) -> str:
    """A place that has nothing to show yet."""
    return f"<div class='fm-empty'>{escaped(text)}</div>"


def evidence_frame(key: str, version: int) -> str:
    """The page of evidence, kept apart from this one: it may run no script."""
    # As tall as what is in it, so that there is one scroll bar.
    grow = "this.style.height=(this.contentDocument.documentElement.scrollHeight+8)+'px'"
    return (
        f"<iframe class='fm-why' title='Why' sandbox='allow-same-origin' "
        f"src='api/asked/{escaped(key)}/evidence.html?version={version}' onload=\"{grow}\"></iframe>"
    )


def class_list(classes: Sequence[ClassSummary], covers: Mapping[str, int], chosen: int | None) -> str:
    """The classes, each with a photo."""
    if not classes:
        return empty("No classes. Drop a photo under “What is this?”, or run fieldmark enroll.")
    rows = []
    for one in classes:
        cover = covers.get(one.name)
        image = f"<img loading='lazy' alt='' src='api/photos/{cover}/thumbnail'>" if cover else ""
        rows.append(
            f"<button type='button' data-id='{one.id}' aria-pressed='{str(one.id == chosen).lower()}'>{image}"
            f"<span><b>{escaped(one.name)}</b><small>{_count(one.photos, 'photo')}</small></span></button>"
        )
    return f"<div class='fm-classes'>{''.join(rows)}</div>"


def photo_grid(photos: Sequence[Photo], chosen: Collection[int]) -> str:
    """Photos to choose among."""
    tiles = [
        f"<button type='button' data-id='{one.id}' aria-pressed='{str(one.id in chosen).lower()}' "
        f"aria-label='photo {one.id}'><img loading='lazy' alt='' src='api/photos/{one.id}/thumbnail'>"
        f"<small>{one.id} · {one.added:%Y-%m-%d}</small></button>"
        for one in photos
    ]
    return f"<div class='fm-photos'>{''.join(tiles)}</div>"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
