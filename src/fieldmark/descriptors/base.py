"""What every extractor is: an image in, a set of local descriptors out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn.functional import adaptive_max_pool2d

from fieldmark.errors import FieldmarkError
from fieldmark.registry import Registry
from fieldmark.shapes import Float, Tensor

Encode = Callable[[Tensor], Tensor]
"""Images ``(B, 3, H, W)``, uint8 or float in 0 to 1, to maps ``(B, C, h, w)``; an encoder, for example."""

Kind = Literal["pooled", "local", "spatial"]
"""``"pooled"``: the mean of the map of the whole image; ``"local"``: what the extractor makes of it; ``"spatial"``:
that mean, then the largest activations in the four quarters of the map (SCL's global and spatial features)."""

DESCRIPTORS: Registry[Extractor] = Registry("extractor")


class Extractor(nn.Module):
    """Base class: images ``(B, 3, H, W)`` to sets of descriptors ``(B, N, C)``, with an encoder that is handed over.

    An extractor has no weights. Like a layer it is in training mode until :meth:`eval` is called; only ``grid``
    behaves differently there.

    Attributes:
        from_maps: Whether the maps of the whole images are all it needs; one encoding then serves other uses too.
        crops: How many images are encoded for each image.
        options: Options that make it again.
    """

    from_maps: ClassVar[bool]
    crops: int = 1

    def __init__(self) -> None:
        super().__init__()
        self.options: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The registered name, or that of the class."""
        return next((entry.name for entry in DESCRIPTORS if entry.make is type(self)), type(self).__name__)

    def forward(
        self, encode: Encode, images: Tensor, generator: torch.Generator | None = None
    ) -> Float[Tensor, "B N C"]:
        """Descriptors of a batch of images.

        Args:
            encode: Images to maps.
            images: ``(B, 3, H, W)``, uint8 or float in 0 to 1.
            generator: The only source of chance, if there is any; default: torch's global one of the CPU.
        """
        raise NotImplementedError


class MapExtractor(Extractor):
    """Base class of extractors that encode the whole image once and take all nodes from its map."""

    from_maps = True

    def forward(
        self, encode: Encode, images: Tensor, generator: torch.Generator | None = None
    ) -> Float[Tensor, "B N C"]:
        """Descriptors of a batch of images; nothing here is random."""
        return self.nodes(encode(images))

    def nodes(self, maps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B N C"]:
        """Descriptors from maps."""
        raise NotImplementedError


def describe(
    encode: Encode,
    images: Tensor,
    kinds: Iterable[Kind],
    extractor: Extractor,
    generator: torch.Generator | None = None,
) -> dict[Kind, Float[Tensor, "B N C"]]:
    """Descriptors of images, of each kind that is asked for; whole images are encoded at most once.

    Args:
        encode: Images to maps.
        images: ``(B, 3, H, W)``, uint8 or float in 0 to 1.
        kinds: ``"pooled"``: the mean of the whole image's map as a set of one, ``(B, 1, C)``, whatever the extractor;
            ``"local"``: the extractor's nodes ``(B, N, C)``; ``"spatial"``: the mean of the map and the largest
            activations in each cell of a 2 x 2 grid, row by row, ``(B, 5, C)``, whatever the extractor. The last four,
            flattened and scaled to unit length, are :func:`fieldmark.functional.spatial_features` up to the order of
            their entries.
        extractor: Makes the local descriptors.
        generator: For extractors that draw at random.

    Example:
        >>> from fieldmark import descriptors
        >>> grid = descriptors.create("grid", sizes=(2,)).eval()
        >>> images = torch.rand(4, 3, 8, 8)
        >>> {kind: tuple(sets.shape) for kind, sets in describe(lambda x: x, images, ["pooled", "local"], grid).items()}
        {'pooled': (4, 1, 3), 'local': (4, 4, 3)}
    """
    kinds = list(kinds)
    out: dict[Kind, Tensor] = {}
    needs_maps = "pooled" in kinds or "spatial" in kinds or isinstance(extractor, MapExtractor)
    maps = encode(images) if needs_maps else None
    for kind in kinds:
        if kind == "pooled":
            assert maps is not None
            out[kind] = maps.mean((-2, -1)).unsqueeze(1)
        elif kind == "spatial":
            assert maps is not None
            cells = adaptive_max_pool2d(maps, 2).flatten(2).mT
            out[kind] = torch.cat([maps.mean((-2, -1)).unsqueeze(1), cells], dim=1)
        elif isinstance(extractor, MapExtractor):
            assert maps is not None
            out[kind] = extractor.nodes(maps)
        else:
            out[kind] = extractor(encode, images, generator)
    return out


def as_extractor(descriptors: str | Extractor, options: Mapping[str, Any] | None = None) -> Extractor:
    """The named extractor, or the given one itself.

    Raises:
        FieldmarkError: For an unknown name or option, or options beside an extractor that is made already.

    Example:
        >>> as_extractor("grid", {"sizes": [2]}).crops
        4
    """
    if isinstance(descriptors, str):
        return DESCRIPTORS.create(descriptors, **(options or {}))
    if options:
        raise FieldmarkError(
            f"options {dict(options)} are given beside an extractor that is made already; give them where it is made, "
            "or give its name"
        )
    return descriptors


def counts(extractor: str, option: str, value: Any) -> tuple[int, ...]:
    """The numbers of an option that takes one or several whole numbers above 0.

    Raises:
        FieldmarkError: If it is something else.

    Example:
        >>> counts("feature_pyramid", "levels", [2, 1]), counts("feature_pyramid", "levels", 3)
        ((2, 1), (3,))
        >>> counts("feature_pyramid", "levels", "2,1")
        Traceback (most recent call last):
        fieldmark.errors.FieldmarkError: levels of extractor feature_pyramid is '2,1'; expected whole numbers of ...
    """
    values = [value] if isinstance(value, int) else value
    if not isinstance(values, list | tuple) or not values or not all(is_count(one) for one in values):
        raise FieldmarkError(
            f"{option} of extractor {extractor} is {value!r}; expected whole numbers of at least 1, such as [3, 2]"
        )
    return tuple(values)


def bounds(extractor: str, option: str, value: Any, least: float = 0.0, most: float = math.inf) -> tuple[float, float]:
    """The two ends of a range, in order, above 0 and inside ``least`` to ``most``.

    Raises:
        FieldmarkError: If they are not.

    Example:
        >>> bounds("grid", "ratio_range", [1, 3], least=1.0)
        (1.0, 3.0)
    """
    fits = isinstance(value, list | tuple) and len(value) == 2 and all(is_number(one) for one in value)
    if not fits or not (least <= value[0] <= value[1] <= most and value[0] > 0):
        room = "finite" if most == math.inf else f"at most {most:g}"
        raise FieldmarkError(
            f"{option} of extractor {extractor} is {value!r}; expected two numbers in rising order, "
            f"{f'at least {least:g}' if least else 'above 0'} and {room}"
        )
    return float(value[0]), float(value[1])


def is_number(value: Any) -> bool:
    """Whether it is a finite number (and not a truth value)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any) -> bool:
    """Whether it is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
