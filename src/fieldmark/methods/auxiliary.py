"""Losses that are added to the loss on episodes: contrast between views, the angle of a turn, the order of tiles."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.methods.base import Encode
from fieldmark.methods.contrast import Aggregation, GlobalContrast, Positives, SpatialContrast, Variant, check_contrast
from fieldmark.methods.cross_entropy import rotate_by_90
from fieldmark.shapes import Float, Int, Tensor

GRID = 3  # tiles a side of the jigsaw


class Auxiliary(nn.Module):
    """Base class: a loss on all images of an episode, support and query together.

    Attributes:
        compare: Whether it compares two views of the images.
    """

    compare: ClassVar[bool] = False

    def setup(self, channels: int) -> None:
        """Build what it learns, for maps of so many channels."""
        raise NotImplementedError

    def forward(
        self, encode: Encode, images: Float[Tensor, "E N 3 H W"], maps: Float[Tensor, "V E N C h w"],
        labels: Int[Tensor, "E N"],
    ) -> dict[str, Tensor]:  # fmt: skip
        """The loss.

        Args:
            encode: Images to maps, for losses that look at changed images.
            images: Support and query of every episode, in the first view.
            maps: Maps of all views of them, the first view first.
            labels: Labels inside each episode.

        Returns:
            ``"loss"``, and named scalars to log.
        """
        raise NotImplementedError


class Contrast(Auxiliary):
    """SCL's contrastive losses, over the two views of the images of each episode (Ouali et al. 2021, section 5).

    Args:
        spatial: SC rather than GC.
        positives: Images of the class, or the other view of the image.
        inner: Values of a projection (the paper, with ProtoNet: 64).
        temperature: Divides the similarities.
        aggregation: Of the spatial loss.
        variant: Likewise.
        pool: Places a side to which maps are averaged first, likewise (the paper, for maps of 7x7: 3).
        scale: Likewise.
    """

    compare: ClassVar[bool] = True

    def __init__(
        self,
        spatial: bool,
        positives: Positives,
        inner: int = 64,
        temperature: float = 0.1,
        aggregation: Aggregation = "mean",
        variant: Variant = "code",
        pool: int | None = 3,
        scale: float = 6.0,
    ) -> None:
        super().__init__()
        check_contrast("auxiliary loss", positives, aggregation, variant, inner, temperature, scale, pool)
        self.spatial, self.positives, self.inner, self.temperature = spatial, positives, inner, temperature
        self.aggregation, self.variant, self.pool, self.scale = aggregation, variant, pool, scale

    def setup(self, channels: int) -> None:
        """Build the heads."""
        if self.spatial:
            self.loss: nn.Module = SpatialContrast(
                channels, self.positives, self.inner, self.temperature, self.aggregation, self.variant, self.pool,
                self.scale,
            )  # fmt: skip
        else:
            self.loss = GlobalContrast(channels, self.positives, self.inner, self.temperature)

    def forward(self, encode: Encode, images: Tensor, maps: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Mean over the episodes: labels are numbers inside an episode, so they are not compared across."""
        views = len(maps)
        episodes = zip(maps.unbind(1), labels, strict=True)
        losses = [self.loss(one.flatten(0, 1), names.repeat(views), views) for one, names in episodes]
        return {"loss": torch.stack(losses).mean()}


class Rotation(Auxiliary):
    """Name the angle by which each image was turned: 0, 90, 180 or 270 degrees (Gidaris et al. 2018)."""

    def setup(self, channels: int) -> None:
        """Build the classifier of angles."""
        self.classifier = nn.Linear(channels, 4)

    def forward(self, encode: Encode, images: Tensor, maps: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One random angle an image."""
        flat = images.flatten(0, 1)
        turns = torch.randint(4, (len(flat),), device=flat.device)
        return _classified(self.classifier(encode(rotate_by_90(flat, turns)).mean((-2, -1))), turns)


class Jigsaw(Auxiliary):
    """Name the order in which the 3 x 3 tiles of each image were laid (Noroozi and Favaro 2016, Su et al. 2020).

    Each tile is cut out of its cell of the grid at a random place (three quarters of the cell's side, so that edges do
    not give the neighbour away), brought to half the image's side and encoded by itself. The pooled vectors, in the
    order in which the tiles lie, pass a two-layer perceptron.

    Args:
        permutations: How many orders there are, 2 to 72 (Su et al.: 35). Any two agree in at most one tile.

    Raises:
        FieldmarkError: If ``permutations`` is out of range.
    """

    orders: Tensor

    def __init__(self, permutations: int = 35) -> None:
        super().__init__()
        self.permutations = permutations
        self.register_buffer("orders", tile_orders(permutations), persistent=False)

    def setup(self, channels: int) -> None:
        """Build the perceptron."""
        hidden = max(channels, self.permutations)
        self.classifier = nn.Sequential(
            nn.Linear(GRID * GRID * channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, self.permutations)
        )

    def forward(self, encode: Encode, images: Tensor, maps: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One random order an image."""
        flat = images.flatten(0, 1)
        chosen = torch.randint(self.permutations, (len(flat),), device=flat.device)
        tiles = cut_tiles(flat)
        laid = tiles[torch.arange(len(flat), device=flat.device)[:, None], self.orders[chosen]].flatten(0, 1)
        side = flat.shape[-1] // 2
        laid = F.interpolate(laid, (side, side), mode="bilinear", antialias=True)
        vectors = encode(laid).mean((-2, -1)).unflatten(0, (len(flat), -1))
        return _classified(self.classifier(vectors.flatten(1)), chosen)


def cut_tiles(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B T 3 h w"]:
    """The 3 x 3 tiles of every image, row by row, each cut at a random place of its cell.

    The place is the same for one cell of all images of the batch: the cells differ, which is what counts.

    Raises:
        FieldmarkError: If the images are smaller than 6 pixels.

    Example:
        >>> cut_tiles(torch.zeros(2, 3, 36, 36)).shape
        torch.Size([2, 9, 3, 9, 9])
    """
    height, width = (side // GRID for side in images.shape[-2:])
    if min(height, width) < 2:
        raise FieldmarkError(
            f"images are {tuple(images.shape[-2:])}; a jigsaw of {GRID} x {GRID} tiles needs at least 6 pixels a side"
        )
    high, wide = height * 3 // 4, width * 3 // 4
    tiles = []
    for row, column in itertools.product(range(GRID), repeat=2):
        top = row * height + int(torch.randint(height - high + 1, ()))
        left = column * width + int(torch.randint(width - wide + 1, ()))
        tiles.append(images[..., top : top + high, left : left + wide])
    return torch.stack(tiles, 1)


def tile_orders(count: int) -> Int[Tensor, "K T"]:
    """``count`` orders of nine tiles of which any two agree in at most one tile; the first is the order itself.

    They are the maps x -> a x + b, a not 0, of the field of nine elements: two of them that agree twice are equal.

    Raises:
        FieldmarkError: If ``count`` is not 2 to 72.

    Example:
        >>> tile_orders(3)[0].tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8]
    """
    if not 2 <= count <= 72:
        raise FieldmarkError(f"permutations of auxiliary loss jigsaw is {count}; expected 2 to 72")
    # Elements are u + v i with u, v modulo 3 and i * i = -1, numbered 3 v + u; the factor 1 comes first.
    field = [(u, v) for v in range(3) for u in range(3)]
    orders = []
    for (a, b), (c, d) in itertools.product(field[1:], field):
        orders.append([(a * u - b * v + c) % 3 + 3 * ((a * v + b * u + d) % 3) for u, v in field])
    return torch.tensor(orders[:count])


_KINDS: dict[str, Callable[..., Auxiliary]] = {
    "gc": lambda **options: Contrast(False, "supervised", **options),
    "sc": lambda **options: Contrast(True, "supervised", **options),
    "ss_gc": lambda **options: Contrast(False, "self_supervised", **options),
    "ss_sc": lambda **options: Contrast(True, "self_supervised", **options),
    "rotation": Rotation,
    "jigsaw": Jigsaw,
}
_CONTRAST = tuple(inspect.signature(Contrast).parameters)[2:]
_OPTIONS = {"rotation": (), "jigsaw": ("permutations",)}  # the others: _CONTRAST


class Auxiliaries(nn.Module):
    """Several auxiliary losses by name.

    Args:
        names: Which; may be empty.
        options: Options of any of them.

    Raises:
        FieldmarkError: For an unknown or repeated name, or an option that none of them takes.

    Example:
        >>> Auxiliaries(["rotation", "ss_sc"], {"inner": 32}).compare
        True
    """

    def __init__(self, names: Sequence[str], options: Mapping[str, Any]) -> None:
        super().__init__()
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if name not in _KINDS:
                raise unknown_name("auxiliary loss", name, _KINDS)
            if names.count(name) > 1:
                raise FieldmarkError(f"auxiliary loss {name!r} is named twice; name each once")
        known = {option for name in names for option in _OPTIONS.get(name, _CONTRAST)}
        for option in options:
            if option not in known:
                raise unknown_name(f"option of the auxiliary losses {', '.join(names) or '(none)'}", option, known)
        made = {}
        for name in names:
            taken = _OPTIONS.get(name, _CONTRAST)
            made[name] = _KINDS[name](**{key: value for key, value in options.items() if key in taken})
        self.losses = nn.ModuleDict(made)

    def __len__(self) -> int:
        return len(self.losses)

    @property
    def compare(self) -> bool:
        """Whether one of them compares two views."""
        return any(one.compare for one in self._each())

    def _each(self) -> Iterator[Auxiliary]:
        for one in self.losses.values():
            assert isinstance(one, Auxiliary)
            yield one

    def setup(self, channels: int) -> None:
        """Build what they learn."""
        for one in self._each():
            one.setup(channels)

    def forward(self, encode: Encode, images: Tensor, maps: Tensor, labels: Tensor) -> dict[str, dict[str, Tensor]]:
        """The values of each by its name, see :class:`Auxiliary`.

        Raises:
            FieldmarkError: If views are to be compared and there is one only.
        """
        if self.compare and len(maps) < 2:
            raise FieldmarkError(
                f"auxiliary losses {', '.join(self.losses)} compare two views of an image and there is one; give the "
                "recipe a second_view, for example [random_resized_crop, colour_jitter, flip, grayscale]"
            )
        return {name: one(encode, images, maps, labels) for name, one in zip(self.losses, self._each(), strict=True)}


def _classified(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
    hits = scores.detach().argmax(-1) == labels
    return {"loss": F.cross_entropy(scores, labels), "accuracy": hits.float().mean()}
