"""Which file belongs to which split and class, and what is wrong with the classes."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fieldmark.data.check.report import Problem
from fieldmark.data.readers import (
    LIST_EXTENSIONS,
    SPLIT_FOLDERS,
    ImageRecord,
    find_list,
    is_image_name,
    open_list,
    read_list,
)
from fieldmark.data.sources import Source, open_source
from fieldmark.errors import FieldmarkError

_SPLITS = (*SPLIT_FOLDERS, "support", "query")


@dataclass
class Plan:
    """Which file belongs to which (split, class)."""

    layout: str
    where: dict[str, tuple[str, str]]
    classes: set[tuple[str, str]]
    problems: list[Problem]

    def counts(self) -> dict[str, dict[str, int]]:
        """Images of each class of each split."""
        counted = Counter(self.where.values())
        table: dict[str, dict[str, int]] = {}
        for split, name in sorted(self.classes):
            table.setdefault(split, {})[name] = counted[split, name]
        return table


def make_plan(path: str | os.PathLike[str], splits: Sequence[str] | None = None) -> tuple[Source, Plan]:
    """Find out how the images at a path are laid out: folder, zip or list file."""
    place = Path(path).expanduser()
    if place.is_file() and place.suffix.lower() in LIST_EXTENSIONS:
        return _plan_list(place)
    source = open_source(path)
    return source, _plan_folders(source, _SPLITS if splits is None else tuple(name.lower() for name in splits))


def _plan_list(place: Path) -> tuple[Source, Plan]:
    try:
        source, records = open_list(place)
    except FieldmarkError as error:
        return open_source(place.parent), Plan("list", {}, set(), [Problem("error", "list", place.name, str(error))])
    where = {record.name: (record.split, record.class_name) for record in records}
    return source, Plan("list", where, set(where.values()), _listed_twice(records))


def _listed_twice(records: Iterable[ImageRecord]) -> list[Problem]:
    classes: dict[str, set[str]] = defaultdict(set)
    for record in records:
        classes[record.name].add(record.class_name)
    return [
        Problem("error", "two-labels", name, f"the list gives it the classes {', '.join(sorted(found))}; keep one")
        for name, found in classes.items()
        if len(found) > 1
    ]


def _plan_folders(source: Source, splits: Sequence[str]) -> Plan:
    names, folders = source.names(), source.folders()
    listed = find_list(source)
    if listed is not None:
        try:
            records = read_list(source, listed)
        except FieldmarkError as error:
            return Plan("list", {}, set(), [Problem("error", "list", listed, str(error))])
        where = {record.name: (record.split, record.class_name) for record in records}
        return Plan("list", where, set(where.values()), _listed_twice(records))
    prefix = _wrapping(names, folders)
    inner = [folder[len(prefix) :] for folder in folders if folder.startswith(prefix) and folder != prefix[:-1]]
    top = sorted({folder.split("/")[0] for folder in inner})
    split_layout = bool(top) and all(folder.lower() in splits for folder in top) and any("/" in f for f in inner)
    depth = 2 if split_layout else 1
    where, loose, ignored = {}, [], []
    for name in names:
        parts = name[len(prefix) :].split("/")
        if not name.startswith(prefix) or not is_image_name(name):
            ignored.append(name)
        elif len(parts) <= depth:
            loose.append(name)
        else:
            where[name] = (parts[0] if split_layout else "", parts[depth - 1])
    found = {tuple(folder.split("/")) for folder in inner if folder.count("/") == depth - 1}
    classes = {(parts[0], parts[1]) if split_layout else ("", parts[0]) for parts in found}
    problems = [
        Problem("warning", "loose", n, "lies outside of any class folder and is left out; move it") for n in loose
    ]
    if ignored:
        kinds = Counter(PurePosixPath(name).suffix.lower() or "no extension" for name in ignored)
        kind = ", ".join(f"{count} {suffix}" for suffix, count in kinds.most_common(5))
        text = f"{len(ignored)} files that are not images are ignored ({kind})"
        problems.append(Problem("note", "ignored", ignored[0], text, tuple(ignored[1:])))
    if not classes:
        text = f"{len(loose)} images but no class folder; expected one folder of images for each class, or a list file"
        problems.append(Problem("error", "no-classes", str(source.path), text))
    layout = "split folders" if split_layout else "class folders" if classes else "none"
    return Plan(layout, where, classes, problems)


def _wrapping(names: Sequence[str], folders: Sequence[str]) -> str:
    """The prefix of a lone folder around the class folders, as archives have."""
    prefix = ""
    while True:
        top = [f for f in folders if f.startswith(prefix) and f != prefix[:-1] and "/" not in f[len(prefix) :]]
        images = [name for name in names if name.startswith(prefix) and is_image_name(name)]
        if len(top) != 1 or not images or min(name[len(prefix) :].count("/") for name in images) < 2:
            return prefix
        prefix = top[0] + "/"


def class_problems(plan: Plan) -> list[Problem]:
    """Classes without images, with one, or with queries but no support."""
    problems = []
    table = plan.counts()
    for split, classes in table.items():
        for name, count in classes.items():
            place = f"{split}/{name}" if split else name
            if count == 0:
                text = "the class holds no image; add images or remove the folder"
                problems.append(Problem("error", "empty-class", place, text))
            elif count == 1 and split.lower() not in ("support", "query"):
                text = "the class has one image, which cannot be both support and query; add at least one more"
                problems.append(Problem("warning", "single-image", place, text))
    by_lower = {split.lower(): classes for split, classes in table.items()}
    if {"support", "query"} <= set(by_lower):
        for name in sorted(set(by_lower["query"]) - set(by_lower["support"])):
            text = "the query class has no support images, so it can never be predicted; add a support folder for it"
            problems.append(Problem("error", "no-support", f"query/{name}", text))
    return problems
