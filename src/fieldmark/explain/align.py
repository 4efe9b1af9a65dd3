"""Align the support image's map to the query's, and keep every step."""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args

import numpy as np
import torch

from fieldmark import heads
from fieldmark.backbones import Backbone, Encoder, as_encoder
from fieldmark.data.images import Fit, check_fit
from fieldmark.data.layouts.base import IMAGENET_STATISTICS
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.explain.alignment import Alignment
from fieldmark.explain.heat_maps import heat_map
from fieldmark.explain.images import Picture, check_finite, fitted_pair, names_of
from fieldmark.explain.matching import MAX_NODES
from fieldmark.functional.correspondence import correspondence
from fieldmark.functional.distances import cosine
from fieldmark.functional.foreground import foreground_mask
from fieldmark.heads import SpatialAlignment
from fieldmark.shapes import Float, Tensor

Heat = Literal["maximum", "norm"]

TEMPERATURE = 0.05
"""Of the correspondence, for models that were not trained with this head.

At the paper's 1 frozen features are hardly moved: their cosines lie within a few tenths, so every place of the query
takes almost the same from all places of the support. At 0.05 a cosine that is larger by 0.1 weighs seven times as much.
On pairs of photographs of one class (validation classes of ``grocery-fieldmark``, EfficientNet-Lite0) the mean cosine
of aligned places was highest at 0.03 to 0.05: 0.51, against 0.42 at 1 and 0.35 before the alignment.
"""


def align(
    model: Encoder | Backbone,
    query_image: Picture,
    support_image: Picture,
    *,
    size: int | tuple[int, int] | None = None,
    fit: Fit = "crop",
    heat: Heat = "maximum",
    head: SpatialAlignment | None = None,
    **options: Any,
) -> Alignment:
    """Align a support image to a query by the head ``spatial_alignment``, and keep every step.

    Source: LSSA (Wu et al. 2021), section 3; Figs. 3 to 5 are drawn from the result.

    Args:
        model: An encoder, with the head it was trained with if there is one; or a backbone, with its own normalisation
            or else that of ImageNet.
        query_image: A file (anything that ``fieldmark.data`` reads), a PIL image of mode RGB, or a uint8 array
            (H, W, 3).
        support_image: The image that is aligned to it, likewise.
        size: Side, or (height, width), at which the model sees them; default: the model's own.
        fit: How they are brought to that size: ``crop``, ``squash`` or ``pad``.
        heat: What the heat maps show of a place: its largest channel (``maximum``, as the paper) or the length of its
            vector (``norm``), which tells more where a network bounds its channels (ReLU6 of EfficientNet-Lite).
        head: A head that is made, in place of the model's.
        options: Of the head. Where the model was trained with one, these change it; otherwise the correspondence alone,
            without g, at the temperature :data:`TEMPERATURE`.

    Returns:
        Heat maps, masks, correlations, and contributions of the query's places that add up to the score.

    Raises:
        FieldmarkError: For a file that is no readable image, an unknown name, parts that were not trained with the
            model, a size that the model does not run at, or features that are not finite.

    Example:
        >>> from fieldmark import backbones
        >>> image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
        >>> found = align(backbones.create("conv4", last_pool=False), image, image[:, ::-1], size=(32, 48))
        >>> found.grid, bool(abs(found.contributions.sum() - found.score) < 1e-9)
        ((4, 6), True)
    """
    check_fit(fit)
    check_heat(heat)
    encoder = as_encoder(model, *IMAGENET_STATISTICS)
    made, trained = _head(encoder, head, options)
    images = fitted_pair(encoder, query_image, support_image, size, fit)
    maps = _maps(encoder, images)
    check_finite(maps)
    if maps[0, 0].numel() > MAX_NODES:
        raise FieldmarkError(
            f"the images have {maps[0, 0].numel():,} places each; expected at most {MAX_NODES:,}: take a smaller size"
        )
    steps = _steps(made, maps)
    last = list(steps.maps)[-1]
    query = _places(steps.maps["query"])
    contributions = -made.scale * distance_by_place(query, _places(steps.maps[last]), made.distance)
    measure = heat_map if heat == "maximum" else _length
    names = names_of(query_image, support_image)
    return Alignment(
        score=float(contributions.sum()),
        query_image=images[0], support_image=images[1],
        heat={name: measure(one)[0].numpy() for name, one in steps.maps.items()},
        correlations={
            name: cosine(query, _places(one)).numpy() for name, one in steps.maps.items() if name != "query"
        },
        masks=steps.masks, contributions=contributions.numpy(),
        correspondence=steps.correspondence, offsets=steps.offsets,
        facts={
            "backbone": encoder.backbone.name,
            "head_options": _options_of(made),
            "trained_head": trained,
            "heat_of": heat,
            "size": list(images[0].shape[:2]), "fit": fit,
        },
        query_name=names[0], support_name=names[1],
    )  # fmt: skip


def check_heat(heat: str) -> None:
    """Refuse heat maps of an unknown kind, with the nearest known one."""
    if heat not in get_args(Heat):
        raise unknown_name("heat", heat, get_args(Heat))


def distance_by_place(
    query: Float[Tensor, "N C"], support: Float[Tensor, "N C"], distance: str = "squared_euclidean"
) -> Float[Tensor, " N"]:
    """What each place adds to the distance of two sets that are compared place by place.

    Args:
        query: Vectors of the query's places.
        support: Vectors of the support, aligned to them.
        distance: As that of the head: ``squared_euclidean`` and ``euclidean`` are means over the places, ``sum`` is not
            divided. ``pooled`` is the squared length of the mean difference; a place adds the scalar product of its own
            difference with it, which is negative where it brings the two nearer to each other.

    Example:
        >>> query, support = torch.tensor([[2.0], [0.0]]), torch.tensor([[0.0], [1.0]])
        >>> distance_by_place(query, support), distance_by_place(query, support, "pooled")
        (tensor([2.0000, 0.5000]), tensor([ 0.5000, -0.2500]))
    """
    difference = query - support
    count = len(difference)
    if distance == "pooled":
        return difference @ difference.mean(0) / count
    squared = difference.square().sum(-1)
    return {"sum": squared, "squared_euclidean": squared / count, "euclidean": squared.sqrt() / count}[distance]


class _Steps:
    """Maps ``(1, C, h, w)`` by stage, and what made them."""

    def __init__(self) -> None:
        self.maps: dict[str, Tensor] = {}
        self.masks: dict[str, np.ndarray] = {}
        self.correspondence: np.ndarray | None = None
        self.offsets: np.ndarray | None = None


@torch.no_grad()
def _steps(head: SpatialAlignment, maps: Float[Tensor, "2 C h w"]) -> _Steps:
    """Every stage of the head, on maps of any shape."""
    steps = _Steps()
    refined = maps if head.enhance is None else head.enhance.refine(maps)
    if head.foreground in ("full", "mask"):
        masks = foreground_mask(refined.flatten(2).mT).unflatten(-1, refined.shape[-2:])
        steps.masks = {"query": masks[0].numpy(), "support": masks[1].numpy()}
        refined = refined * masks.unsqueeze(1)
    query, support = refined.split(1)
    steps.maps = {"query": query, "support": support}
    if head.correspondence:
        if head.correspond is None:
            weights = correspondence(_places(query), _places(support), head.temperature)
        else:
            weights = head.correspond.correlation(query, support)[0]
        steps.correspondence = weights.numpy()
        support = (weights @ _places(support)).mT.reshape(query.shape)
        steps.maps["correspondence"] = support
    if head.manipulate is not None:
        offsets = head.manipulate.offsets(support, query)[0]
        # From the width of the map being 2 to places.
        steps.offsets = (offsets * torch.tensor([query.shape[-1] - 1, query.shape[-2] - 1]).view(2, 1, 1) / 2).numpy()
        steps.maps["manipulation"] = head.manipulate(support, query)
    return steps


def _head(encoder: Encoder, head: SpatialAlignment | None, options: dict[str, Any]) -> tuple[SpatialAlignment, bool]:
    """The head in float64 on the processor, and whether it was trained with the model."""
    trained = encoder.head is not None and encoder.head.name == "spatial_alignment"
    if head is None:
        defaults = {} if trained else {"temperature": TEMPERATURE}
        made = heads.create_for(encoder, "spatial_alignment", **{**defaults, **options})
        assert isinstance(made, SpatialAlignment)
        return made.double().cpu().eval(), trained
    if options:
        raise FieldmarkError(f"a head and options of a head ({', '.join(options)}); expected one of the two")
    filled = any(True for _ in head.parameters())
    if head.learned and not filled:
        raise FieldmarkError("the head has learned parts without weights; expected a head after setup and training")
    return copy.deepcopy(head).double().cpu().eval(), filled


@torch.no_grad()
def _maps(encoder: Encoder, images: list[np.ndarray]) -> Float[Tensor, "2 C h w"]:
    """Maps of both images in float64, so that the contributions add up to its rounding."""
    was_training = encoder.training
    encoder.eval()
    try:
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(encoder.device)
        return encoder(batch).double().cpu()
    finally:
        encoder.train(was_training)


def _length(maps: Float[Tensor, "1 C h w"]) -> Float[Tensor, "1 h w"]:
    return torch.linalg.vector_norm(maps, dim=-3)


def _places(maps: Float[Tensor, "1 C h w"]) -> Float[Tensor, "N C"]:
    return maps[0].flatten(1).mT


def _options_of(head: SpatialAlignment) -> dict[str, Any]:
    names = ("foreground", "correspondence", "reduce", "manipulation", "temperature", "distance", "scale", "max_offset",
             "padding")  # fmt: skip
    return {name: getattr(head, name) for name in names}
