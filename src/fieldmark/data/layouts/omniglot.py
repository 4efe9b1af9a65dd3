"""Omniglot: handwritten characters, and Lake's twenty one-shot runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fieldmark.data.layouts.base import DataSet, Root, SplitKind, by_class, require_files, table
from fieldmark.data.readers import ImageRecord, is_image_name
from fieldmark.data.sources import JoinedSource, Source, open_source
from fieldmark.data.store import ImageStore
from fieldmark.errors import FieldmarkError

_PARTS: dict[str, str] = {
    "background_small1": "small1",
    "background_small2": "small2",
    "background": "background",
    "evaluation": "evaluation",
    "omniglot_small1": "small1",
    "omniglot_small2": "small2",
}
_ARCHIVES = ("omniglot_small*.zip", "images_background*.zip", "images_evaluation*.zip")


def open_omniglot(root: Root) -> Source:
    """A folder or zip of images; or a folder that holds the archives, which are then read together."""
    if isinstance(root, (str, Path)) and Path(root).is_dir():
        archives = sorted({path for pattern in _ARCHIVES for path in Path(root).glob(pattern)})
        if archives:
            return JoinedSource([open_source(path) for path in archives])
    return open_source(root)


def read_omniglot(source: Source) -> list[ImageRecord]:
    """Class "Alphabet/character01"; split by the set's folder (images_background_small1 ...).

    The small background sets share alphabets; an image that comes twice is taken once, from the first.
    """
    records: dict[tuple[str, str], ImageRecord] = {}
    for name in source.names():
        parts = name.split("/")
        if len(parts) < 3 or not is_image_name(name):
            continue
        class_name = f"{parts[-3]}/{parts[-2]}"
        split = next((tag for folder in parts[:-3][::-1] for part, tag in _PARTS.items() if part in folder), "")
        records.setdefault((class_name, parts[-1]), ImageRecord(name, class_name, split=split))
    if not records:
        raise FieldmarkError(f"{source.path} holds no image of Omniglot; expected Alphabet/character01/0001_01.png")
    return by_class(list(records.values()))


def read_omniglot_runs(source: Source) -> list[ImageRecord]:
    """Both images of each class of each run: class "run01/class08", splits "training" and "test"."""
    records = []
    labels = [name for name in source.names() if name.endswith("class_labels.txt")]
    if not labels:
        raise FieldmarkError(
            f"{source.path} has no class_labels.txt; expected run01/class_labels.txt, run01/training/ ..."
        )
    for listed in labels:
        above = listed.split("/")[:-2]
        prefix, run = "".join(f"{folder}/" for folder in above), listed.split("/")[-2]
        for test, training in table(source, listed):
            class_name = f"{run}/{training.split('/')[-1].split('.')[0]}"
            records.append(ImageRecord(prefix + test, class_name, split="test"))
            records.append(ImageRecord(prefix + training, class_name, split="training"))
    require_files(source, records)
    return by_class(list(dict.fromkeys(records)))


def run_episodes(store: ImageStore) -> dict[str, np.ndarray]:
    """Lake's protocol as index arrays into the "omniglot_runs" store: each run is one 20-way 1-shot episode.

    Args:
        store: ``fieldmark.data.load("omniglot_runs", root)``, whole.

    Returns:
        classes (E, way), support and support_labels (E, way), query and query_labels (E, way), all int64: the
        fields of `fieldmark.data.EpisodeIndex`.
    """
    runs: dict[str, list[int]] = {}
    for label, name in enumerate(store.class_names):
        runs.setdefault(name.split("/")[0], []).append(label)
    ways = {len(labels) for labels in runs.values()}
    counts = [
        np.bincount(store.labels[store.splits == part], minlength=len(store.class_names))
        for part in ("training", "test")
    ]
    if len(ways) != 1 or any((count != 1).any() for count in counts):
        raise FieldmarkError("runs differ in their classes; expected one training and one test image of every class")
    classes = np.array([runs[run] for run in sorted(runs)], np.int64)
    image = np.zeros((2, len(store.class_names)), np.int64)
    for row, part in enumerate(("training", "test")):
        chosen = np.flatnonzero(store.splits == part)
        image[row, store.labels[chosen]] = chosen
    local = np.broadcast_to(np.arange(classes.shape[1]), classes.shape).copy()
    return {
        "classes": classes,
        "support": image[0][classes],
        "support_labels": local,
        "query": image[1][classes],
        "query_labels": local.copy(),
    }


_SOURCE = "B. Lake et al., Human-level concept learning through probabilistic program induction, Science 2015"
_SPLITS: dict[str, SplitKind] = {"small1": "class", "small2": "class", "background": "class", "evaluation": "class"}

DataSet(
    name="omniglot",
    summary="handwritten characters of 50 alphabets, 20 drawers each (small background sets: 5 alphabets each)",
    read=read_omniglot,
    opener=open_omniglot,
    source=_SOURCE,
    classes=1623,
    images=32_460,
    size=28,
    splits=_SPLITS,
    statistics=((0.917, 0.917, 0.917), (0.235, 0.235, 0.235)),
    statistics_of="its background images at 28 pixels",
    layout="Alphabet/character01/*.png below images_background, images_evaluation or images_background_small1 and 2",
    obtain="Omniglot, images_background and images_evaluation (or the two small background sets)",
    licence="MIT",
    overlap="the small background sets are part of background and share Greek and Latin with each other",
).register()
DataSet(
    name="omniglot_runs",
    summary="Lake's 20 runs of 20-way 1-shot classification: one training and one test image of each class",
    read=read_omniglot_runs,
    source=_SOURCE,
    classes=400,
    images=800,
    size=28,
    splits={"training": "image", "test": "image"},
    statistics=((0.917, 0.917, 0.917), (0.235, 0.235, 0.235)),
    statistics_of="Omniglot's background images at 28 pixels",
    layout="run01/class_labels.txt, run01/training/ and run01/test/ to run20",
    obtain="Omniglot, all_runs",
    licence="MIT",
    overlap="drawn from Omniglot's evaluation alphabets, none of which is in background",
    episodes=run_episodes,
).register()
