"""The same recipe trained with several seeds: what its results say over seeds, apart from what they say over episodes.

Nothing is declared: rows of results files belong together when their models' recipes are the same but for the seed,
and their tests are the same images and episodes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldmark.data import Manifest
from fieldmark.evaluation.results import compare_rows, estimate_of, load_record, load_records, runs_of
from fieldmark.evaluation.statistics import Estimate, estimate

FOLDER = "seeds"
_POOLED = {"name": "pooled", "options": {}}
_SEED_IN_NAME = re.compile(r"[-_]?seed[-_]?\d+$")


@dataclass(frozen=True)
class OverSeeds:
    """One test of one recipe, trained with one seed or more.

    Attributes:
        recipe: Its name, without a seed at its end; of several, the one that most seeds were trained under. Of a model
            of an earlier stage with that, as ``name (up to stage)``.
        training: What decides the training but the seed, as text (:func:`training_of`).
        evaluation: What decides the test, as text (:func:`evaluation_of`).
        rows: The row of a results file for every seed, in the seeds' order.
        files: The file of each, relative to the folder.
    """

    recipe: str
    training: str
    evaluation: str
    rows: Mapping[int, Mapping[str, Any]]
    files: Mapping[int, str]

    @property
    def row(self) -> Mapping[str, Any]:
        """The row of the first seed, for what all have in common."""
        return next(iter(self.rows.values()))

    @property
    def over_seeds(self) -> Estimate:
        """Mean and interval (Student) over the seeds' accuracies."""
        return estimate([row["mean"] for row in self.rows.values()], "seeds", "student")

    @property
    def over_episodes(self) -> Estimate:
        """Mean of all seeds with the mean of their intervals: they share their episodes."""
        every = [estimate_of(row) for row in self.rows.values()]
        mean, within = (sum(values) / len(every) for values in ([e.mean for e in every], [e.ci95 for e in every]))
        return Estimate(mean, within, every[0].count, every[0].over, every[0].interval)


def over_seeds(folder: str | Path) -> list[OverSeeds]:
    """All tests of trained models in a folder of results, those of one recipe together.

    Args:
        folder: The results; files in its folder ``seeds`` count as well.

    Returns:
        By recipe and test, in the files' order. A seed that was tested twice counts once.

    Raises:
        FieldmarkError: For a damaged file.

    Example:
        >>> over_seeds("no such folder")
        []
    """
    found: dict[tuple[str, str], dict[int, tuple[Mapping[str, Any], str, str]]] = {}
    for file, record in load_records(folder, FOLDER):
        trained = {
            model: training_of(facts["recipe_yaml"], file, last_stage_of(facts))
            for model, facts in record["models"].items()
            if facts.get("trained") and facts.get("recipe_yaml")
        }
        for row in record["rows"]:
            if row["model"] in trained:
                training, seed, until = trained[row["model"]]
                name = _SEED_IN_NAME.sub("", record["models"][row["model"]]["recipe"])
                name += f" (up to {until})" if until else ""
                found.setdefault((training, evaluation_of(row)), {}).setdefault(seed, (row, file, name))
    out = []
    for (training, evaluation), members in found.items():
        ordered = {seed: members[seed] for seed in sorted(members)}
        rows, files = ({seed: one[part] for seed, one in ordered.items()} for part in range(2))
        name = Counter(one[2] for one in ordered.values()).most_common(1)[0][0]
        out.append(OverSeeds(name, training, evaluation, rows, files))  # type: ignore[arg-type]
    return out


def on_other_images(tests: Sequence[OverSeeds]) -> list[list[OverSeeds]]:
    """Tests of one recipe that are the same but for their images, as where each seed draws what it holds out.

    Args:
        tests: What :func:`over_seeds` found; those with one seed count.

    Returns:
        Groups of two or more, a test a seed, in the seeds' order.

    Example:
        >>> on_other_images(over_seeds("no such folder"))
        []
    """
    groups: dict[str, dict[int, OverSeeds]] = {}
    for one in tests:
        if len(one.rows) == 1:
            (seed,) = one.rows
            like = [one.training, _scoring_of(one.row), one.row["protocol"], one.row["manifest"]["name"]]
            groups.setdefault(json.dumps(like, sort_keys=True), {})[seed] = one
    return [[group[seed] for seed in sorted(group)] for group in groups.values() if len(group) > 1]


@dataclass(frozen=True)
class SeedDifferences:
    """One test less another, of models trained with the same seed, for several seeds.

    Attributes:
        first: What is subtracted.
        other: What it is subtracted from; on the same images and episodes.
        each: The paired difference of means by seed, as a share.
    """

    first: OverSeeds
    other: OverSeeds
    each: Mapping[int, float]

    @property
    def over_seeds(self) -> Estimate:
        """Mean and interval (Student) over the seeds."""
        return estimate(list(self.each.values()), "seeds", "student")


def differences(tests: Sequence[OverSeeds], folder: str | Path) -> list[SeedDifferences]:
    """What was tested with two seeds or more, less the first row of the file that it stands in.

    What all rows of a seed have in common (a start, the images of a batch) cancels, so that a difference can be clear
    where the intervals of both overlap.

    Args:
        tests: What :func:`over_seeds` found. Once both must stand in one file; of other seeds they may lie in two.
        folder: Where it was found.

    Raises:
        FieldmarkError: For a damaged file, or rows of one file that are not on the same images and episodes.

    Example:
        >>> differences(over_seeds("no such folder"), "no such folder")
        []
    """
    several = [one for one in tests if len(one.rows) > 1]
    files = {file for one in several for file in one.files.values()}
    top = {file: load_record(Path(folder) / file)["rows"][0] for file in files}
    out = []
    for first in several:
        leads = {file for seed, file in first.files.items() if top[file] == first.rows[seed]}
        for other in several:
            shared = [seed for seed in first.rows if seed in other.rows]
            if other is not first and len(shared) > 1 and leads & {*other.files.values()}:
                each = {seed: compare_rows(other.rows[seed], first.rows[seed]).mean for seed in shared}
                out.append(SeedDifferences(first, other, each))
    return out


def last_stage_of(facts: Mapping[str, Any]) -> str | None:
    """The stage of training that a model comes from, where its facts say so.

    Example:
        >>> last_stage_of({"stages": [{"stage": "pretrain"}, {"stage": "lsc"}]})
        'lsc'
    """
    stages = facts.get("stages")
    return stages[-1]["stage"] if stages else None


def training_of(recipe: str, where: str, stage: str | None = None) -> tuple[str, int, str | None]:
    """What decides a training but the seed, as text; the seed; and the last stage, if the recipe goes on behind it.

    Args:
        recipe: As YAML, as a model's facts hold it.
        where: For messages.
        stage: That the model comes from: later ones decide nothing. None: the recipe's last.

    Raises:
        FieldmarkError: If it is no recipe.
    """
    from fieldmark.training.schema import Recipe
    from fieldmark.training.typed import build, parse_yaml

    values = build(Recipe, parse_yaml(recipe, where)).decisive().to_dict()
    seed = values.pop("seed")
    names = [one["name"] for one in values["stages"]]
    until = stage if stage in names[:-1] else None
    if until:
        values["stages"] = values["stages"][: names.index(until) + 1]
    return json.dumps(values, sort_keys=True, default=str), seed, until


def evaluation_of(row: Mapping[str, Any]) -> str:
    """What decides a test, as text: task, head, descriptors, images and episodes.

    Args:
        row: Of a results file.
    """
    images = Manifest.from_dict(row["manifest"]).identity
    return json.dumps([_scoring_of(row), images, [run["episode_hash"] for run in runs_of(row)]], sort_keys=True)


def _scoring_of(row: Mapping[str, Any]) -> list[Any]:
    """Task, head and descriptors."""
    described = row.get("descriptors") or _POOLED  # older files name none; their heads take pooled ones
    return [row["task"], row["head"], row["head_options"], described, row.get("support_copies", 0)]
