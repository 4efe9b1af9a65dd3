"""Class log-probabilities from attention over the support set."""

from __future__ import annotations

import torch

from fieldmark.functional.labels import one_hot
from fieldmark.shapes import Float, Int, Tensor


def attention_log_probability(
    logits: Float[Tensor, "*batch Q S"], labels: Int[Tensor, "*batch S"], way: int
) -> Float[Tensor, "*batch Q way"]:
    """Log of the attention that falls on each class, the softmax running over all support images.

    Source: MatchingNet (Vinyals et al. 2016), eq. 1 and the attention of section 2.1.1, without full-context
    embedding.

    Args:
        logits: Similarity of every query to every support image.
        labels: Classes of the support images, 0 to way - 1, each with an image.
        way: Number of classes.

    Example:
        >>> import torch
        >>> attention_log_probability(torch.zeros(1, 4), torch.tensor([0, 0, 0, 1]), 2).exp()
        tensor([[0.7500, 0.2500]])
    """
    index = labels.long().unsqueeze(-2).expand_as(logits)
    # The largest logit of each class is taken out first, so that a far class keeps its finite logarithm.
    start = logits.new_full((*logits.shape[:-1], way), -torch.inf)
    top = start.scatter_reduce(-1, index, logits.detach(), "amax")
    weight = (logits - top.gather(-1, index)).exp()
    return torch.log_softmax((weight @ one_hot(labels, way, logits.dtype)).log() + top, dim=-1)
