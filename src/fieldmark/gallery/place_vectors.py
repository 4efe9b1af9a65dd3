"""One vector a photo, a sum over the places of its map: whitened as head ``whitened`` does, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from fieldmark.heads import Whitened
from fieldmark.progress import track
from fieldmark.shapes import Float, Tensor

if TYPE_CHECKING:
    from fieldmark.gallery.store import Gallery

SAMPLE = 400
"""Photos that the whitening is learnt from."""

_AT_ONCE = 256  # photos whose local descriptors are in memory at a time


class PlaceVectors:
    """Local descriptors to vectors of unit length around the mean of a gallery, and to what each place adds to them.

    Args:
        head: Fitted to descriptors of the gallery.
        centre: ``(C,)`` mean of the gallery's vectors.

    Example:
        >>> sets = torch.rand(5, 9, 4)
        >>> made = PlaceVectors(Whitened().fit_base(sets), torch.zeros(4))
        >>> vectors = made.vectors(sets)
        >>> torch.allclose(made.places(sets[2]).sum(0), vectors[2], atol=1e-6)
        True
    """

    def __init__(self, head: Whitened, centre: Float[Tensor, " C"]) -> None:
        self.head, self.centre = head, centre

    @classmethod
    def learn(cls, gallery: Gallery, ids: list[int], progress: bool = True) -> tuple[PlaceVectors, Tensor]:
        """From a gallery's photos; also gives their vectors ``(M, C)``.

        Whitening comes from a sample of the photos, drawn by a fixed seed; the local descriptors of the others are
        read a few at a time, so that memory grows by one vector a photo.
        """
        drawn = np.random.default_rng(0).permutation(len(ids))[:SAMPLE]
        head = Whitened()
        head.fit_base(_local(gallery, [ids[i] for i in sorted(drawn)]))
        made = cls(head, torch.zeros(()))
        starts = range(0, len(ids), _AT_ONCE)
        parts = [
            made.means(_local(gallery, ids[start : start + _AT_ONCE]))
            for start in track(starts, "reading descriptors", _AT_ONCE, len(ids), show=progress)
        ]
        means = torch.cat(parts)
        made.centre = means.mean(0)
        return made, _unit(means - made.centre)

    def means(self, sets: Float[Tensor, "M N C"]) -> Float[Tensor, "M C"]:
        """Weighted and whitened means, before they are centred."""
        flat = self.head.place_weights(sets.shape[1]).to(sets) @ self.head.rooted(sets)
        return flat if self.head.whitening is None else flat @ self.head.whitening.to(flat).mT

    def vectors(self, sets: Float[Tensor, "M N C"]) -> Float[Tensor, "M C"]:
        """Vectors of unit length; 0 for a photo that is the mean of all."""
        return _unit(self.means(sets) - self.centre)

    def places(self, local: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        """What each place of a photo adds to its vector."""
        rooted = self.head.rooted(local)
        turned = rooted if self.head.whitening is None else rooted @ self.head.whitening.to(rooted).mT
        each = self.head.place_weights(len(local)).to(local).unsqueeze(1) * (turned - self.centre)
        return each / each.sum(0).norm().clamp_min(1e-12)


def _local(gallery: Gallery, ids: list[int]) -> Tensor:
    return torch.from_numpy(gallery.descriptors(["local"], ids)[2]["local"])


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12)
