"""The two numbers that are followed during training."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from fieldmark.backbones import Encoder
from fieldmark.data import ImageStore
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.analysis.clusters import davies_bouldin
from fieldmark.evaluation.analysis.spectrum import spectrum
from fieldmark.evaluation.features import encode
from fieldmark.shapes import Tensor


def measure_embedding(
    encoder: Encoder, data: ImageStore, described: Mapping[str, Tensor] | None = None
) -> dict[str, float]:
    """``davies_bouldin`` and ``effective_rank`` of the pooled features of all images.

    Source: SCL (Ouali et al. 2021), Figs. 3 and 5.

    Args:
        encoder: The model.
        data: The images.
        described: Descriptors of all images by kind, if there are any already (``encode`` gives them); pooled or
            spatial ones save encoding them again.

    Returns:
        Both numbers; the rank is 0 where all images have the same features.

    Example:
        >>> from fieldmark import backbones, data
        >>> glyphs = data.load("glyphs", split="test")
        >>> sorted(measure_embedding(Encoder(backbones.create("pixels"), (0.5,) * 3, (0.25,) * 3), glyphs))
        ['davies_bouldin', 'effective_rank']
    """
    known = dict(described or {})
    kind = next((kind for kind in ("pooled", "spatial") if kind in known), None)
    sets = known[kind] if kind is not None else encode(encoder, data, ["pooled"], progress=False)["pooled"]
    features, labels = sets[:, 0], torch.as_tensor(data.labels).long()
    try:
        rank = spectrum(features).effective_rank
    except FieldmarkError:  # an embedding that collapsed to a point: its training goes on
        rank = 0.0
    return {"davies_bouldin": davies_bouldin(features, labels).index, "effective_rank": rank}
