"""The list of comparisons: data sets, backbones and heads by name, and which are put together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.training.typed import build, parse_yaml

LIST = Path(__file__).resolve().parent / "comparisons.yaml"
Family = Literal["pooled", "votes", "aligned"]


@dataclass(frozen=True)
class HeadSpec:
    """A head with its options.

    Attributes:
        title: Its name on the page.
        family: ``"pooled"``; ``"votes"``, every place by itself; ``"aligned"``, places are matched or brought together.
        head: Registered name.
        options: Options.
        choose: Options that are chosen on validation classes, each with its candidates.
    """

    title: str
    family: Family
    head: str
    options: dict[str, Any] = field(default_factory=dict)
    choose: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSpec:
    """A data set: ``name`` as in ``fieldmark data``, its splits, queries a class; ``root`` unless it is looked for."""

    title: str
    name: str
    test: str
    base: str
    val: str
    queries: int
    root: str | None = None


@dataclass(frozen=True)
class BackboneSpec:
    """A model: a file or a backbone's name; ``input``: pixels a side to which it resizes what it is given."""

    title: str
    model: str
    input: int | None = None


@dataclass(frozen=True)
class ComparisonSpec:
    """Names of data set and backbone, episodes for each number of shots, and pixels a side of the stored images."""

    data: str
    backbone: str
    episodes: list[int]
    size: int | None = None


@dataclass(frozen=True)
class ValidationSpec:
    """Episodes on validation classes that choose options: shots, how many, and of how many images."""

    shot: int = 1
    episodes: int = 100
    images: int = 2000


@dataclass(frozen=True)
class LeftOut:
    """What is not compared, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Listed:
    """A whole list, as its file has it."""

    heads: dict[str, HeadSpec]
    data: dict[str, DataSpec]
    backbones: dict[str, BackboneSpec]
    comparisons: list[ComparisonSpec]
    shots: list[int]
    way: int = 5
    seed: int = 0
    cost_episodes: int = 5
    base_images: int = 2000
    validation: ValidationSpec = field(default_factory=ValidationSpec)
    left_out: list[LeftOut] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """A data set and a backbone, for all numbers of shots; one results file each.

    Attributes:
        address: ``DATA/BACKBONE``.
        data: The data set.
        backbone: The model.
        size: Pixels a side of the stored images; None: what the model was trained at, or the data set's own.
        episodes: Number of episodes by number of shots.
        listed: The list that it stands in.
    """

    address: str
    data: DataSpec
    backbone: BackboneSpec
    size: int | None
    episodes: Mapping[int, int]
    listed: Listed

    @property
    def heads(self) -> Mapping[str, HeadSpec]:
        """The heads, by name."""
        return self.listed.heads

    def file(self, shot: int, out: str | Path) -> Path:
        """The results file for a number of shots."""
        return Path(out) / f"{self.address.replace('/', '-')}-{shot}shot.json"

    def settings(self, shot: int) -> dict[str, Any]:
        """All that decides what comes out: a file with other settings is measured anew."""
        one = self.listed
        model = Path(self.backbone.model)
        return {
            "data": {key: value for key, value in asdict(self.data).items() if key not in ("title", "root")},
            "model": self.backbone.model,
            "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest() if model.is_file() else None,
            "input": self.backbone.input,
            "size": self.size,
            "way": one.way,
            "shot": shot,
            "episodes": self.episodes[shot],
            "seed": one.seed,
            "cost_episodes": one.cost_episodes,
            "base_images": one.base_images,
            "validation": asdict(one.validation),
            "heads": {
                key: {"head": head.head, "options": head.options, "choose": head.choose}
                for key, head in one.heads.items()
            },
        }


def load_list(path: str | Path = LIST) -> Listed:
    """Read a list of comparisons.

    Args:
        path: A YAML file; default: the list that comes with fieldmark.

    Raises:
        FieldmarkError: Names file and key: unknown, missing or of a wrong type; or a name that nothing explains.

    Example:
        >>> sorted(load_list().data)
        ['cifar_fs', 'fc100', 'glyphs', 'grocery', 'omniglot']
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FieldmarkError(f"cannot read the list of comparisons {path}: {error.strerror or error}") from None
    try:
        listed = build(Listed, parse_yaml(text, path.name))
    except FieldmarkError as error:
        raise FieldmarkError(f"{path.name}: {str(error).replace('recipe key', 'key')}") from None
    for one in listed.comparisons:
        for kind, name, known in (
            ("data set", one.data, listed.data),
            ("backbone", one.backbone, listed.backbones),
        ):
            if name not in known:
                raise unknown_name(f"{kind} of a comparison in {path.name}", name, known)
        if len(one.episodes) != len(listed.shots):
            raise FieldmarkError(
                f"{path.name}: {one.data}/{one.backbone} has {len(one.episodes)} numbers of episodes; expected "
                f"{len(listed.shots)}, one for each of the shots {listed.shots}"
            )
    return listed


def find(listed: Listed, addresses: Sequence[str] = ()) -> list[Comparison]:
    """The comparisons of a list, in its order: all, or those at addresses (``DATA`` or ``DATA/BACKBONE``).

    Raises:
        FieldmarkError: For an address that nothing has; the nearest is named.

    Example:
        >>> [one.address for one in find(load_list(), ["fc100"])]
        ['fc100/conv4_fc100', 'fc100/conv4_scl_fc100', 'fc100/efficientnet_lite0']
    """
    every = [
        Comparison(
            f"{one.data}/{one.backbone}", listed.data[one.data], listed.backbones[one.backbone], one.size,
            dict(zip(listed.shots, one.episodes, strict=True)), listed,
        )
        for one in listed.comparisons
    ]  # fmt: skip
    known = {name for one in every for name in (one.address, one.address.split("/")[0])}
    for address in addresses:
        if address not in known:
            raise unknown_name("comparison", address, known)
    return [one for one in every if not addresses or {one.address, one.address.split("/")[0]} & set(addresses)]
