"""Grad-CAM of a linear classifier on the embedding, for some images of a data set."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fieldmark.backbones import Encoder
from fieldmark.data import ImageStore
from fieldmark.evaluation.analysis.classifier import LinearClassifier
from fieldmark.explain.grad_cam import grad_cam
from fieldmark.progress import track

_AT_ONCE = 8


def explain_classifier(
    encoder: Encoder,
    data: ImageStore,
    classifier: LinearClassifier,
    images: np.ndarray,
    layer: str | None = None,
    *,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Where the classifier finds each image's class, and the likeliest other class.

    Args:
        encoder: The model whose pooled features the classifier takes.
        data: The images.
        classifier: From :func:`fit_classifier`.
        images: Numbers of the images.
        layer: Part of the backbone whose maps are looked at; default: its last maps.
        progress: Show a bar for long work on a terminal.

    Returns:
        For each image its ``number``, ``image`` as the model sees it (H, W, 3) uint8, ``names`` and ``probabilities``
        of its class and the other one, ``cams`` (h, w) of both, and ``right``: whether its class is the likeliest.

    Raises:
        FieldmarkError: For a layer that is not there, or whose output is not a map.
    """
    found: list[dict[str, Any]] = []
    for start in track(range(0, len(images), _AT_ONCE), "Grad-CAM", _AT_ONCE, len(images), show=progress):
        chosen = np.asarray(images[start : start + _AT_ONCE])
        batch = data.gather(chosen)
        own = torch.from_numpy(np.asarray(data.labels)[chosen].astype(np.int64))
        was_training = encoder.training
        encoder.eval()
        with torch.no_grad():
            logits = classifier.logits(encoder(batch.to(encoder.device)).mean((-2, -1))).cpu()
        encoder.train(was_training)
        probabilities = logits.softmax(-1)
        other = logits.scatter(1, own[:, None], -torch.inf).argmax(1)
        cams = [grad_cam(encoder, batch, classifier.score_of(classes), layer).cpu().numpy() for classes in (own, other)]
        for row, number in enumerate(chosen):
            pair = int(own[row]), int(other[row])
            found.append({
                "number": int(number),
                "image": _seen(encoder, batch[row]).permute(1, 2, 0).numpy(),
                "names": [str(data.class_names[c]).rsplit("/", 1)[-1] for c in pair],
                "probabilities": [float(probabilities[row, c]) for c in pair],
                "cams": [one[row] for one in cams],
                "right": bool(logits[row, pair[0]] >= logits[row, pair[1]]),
            })  # fmt: skip
    return found


def _seen(encoder: Encoder, image: torch.Tensor) -> torch.Tensor:
    """The part of an image ``(3, H, W)`` that the encoder cuts out."""
    crop = encoder.crop
    if crop is None or min(image.shape[-2:]) <= crop:
        return image
    top, left = ((side - crop) // 2 for side in image.shape[-2:])
    return image[..., top : top + crop, left : left + crop]
