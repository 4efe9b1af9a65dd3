"""Search among many photos, by the index against all of them; enrolling and predicting, cold and warm.

The searches run on made-up vectors of 1280 channels: classes of 50 photos around centres that are more alike within
groups of ten, cut off at 0 and 6 as EfficientNet-Lite's are. Queries are photos of the same classes that are not in the
gallery. Recall is the share of the ten truly nearest that the index finds.

Enrolling and predicting run by EfficientNet-Lite0 on drawn photos of 400 x 300 pixels, or on photos of your own (class
folders: the first five of each class are enrolled, of the others a hundred asked about). Cold is a new process, with
all that it has to import and load; warm is a call in a process that has a model in memory.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fieldmark.benchmarks.timing import in_turn, make_row
from fieldmark.errors import FieldmarkError

CHANNELS, PER_CLASS, TOP = 1280, 50, 10
QUERIES, SHOTS, PREDICTED = 50, 5, 100
_SPAN = 5000


def run(repeats: int = 5, photos: int = 100_000, classes: int = 81, folder: str | Path | None = None) -> dict[str, Any]:
    """Medians, 95th percentiles and recall.

    Args:
        repeats: Rounds of all queries, and of warm predictions.
        photos: In the gallery that is searched.
        classes: That are enrolled, of five photos each.
        folder: Class folders of photos to enroll and to ask about; default: drawn ones.
    """
    with tempfile.TemporaryDirectory() as place:
        shots, asked, what = (
            _drawn(Path(place), classes) if folder is None else _chosen(Path(place), Path(folder), classes)
        )
        rows, notes = _searches(Path(place), repeats, photos)
        more, told = _practice(Path(place), repeats, shots, asked, what)
    return {"rows": rows + more, "notes": notes + told}


def make_vectors(count: int, seed: int, centres: np.ndarray) -> np.ndarray:
    """Vectors ``(count, C)`` of photos of classes in turn."""
    generator = np.random.default_rng(seed)
    which = np.arange(count) % len(centres)
    noise = generator.standard_normal((count, centres.shape[1]), dtype=np.float32)
    return np.clip(centres[which] + 0.6 * noise, 0, 6).astype(np.float32)


def make_centres(count: int) -> np.ndarray:
    """Centres of classes ``(count, C)``, in groups of ten that look alike."""
    generator = np.random.default_rng(0)
    groups = generator.standard_normal((-(-count // 10), CHANNELS), dtype=np.float32)
    own = generator.standard_normal((count, CHANNELS), dtype=np.float32)
    return np.repeat(groups, 10, 0)[:count] + 0.5 * own


def fill(folder: Path, vectors: np.ndarray) -> Any:
    """A gallery of these vectors."""
    from fieldmark.gallery.embedder import Identity
    from fieldmark.gallery.records import Described, Header, Photo, make_rows, now, to_jpeg
    from fieldmark.gallery.store import Gallery

    channels = vectors.shape[1]
    made = Identity("made up", {}, "", (8, 8), "crop", None, None, (0.5,) * 3, (0.5,) * 3, "dense", {}, channels)
    header = Header(made, "made up", {"pooled": (1, channels), "local": (1, channels)})
    thumbnail, time_ = to_jpeg(np.zeros((8, 8, 3), np.uint8)), now()
    gallery = Gallery.open(folder, create=True)
    for start in range(0, len(vectors), _SPAN):
        part = vectors[start : start + _SPAN]
        numbers = range(start + 1, start + len(part) + 1)
        described = [Described(thumbnail, 8, 8, {"pooled": one[None], "local": one[None]}) for one in part]
        rows = make_rows([Photo(n, 1, "all", f"{n:064x}", "", time_, "", "", 8, 8) for n in numbers], described, header)
        if start:
            gallery.table.put(rows, replacing=False)
        else:
            gallery.table.create(rows, len(vectors), header)
    return gallery


def _searches(folder: Path, repeats: int, photos: int) -> tuple[list[dict[str, Any]], list[str]]:
    from fieldmark.gallery.search import Mode, nearest

    centres = make_centres(max(1, photos // PER_CLASS))
    vectors, queries = make_vectors(photos, 1, centres), make_vectors(QUERIES, 2, centres)
    gallery = fill(folder / "vectors", vectors)
    start = time.perf_counter()
    gallery.build_index()
    built = time.perf_counter() - start
    norms = np.linalg.norm(vectors, axis=1)
    truth = [set((np.argsort(-(vectors @ query) / norms)[:TOP] + 1).tolist()) for query in queries]
    modes: tuple[Mode, ...] = ("index", "exact")
    seconds: dict[str, list[float]] = {mode: [] for mode in modes}
    recall: dict[str, float] = {}
    for repeat, mode in in_turn(modes, repeats + 1):
        hits = 0
        for query, true in zip(queries, truth, strict=True):
            start = time.perf_counter()
            ids, _ = nearest(gallery, query, TOP, mode=mode)
            if repeat:  # the first round warms up
                seconds[mode].append(time.perf_counter() - start)
            hits += len(true & set(ids))
        recall[mode] = hits / TOP / len(queries)
    told = {f"{mode}_p{share}": [float(np.percentile(seconds[mode], share))] for mode in modes for share in (50, 95)}
    row = make_row(
        f"top {TOP} of {photos:,} photos, {CHANNELS}-d: index against all, recall {recall['index']:.3f}",
        seconds["index"], seconds["exact"], 1, "searches/s", milliseconds=told, recall=recall, seconds_to_index=built,
    )  # fmt: skip
    del row["repeats"]
    ms = row["milliseconds"]
    notes = [
        f"{mode}: p50 {ms[f'{mode}_p50']:.1f} ms, p95 {ms[f'{mode}_p95']:.1f} ms, recall {recall[mode]:.3f}"
        for mode in modes
    ]
    return [row], [*notes, f"index built in {built:.1f} s"]


def _drawn(place: Path, classes: int) -> tuple[dict[str, list[Path]], list[Path], str]:
    """Photos to enroll by class, photos to ask about, and what to call them."""
    shots = {
        f"class {i}": [draw_photo(place / "photos" / f"class {i}" / f"{k}.jpg", i, k) for k in range(SHOTS)]
        for i in range(classes)
    }
    asked = [draw_photo(place / "asked" / f"{k}.jpg", k % classes, 100 + k) for k in range(PREDICTED)]
    return shots, asked, "drawn photos"


def _chosen(place: Path, folder: Path, classes: int) -> tuple[dict[str, list[Path]], list[Path], str]:
    """Likewise, of class folders: in turn one more of each class is asked about."""
    from fieldmark.data.readers import is_image_name

    if not folder.is_dir():
        raise FieldmarkError(f"no folder at {folder}; expected a folder of class folders")
    found = {
        one.name: sorted(file for file in one.iterdir() if is_image_name(file.name))
        for one in sorted(folder.iterdir()) if one.is_dir()
    }  # fmt: skip
    found = dict([(name, files) for name, files in found.items() if files][:classes])
    rest = zip_longest(*(files[SHOTS:] for files in found.values()))
    asked = [file for turn in rest for file in turn if file is not None][:PREDICTED]
    if len(found) < 2 or not asked:
        raise FieldmarkError(f"{folder} holds too few photos; expected two classes or more, of more than {SHOTS} each")
    shots = {
        name: [_copied(file, place / "photos" / name / file.name) for file in files[:SHOTS]]
        for name, files in found.items()
    }
    return shots, asked, f"photos of {folder.name}"


def _copied(file: Path, to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(file, to))


def _practice(
    folder: Path, repeats: int, by_class: dict[str, list[Path]], asked: list[Path], what: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """Enroll classes and predict photos, by the command and in this process."""
    from fieldmark.gallery.embedder import Embedder
    from fieldmark.gallery.store import Gallery

    shots = [file for files in by_class.values() for file in files]
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        out = work()
        seconds[name] = time.perf_counter() - start
        return out

    gallery = str(folder / "cold")
    timed("enroll, cold", lambda: _command("enroll", str(folder / "photos"), "--gallery", gallery))
    timed("enroll again, cold", lambda: _command("enroll", str(folder / "photos"), "--gallery", gallery))
    timed("predict one photo, cold", lambda: _command("predict", str(asked[0]), "--gallery", gallery))
    timed("predict all, cold", lambda: _command("predict", *map(str, asked), "--gallery", gallery))

    embedder = Embedder()
    embedder.embed(asked[:1], progress=False)
    timed("describe alone", lambda: embedder.embed(shots, progress=False))
    warm = Gallery.open(folder / "warm", create=True)
    timed("enroll, warm", lambda: warm.enroll(folder / "photos", embedder=embedder, progress=False))
    timed("enroll again, warm", lambda: warm.enroll(folder / "photos", embedder=embedder, progress=False))
    classifier = timed("classifier from the gallery, warm", lambda: warm.classifier(embedder))
    timed("describe the asked alone", lambda: embedder.embed(asked, progress=False))
    walls = []
    for _ in range(repeats):
        timed("predict all, warm", lambda: classifier.predict(asked))
        walls.append(seconds["predict all, warm"])
    seconds["predict all, warm"] = statistics.median(walls)
    count = len(shots)
    table = [
        make_row(
            f"enroll {len(by_class)} classes, {count} {what}, against describing them alone",
            [seconds["enroll, warm"]], [seconds["describe alone"]], count, "photos/s",
        ),
        make_row(
            f"predict {len(asked)} {what} of {len(by_class)} classes, against describing them alone",
            walls, [seconds["describe the asked alone"]], len(asked), "photos/s", seconds=seconds,
        ),
    ]  # fmt: skip
    return table, [f"{name}: {value:.2f} s" for name, value in seconds.items()]


def draw_photo(path: Path, which: int, number: int) -> Path:
    """A file that looks a little like a photo: blobs that belong to the class, and noise."""
    own, generator = np.random.default_rng(which), np.random.default_rng([which, number])
    coarse = own.integers(0, 256, (6, 8, 3)) + generator.integers(-30, 30, (6, 8, 3))
    image = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8)).resize((400, 300), Image.Resampling.BICUBIC)
    noisy = np.asarray(image, np.int16) + generator.integers(-8, 8, (300, 400, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(path, quality=90)
    return path


def _command(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "fieldmark", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"fieldmark {words[0]} failed: {done.stderr.strip()[-300:]}")
