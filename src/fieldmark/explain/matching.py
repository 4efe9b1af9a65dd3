"""What matched what between two images: flows, cosines, and contributions that add up to the similarity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast, get_args

import numpy as np
import torch

from fieldmark import functional
from fieldmark.backbones import Backbone, Encoder, as_encoder
from fieldmark.data.images import Fit, check_fit
from fieldmark.data.layouts.base import IMAGENET_STATISTICS
from fieldmark.descriptors import Extractor, as_extractor
from fieldmark.errors import FieldmarkError, unknown_name
from fieldmark.explain.boxes import Nodes, place_nodes
from fieldmark.explain.images import Picture, check_finite, fitted_pair, names_of
from fieldmark.functional.emd_similarity import Weighting, directions
from fieldmark.functional.weights import Variant

MAX_NODES = 1024
"""Descriptors an image; the exact matching of more takes minutes and shows nothing."""


@dataclass(frozen=True)
class Matching:
    """Two images as the model saw them, and how their nodes were matched.

    The contributions add up to the similarity exactly, up to the rounding of float64: nothing of the score is left
    unexplained.

    Attributes:
        similarity: The score; at most the temperature, which is reached where every node meets its like.
        query_image: ``(H, W, 3)`` uint8, after fit and size.
        support_image: ``(H, W, 3)`` uint8, likewise.
        flow: ``(N, M)`` how much of query node i went to support node j; sums to N.
        cosine: ``(N, M)`` cosine of the two descriptors as it entered the cost (variant "code": centred).
        contributions: ``(N, M)`` temperature / N * cosine * flow.
        query_weights: ``(N,)`` supply of the query's nodes; sums to N.
        support_weights: ``(M,)`` demand of the support's nodes; sums to N.
        query_nodes: Where the query's nodes lie in ``query_image``.
        support_nodes: Where the support's nodes lie in ``support_image``.
        facts: Backbone, descriptors, weights, variant, temperature, size and fit.
        query_name: What to call the query in pictures.
        support_name: What to call the support in pictures.
    """

    similarity: float
    query_image: np.ndarray = field(repr=False)
    support_image: np.ndarray = field(repr=False)
    flow: np.ndarray = field(repr=False)
    cosine: np.ndarray = field(repr=False)
    contributions: np.ndarray = field(repr=False)
    query_weights: np.ndarray = field(repr=False)
    support_weights: np.ndarray = field(repr=False)
    query_nodes: Nodes = field(repr=False)
    support_nodes: Nodes = field(repr=False)
    facts: dict[str, Any]
    query_name: str = "query"
    support_name: str = "support"

    @property
    def query_grid(self) -> tuple[int, int]:
        """Rows and columns of the query's finest level."""
        return cast("tuple[int, int]", self.query_nodes.cells.shape)

    @property
    def support_grid(self) -> tuple[int, int]:
        """Rows and columns of the support's finest level."""
        return cast("tuple[int, int]", self.support_nodes.cells.shape)

    @property
    def query_boxes(self) -> np.ndarray:
        """``(N, 4)`` left, top, right, bottom of the query's nodes, in pixels."""
        return self.query_nodes.boxes

    @property
    def support_boxes(self) -> np.ndarray:
        """``(M, 4)`` left, top, right, bottom of the support's nodes, in pixels."""
        return self.support_nodes.boxes

    def pairs(self) -> list[tuple[int, int]]:
        """The matched pairs of nodes (query, support), the largest contribution first."""
        # What is below rounding is no match; an approximate solver leaves such dust everywhere.
        found = np.argwhere(self.flow > 1e-9 * len(self.flow))
        order = np.argsort(-self.contributions[tuple(found.T)], kind="stable")
        return [(int(i), int(j)) for i, j in found[order]]

    def share(self, contribution: float) -> float | None:
        """Part of the similarity that a contribution makes up; None where the similarity is not positive."""
        return contribution / self.similarity if self.similarity > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the images, as JSON values; matches sorted by contribution, the largest first."""
        sides = {}
        for side, name, image, nodes, weights in (
            ("query", self.query_name, self.query_image, self.query_nodes, self.query_weights),
            ("support", self.support_name, self.support_image, self.support_nodes, self.support_weights),
        ):
            sides[side] = {
                "name": name,
                "size": list(image.shape[:2]),
                "grid": list(nodes.cells.shape),
                "boxes": nodes.boxes.tolist(),
                "weights": weights.tolist(),
            }
        matches = [
            {
                "query": i,
                "support": j,
                "query_box": self.query_boxes[i].tolist(),
                "support_box": self.support_boxes[j].tolist(),
                "flow": float(self.flow[i, j]),
                "cosine": float(self.cosine[i, j]),
                "contribution": float(self.contributions[i, j]),
                "share": self.share(float(self.contributions[i, j])),
            }
            for i, j in self.pairs()
        ]
        return {"similarity": self.similarity, **self.facts, **sides, "matches": matches}


def match(
    model: Encoder | Backbone,
    query_image: Picture,
    support_image: Picture,
    *,
    size: int | tuple[int, int] | None = None,
    fit: Fit = "crop",
    descriptors: str | Extractor = "dense",
    descriptor_options: Mapping[str, Any] | None = None,
    weights: Weighting = "cross_reference",
    variant: Variant = "code",
    temperature: float = 12.5,
    solver: str = "simplex",
    seed: int = 0,
) -> Matching:
    """Match the local descriptors of two images by the earth mover's distance.

    Source: DeepEMD (Zhang et al. 2020), eqs. 1-7 and 12; Figs. 6 and 7 are drawn from the result.

    Args:
        model: An encoder; or a backbone, with its own normalisation or else that of ImageNet.
        query_image: A file (anything that ``fieldmark.data`` reads), a PIL image of mode RGB, or a uint8 array
            (H, W, 3).
        support_image: The image that the query is explained by, likewise.
        size: Side, or (height, width), at which the model sees them; default: the model's own.
        fit: How they are brought to that size: ``crop``, ``squash`` or ``pad``.
        descriptors: Name of an extractor of local descriptors, or one that is made.
        descriptor_options: Options of the named extractor.
        weights: Weights of the nodes: ``cross_reference`` (eq. 12) or ``equal``.
        variant: ``code`` or ``paper``, see :func:`fieldmark.functional.emd_matches`.
        temperature: The largest possible similarity.
        solver: Solver of :func:`fieldmark.functional.emd`.
        seed: Seed of extractors that draw crops.

    Returns:
        Flows, cosines, weights, places, and contributions that add up to the similarity.

    Raises:
        FieldmarkError: For a file that is no readable image, an unknown name, a size that the model does not run at,
            or features that are not finite.

    Example:
        >>> from fieldmark import backbones
        >>> image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        >>> found = match(backbones.create("conv4", last_pool=False), image, image, size=32, weights="equal")
        >>> found.query_grid, bool(abs(found.contributions.sum() - found.similarity) < 1e-9)
        ((4, 4), True)
    """
    check_fit(fit)
    for kind, value, known in (("weights", weights, get_args(Weighting)), ("variant", variant, get_args(Variant))):
        if value not in known:
            raise unknown_name(kind, value, known)
    encoder = as_encoder(model, *IMAGENET_STATISTICS)
    extractor = as_extractor(descriptors, descriptor_options)
    images = fitted_pair(encoder, query_image, support_image, size, fit)
    sets, nodes = zip(*(_describe(encoder, extractor, image, seed) for image in images), strict=True)
    query, support = sets
    if max(len(query), len(support)) > MAX_NODES:
        raise FieldmarkError(
            f"the images have {len(query):,} and {len(support):,} descriptors; expected at most {MAX_NODES:,} each: "
            "take a smaller size"
        )
    options: dict[str, Any] = {"variant": variant, "weights": weights, "temperature": temperature, "solver": solver}
    found = functional.emd_matches(query.unsqueeze(0), support.unsqueeze(0), **options)
    flow, contributions, query_weights, support_weights = (
        one[0, 0].numpy() for one in (found.flow, found.contributions, found.query_weights, found.support_weights)
    )
    names = names_of(query_image, support_image)
    return Matching(
        similarity=float(found.similarity[0, 0]),
        query_image=images[0], support_image=images[1], flow=flow,
        cosine=_cosines(query, support, variant), contributions=contributions,
        query_weights=query_weights, support_weights=support_weights,
        query_nodes=nodes[0], support_nodes=nodes[1],
        facts={
            "backbone": encoder.backbone.name,
            "descriptors": extractor.name,
            "descriptor_options": extractor.options,
            "weights": weights, "variant": variant, "temperature": temperature,
            "size": list(images[0].shape[:2]), "fit": fit,
        },
        query_name=names[0], support_name=names[1],
    )  # fmt: skip


@torch.no_grad()
def _describe(encoder: Encoder, extractor: Extractor, image: np.ndarray, seed: int) -> tuple[torch.Tensor, Nodes]:
    """Descriptors ``(N, C)`` in float64, so that the contributions add up to its rounding, and where they lie."""
    map_sizes = []

    def encode(images: torch.Tensor) -> torch.Tensor:
        maps = encoder(images)
        map_sizes.append((int(maps.shape[-2]), int(maps.shape[-1])))
        return maps

    was_training = encoder.training, extractor.training
    encoder.eval()
    extractor.eval()
    try:
        batch = torch.from_numpy(image.copy()).permute(2, 0, 1).unsqueeze(0).to(encoder.device)
        found = extractor(encode, batch, torch.Generator().manual_seed(seed))[0].double().cpu()
        size = (image.shape[0], image.shape[1])
        nodes = place_nodes(extractor, len(found), size, map_sizes[0], seed)
    finally:
        encoder.train(was_training[0])
        extractor.train(was_training[1])
    check_finite(found)
    return found, nodes


def _cosines(query: torch.Tensor, support: torch.Tensor, variant: Variant) -> np.ndarray:
    """Cosines as they enter the cost: the official code centres each descriptor across its channels first."""
    centre = variant == "code"
    return (directions(query, centre) @ directions(support, centre).mT).numpy()
