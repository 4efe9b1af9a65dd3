"""A share of each class set aside: chosen by a seed, the same for whoever asks again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fieldmark.errors import FieldmarkError

if TYPE_CHECKING:
    from fieldmark.data.store import ImageStore


def hold_out(store: ImageStore, share: float, seed: int = 0) -> tuple[ImageStore, ImageStore]:
    """Split images of every class in two: those that are kept, and those that are held out.

    Args:
        store: The images.
        share: Share of each class that is held out, above 0 and below 1; rounded, but at least one image of a class of
            two or more, and never all. A class of one image keeps it.
        seed: Of the choice.

    Returns:
        Kept and held-out images; both with all class names, in the order of the store.

    Raises:
        FieldmarkError: For a share out of its range, or if no class has two images.

    Example:
        >>> from fieldmark import data
        >>> kept, held = hold_out(data.load("glyphs", split="test"), 0.1)
        >>> len(kept) + len(held) == len(data.load("glyphs", split="test")), int(held.class_counts().min()) >= 1
        (True, True)
    """
    if not 0 < share < 1:
        raise FieldmarkError(f"the share to hold out is {share}; expected a number above 0 and below 1, such as 0.1")
    rng = np.random.default_rng([seed, 0x4E1D])
    held = np.zeros(len(store), bool)
    for label in range(len(store.class_names)):
        members = np.flatnonzero(store.labels == label)
        if len(members) > 1:
            count = min(max(round(share * len(members)), 1), len(members) - 1)
            held[rng.permutation(members)[:count]] = True
    if not held.any():
        raise FieldmarkError(
            f"nothing can be held out: no class of the {len(store)} images has two of them; leave out data.held_out"
        )
    return store.subset(~held), store.subset(held, f"{store.manifest.split} held out {share:g}")
