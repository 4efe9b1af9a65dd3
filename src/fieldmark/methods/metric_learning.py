"""Metric learning: embeddings of one class near, of different classes far; the losses of pytorch-metric-learning."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import nn
from torch.nn import functional as F

from fieldmark.errors import FieldmarkError, MissingExtraError, unknown_name
from fieldmark.methods.base import OBJECTIVES, Batch, Encode, ImageBatch, Objective
from fieldmark.shapes import Float, Int, Tensor

Loss = Literal["normalised_softmax", "contrastive", "soft_triple", "snr", "arcface", "multi_similarity"]
Miner = Literal["none", "multi_similarity"]


class _Kind(NamedTuple):
    """A loss of the package: its class there, and whether it holds one or more vectors for every class."""

    cls: str
    proxies: bool


_LOSSES = {
    "normalised_softmax": _Kind("NormalizedSoftmaxLoss", True),
    "contrastive": _Kind("ContrastiveLoss", False),
    "soft_triple": _Kind("SoftTripleLoss", True),
    "snr": _Kind("SignalToNoiseRatioContrastiveLoss", False),
    "arcface": _Kind("ArcFaceLoss", True),
    "multi_similarity": _Kind("MultiSimilarityLoss", False),
}
_BUILT = ("num_classes", "embedding_size")  # what setup fills in
_SOURCE = (
    "Musgrave et al. 2020; Zhai and Wu 2019 (normalised softmax), Hadsell et al. 2006 (contrastive), Qian et al. 2019 "
    "(SoftTriple), Yuan et al. 2019 (SNR), Deng et al. 2019 (ArcFace), Wang et al. 2019 (multi-similarity)"
)


@OBJECTIVES.add("metric_learning", "six losses on pooled embeddings, for retrieval", source=_SOURCE)
class MetricLearning(Objective):
    """A metric-learning loss of pytorch-metric-learning on the pooled embeddings of a batch.

    Source: the six losses of DeepEMD's Table 8, as Musgrave et al. 2020 compare them. The embedding is the mean of the
    map; the length of the embedding is one backbone option, ``project``. All losses but SNR compare directions; SNR
    too sees embeddings of length 1, as the package has it by default.

    The pair losses ("contrastive", "snr", "multi_similarity") learn from pairs of one class within a batch, so the
    stage should set ``images_per_class`` (Musgrave et al.: 4). The proxy losses ("normalised_softmax", "soft_triple",
    "arcface") learn vectors for the classes with the same optimiser; Musgrave et al. give these a learning rate of
    their own.

    Args:
        loss: Which loss.
        options: Options of that loss, by their names in the package: ``temperature`` (normalised_softmax);
            ``pos_margin``, ``neg_margin`` (contrastive, snr); ``centers_per_class``, ``la``, ``gamma``, ``margin``
            (soft_triple); ``margin``, ``scale`` (arcface); ``alpha``, ``beta``, ``base`` (multi_similarity).
        miner: ``"multi_similarity"``: only the pairs that are hard among those of the batch count (Wang et al. 2019,
            eq. 8 and 9); for the pair losses.

    Raises:
        MissingExtraError: If pytorch-metric-learning is not installed.
        FieldmarkError: For an unknown loss, option or miner, or a miner for a proxy loss.

    Example:
        >>> objective = MetricLearning("contrastive", {"neg_margin": 0.5})
        >>> objective.setup(channels=2, classes=2)
        >>> maps = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).view(3, 2, 1, 1)
        >>> out = objective(lambda images: maps, ImageBatch(torch.zeros(3, 3, 8, 8), torch.tensor([0, 0, 1])))
        >>> out["loss"].item(), out["accuracy"].item()
        (0.0, 1.0)
    """

    sampling: ClassVar[Literal["images", "episodes"]] = "images"
    criterion: nn.Module

    def __init__(
        self, loss: Loss = "multi_similarity", options: Mapping[str, Any] | None = None, miner: Miner = "none"
    ) -> None:
        super().__init__()
        if loss not in get_args(Loss):
            raise unknown_name("loss of objective metric_learning", loss, get_args(Loss))
        if miner not in get_args(Miner):
            raise unknown_name("miner of objective metric_learning", miner, get_args(Miner))
        self.loss, self.options, self.kind = loss, dict(options or {}), _LOSSES[loss]
        if miner != "none" and self.kind.proxies:
            raise FieldmarkError(
                f"miner {miner!r} of objective metric_learning chooses pairs, and loss {loss!r} has none; "
                "use miner none, or a pair loss (contrastive, snr, multi_similarity)"
            )
        taken = inspect.signature(getattr(_package("losses"), _base_of(loss))).parameters
        known = [name for name, one in taken.items() if one.kind is not one.VAR_KEYWORD and name not in _BUILT]
        for option in self.options:
            if option not in known:
                raise unknown_name(f"option of loss {loss!r} of objective metric_learning", option, known)
        self.miner = None if miner == "none" else _package("miners").MultiSimilarityMiner()

    def setup(self, channels: int, classes: int) -> None:
        """Build the loss, with its vectors for the classes where it has them."""
        sizes = {"num_classes": classes, "embedding_size": channels} if self.kind.proxies else {}
        self.criterion = getattr(_package("losses"), self.kind.cls)(**sizes, **self.options)

    def forward(self, encode: Encode, batch: Batch) -> dict[str, Tensor]:
        """Loss, and the share of images whose nearest other image in the batch is of their class."""
        assert isinstance(batch, ImageBatch)
        # The package casts its weights to the type of the embeddings, and half precision would stay.
        embeddings = encode(batch.images).mean((-2, -1)).float()
        with torch.autocast(embeddings.device.type, enabled=False):
            pairs = None if self.miner is None else self.miner(embeddings, batch.labels)
            loss = self.criterion(embeddings, batch.labels, pairs)
        return {"loss": loss, "accuracy": precision_in_batch(embeddings.detach(), batch.labels)}


def precision_in_batch(embeddings: Float[Tensor, "B C"], labels: Int[Tensor, "B"]) -> Float[Tensor, ""]:
    """Share of the images whose nearest other image (largest cosine) in the batch is of their class.

    Only images with another one of their class count; 0 if there is none.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.0, 1.0]])
        >>> round(precision_in_batch(embeddings, torch.tensor([0, 0, 1, 1])).item(), 2)
        0.75
    """
    if len(labels) < 2:
        return embeddings.new_zeros(())
    directions = F.normalize(embeddings, dim=-1)
    nearest = (directions @ directions.T).fill_diagonal_(-torch.inf).argmax(1)
    counts = (labels.unsqueeze(0) == labels.unsqueeze(1)).sum(1) > 1
    hits = (labels[nearest] == labels) & counts
    return hits.sum() / counts.sum().clamp_min(1)


def _base_of(loss: str) -> str:
    # The SNR loss is the contrastive one with another distance and passes its options through.
    return "ContrastiveLoss" if loss == "snr" else _LOSSES[loss].cls


def _package(module: str) -> Any:
    try:
        return importlib.import_module(f"pytorch_metric_learning.{module}")
    except ModuleNotFoundError:
        raise MissingExtraError("pytorch-metric-learning", "metric", "the objective metric_learning") from None
