"""Contrastive loss over the similarities of a batch, whatever they are similarities of."""

from __future__ import annotations

import torch

from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Bool, Float, Int, Tensor


def contrastive_loss(
    similarity: Float[Tensor, "V W"],
    labels: Int[Tensor, " V"] | None = None,
    temperature: float = 0.1,
    *,
    views: int = 2,
    other_labels: Int[Tensor, " W"] | None = None,
) -> Float[Tensor, ""]:
    """How badly each image (the anchor, a row) tells the images of its class from all others.

    Source: SCL (Ouali et al. 2021), eq. 4 and 7; supervised: Khosla et al. 2020, self-supervised: Chen et al. 2020.
    An anchor's loss is the mean, over its positives, of minus the logarithm of their share in the softmax of
    ``similarity / temperature`` over all images but the anchor. The result is the mean over the anchors (the paper
    writes the sum); one without positives counts as 0 in it, as in the official code.

    With :func:`spatial_similarity` this is the paper's SC loss, with the cosines of projected pooled features
    (``cosine(x, x)``) its GC loss; without labels SS-SC and SS-GC.

    Args:
        similarity: Of every image with every image, large means near.
        labels: Classes of the images: positives are the other images of the anchor's class. None: they are the
            anchor's other views, in a batch of whole views one after the other.
        temperature: Of the softmax. (The official option of this name is its inverse, 10.)
        views: Of each image in the batch; only without labels.
        other_labels: Classes of the columns, if these are other images than the rows; then no pair is left out.

    Raises:
        FieldmarkError: For a similarity that is not square or labels that do not fit, or a temperature or a number of
            views that cannot be.

    Example:
        >>> cosines = torch.tensor([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> contrastive_loss(cosines, torch.tensor([4, 4, 7]))
        tensor(8.2016e-05)
    """
    _check(similarity, labels, temperature, views, other_labels)
    if similarity.dtype in (torch.float16, torch.bfloat16):
        similarity = similarity.float()
    logits, positive = similarity / temperature, _positives(similarity, labels, views, other_labels)
    if other_labels is None:
        # Lowest, not minus infinity: a batch of one image then has a loss of 0 and not NaN.
        itself = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(itself, torch.finfo(logits.dtype).min)
    count = positive.sum(-1)
    log_share = logits - logits.logsumexp(-1, keepdim=True)
    return -(torch.where(positive, log_share, 0).sum(-1) / count.clamp_min(1)).mean()


def _positives(
    similarity: Tensor, labels: Tensor | None, views: int, other_labels: Tensor | None
) -> Bool[Tensor, "V W"]:
    """Which columns belong to each row."""
    if labels is None:
        labels = torch.arange(len(similarity) // views, device=similarity.device).repeat(views)
    if other_labels is not None:
        return labels.unsqueeze(1) == other_labels
    return (labels.unsqueeze(1) == labels).fill_diagonal_(False)


def _check(
    similarity: Tensor, labels: Tensor | None, temperature: float, views: int, other_labels: Tensor | None
) -> None:
    shape = tuple(similarity.shape)
    if similarity.dim() != 2 or 0 in shape:
        raise FieldmarkError(f"similarity is {shape}; expected (V, V), one row an image")
    if not temperature > 0:
        raise FieldmarkError(f"temperature is {temperature}; expected a positive number, 0.1 in the paper")
    if other_labels is not None:
        if labels is None:
            raise FieldmarkError("other_labels without labels; give the classes of the rows too")
        if len(other_labels) != shape[1]:
            raise FieldmarkError(f"other_labels has {len(other_labels)} entries for {shape[1]} columns of similarity")
    elif shape[0] != shape[1]:
        raise FieldmarkError(f"similarity is {shape}; expected a square one, or other_labels with the columns' classes")
    if labels is not None and len(labels) != shape[0]:
        raise FieldmarkError(
            f"labels has {len(labels)} entries for {shape[0]} rows of similarity; repeat them for each view"
        )
    if labels is None and (views < 2 or shape[0] % views):
        raise FieldmarkError(
            f"{shape[0]} images in {views} views; without labels expected 2 views or more that divide the batch"
        )
