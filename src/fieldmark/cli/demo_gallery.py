"""The end of the demo: characters of a script that the model never saw are enrolled, recognised, or turned away."""

from __future__ import annotations

import html
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldmark.errors import MissingExtraError

if TYPE_CHECKING:
    from fieldmark.data import ImageStore
    from fieldmark.gallery import Embedder, FewShotClassifier, Prediction

HEAD = "prototype"  # what the demo's model was trained with
SCRIPT = "armenian"
PHOTOS, ASKED = 5, 10  # of each character
STRANGERS = 4  # characters that are not enrolled


@dataclass(frozen=True)
class Example:
    """One photo that was asked about, and its page of evidence."""

    title: str
    truth: str
    answer: Prediction
    image: np.ndarray = field(repr=False)
    page: Path


@dataclass(frozen=True)
class NewScript:
    """What came out.

    Attributes:
        facts: Numbers, as plain JSON types.
        examples: A photo that was recognised, one that was taken for another character and one that was turned away,
            as far as there are such.
        gallery: Folder of the gallery; None where the extra is not installed.
    """

    facts: dict[str, Any]
    examples: list[Example]
    gallery: Path | None

    @property
    def line(self) -> str:
        """In one sentence."""
        one = self.facts
        return (
            f"{one['enrolled']} characters of a new script ({one['script']}) enrolled from {one['photos']} photos each "
            f"in {one['seconds_to_enroll']:.1f} s; of {one['asked']} new photos {one['right']:.0%} named right, "
            f"{one['turned_away']:.0%} answered 'none of these'; of {one['asked_of_strangers']} photos of "
            f"{one['strangers']} characters that are not enrolled, {one['strangers_turned_away']:.0%} were answered so"
        )


def enroll_new_script(model: Path, out: Path, data: ImageStore, seed: int) -> NewScript:
    """Enroll most characters of a script, ask about new photos of all of them, and write the evidence.

    Args:
        model: Run folder of the trained model.
        out: The demo's folder; gets ``gallery/`` and ``evidence/``.
        data: The glyphs of the test scripts.
        seed: Says which characters are not enrolled.
    """
    from fieldmark.gallery import Embedder

    names = np.array([name.split("/")[-1] for name in data.class_names])[data.labels]
    characters = [i for i, name in enumerate(data.class_names) if name.startswith(f"{SCRIPT}/")]
    strange = np.random.default_rng(seed).permutation(characters)[:STRANGERS]
    known = [one for one in characters if one not in strange]
    embedder = Embedder(model, device="cpu")

    def photos(classes: Any, start: int, count: int) -> np.ndarray:
        return np.concatenate([np.flatnonzero(data.labels == one)[start : start + count] for one in classes])

    enrolled = photos(known, 0, PHOTOS)
    classifier, gallery, seconds = _classifier(embedder, model, out / "gallery", data.images[enrolled], names[enrolled])
    asked, asked_strange = photos(known, PHOTOS, ASKED), photos(strange, PHOTOS, ASKED)
    answers = classifier.predict_detailed(data.images[asked])
    others = classifier.predict_detailed(data.images[asked_strange])
    right = np.array([one.top[0][0] == name for one, name in zip(answers, names[asked], strict=True)])
    away, others_away = (np.array([bool(one.rejected) for one in them]) for them in (answers, others))
    facts = {
        "script": SCRIPT, "head": HEAD, "enrolled": len(known), "photos": PHOTOS, "seconds_to_enroll": seconds,
        "asked": len(asked), "right": float((right & ~away).mean()), "turned_away": float(away.mean()),
        "wrong": float((~right & ~away).mean()), "strangers": len(strange), "asked_of_strangers": len(asked_strange),
        "strangers_turned_away": float(others_away.mean()),
    }  # fmt: skip
    chosen = [
        ("recognised", "A character that is enrolled", asked, answers, right & ~away),
        ("mistaken", "One that was taken for another", asked, answers, ~right & ~away),
        ("stranger", "A character that is not enrolled", asked_strange, others, others_away),
    ]
    examples = []
    for name, title, numbers, given, fits in chosen:
        if fits.any():
            at = _typical([one.confidence for one in given], fits)
            image = data.images[numbers[at]]
            page = out / "evidence" / f"{name}.html"
            classifier.explain(_write_png(page.with_suffix(".png"), image)).to_html(page)
            examples.append(Example(title, str(names[numbers[at]]), given[at], image, page))
    return NewScript(facts, examples, gallery)


def _classifier(
    embedder: Embedder, model: Path, folder: Path, images: np.ndarray, labels: np.ndarray
) -> tuple[FewShotClassifier, Path | None, float]:
    """From a gallery on the disk, or in memory where its extra is not installed; and the seconds it took to enroll."""
    from fieldmark.gallery import FewShotClassifier, Gallery

    options: dict[str, Any] = {"head": HEAD, "reject": True}
    try:
        gallery = Gallery.open(folder, create=True)
        if gallery.identity is not None and gallery.identity != embedder.identity:
            shutil.rmtree(folder)  # of the demo's last model
            gallery = Gallery.open(folder, create=True)
    except MissingExtraError as error:
        print(f"fieldmark: note: the characters are enrolled in memory alone; {error}", file=sys.stderr)
        made = FewShotClassifier(
            embedder.encoder, size=embedder.size, image_fit=embedder.fit, device="cpu", **options
        )  # fmt: skip
        started = time.perf_counter()
        return made.fit(images, labels), None, time.perf_counter() - started
    started = time.perf_counter()
    gallery.enroll(list(images), labels.tolist(), embedder=embedder, model=str(model.resolve()), progress=False)
    made = gallery.classifier(embedder, **options)
    return made, folder, time.perf_counter() - started


def _typical(confidence: list[float], fits: np.ndarray) -> int:
    """The photo of the middle confidence among those that fit, not the best one."""
    found = np.flatnonzero(fits)
    order = np.argsort(np.array(confidence)[found], kind="stable")
    return int(found[order[len(order) // 2]])


def section(found: NewScript, out: Path) -> str:
    """The report's part about it, as HTML; links go from the folder ``out``."""
    from fieldmark.evaluation import report

    one = found.facts
    rows = [
        ("named right", f"{one['right']:.0%}", "–"),
        ("named wrong", f"{one['wrong']:.0%}", f"{1 - one['strangers_turned_away']:.0%}"),
        ("answered “none of these”", f"{one['turned_away']:.0%}", f"{one['strangers_turned_away']:.0%}"),
    ]
    cells = "".join(
        f"<tr><td>{name}</td><td class='number'>{mine}</td><td class='number'>{theirs}</td></tr>"
        for name, mine, theirs in rows
    )
    cards = "".join(_card(report.picture(each.image), each, out) for each in found.examples)
    more = ""
    if found.gallery is not None:
        image = html.escape(str(found.examples[0].page.with_suffix(".png") if found.examples else "IMAGE"))
        folder = html.escape(str(found.gallery))
        more = (
            "<p>The same from the command line, with the gallery that the demo has made:</p><pre>"
            f"fieldmark gallery list --gallery {folder}\n"
            f"fieldmark predict {image} --gallery {folder} --head {HEAD}</pre>"
        )
    return (
        f"<p>{one['enrolled']} characters of a script that the model never saw ({html.escape(one['script'])}) were "
        f"enrolled from {one['photos']} photos each, in {one['seconds_to_enroll']:.1f} seconds and without training. "
        f"{one['strangers']} more characters of it were left out: of these the answer should be “none of these”.</p>"
        f"<table><tr><th></th><th class='number'>{one['asked']} new photos<br>of enrolled characters</th>"
        f"<th class='number'>{one['asked_of_strangers']} photos of<br>the others</th></tr>{cells}</table>"
        "<p class='quiet'>The line below which the answer is “none of these” comes from the enrolled photos alone, "
        "each left out in turn: it is set to turn away one in twenty of them.</p>"
        f"<div class='cards'>{cards}</div>{more}"
    )


def _card(picture: str, one: Example, out: Path) -> str:
    answer = one.answer
    nearest, chance = answer.top[0]
    said = f"<b>{html.escape(str(answer.label))}</b>"
    said += f" (nearest: {html.escape(str(nearest))})" if answer.rejected else f", {chance:.0%} sure"
    link = html.escape(one.page.relative_to(out).as_posix())
    return (
        f"<div class='card'><h3>{html.escape(one.title)}</h3>{picture}"
        f"<p class='quiet'>shows {html.escape(one.truth)}</p><p>{said}</p>"
        f"<p><a href='{link}'>Why: what matched, and what each match adds</a></p></div>"
    )


def _write_png(path: Path, image: np.ndarray) -> Path:
    from PIL import Image

    from fieldmark.files import write_beside

    return write_beside(path, lambda file: Image.fromarray(image).save(file, "png"))
