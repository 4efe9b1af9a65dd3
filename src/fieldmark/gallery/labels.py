"""The labels of photos, however they were given: one a photo, all texts or all whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fieldmark.errors import FieldmarkError


def as_labels(y: Any) -> np.ndarray:
    """Labels ``(M,)`` as an array.

    Raises:
        FieldmarkError: For other than texts or whole numbers, or a mixture of them.

    Example:
        >>> as_labels(["night", "dark"]).tolist(), as_labels([2.0, 1.0]).tolist()
        (['night', 'dark'], [2.0, 1.0])
    """
    try:
        values = np.asarray(y if isinstance(y, np.ndarray) else list(y))
    except (TypeError, ValueError):
        raise FieldmarkError(f"labels are of type {type(y).__name__}; expected one label an image") from None
    if values.ndim != 1:
        raise FieldmarkError(f"labels have shape {values.shape}; expected one label an image, (M,)")
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and np.all(values == np.floor(values))):
        raise FieldmarkError("labels hold numbers that are not whole; expected classes: texts or whole numbers")
    if values.dtype == object:
        kinds = {type(value).__name__ for value in values}
        if len(kinds) > 1 or any(value is None for value in values):
            raise FieldmarkError(f"labels mix {', '.join(sorted(kinds))}; expected all texts or all whole numbers")
    return values


def joined(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Labels with more labels after them.

    Raises:
        FieldmarkError: If one are texts and the other are numbers.
    """
    text = [one.dtype.kind in "UO" for one in (old, new)]
    if text[0] != text[1]:
        raise FieldmarkError(
            f"labels are {'texts' if text[1] else 'numbers'}, and those given before are "
            f"{'texts' if text[0] else 'numbers'}; expected one kind"
        )
    return np.concatenate([old, new])


def check_counts(items: Any, labels: np.ndarray, what: str = "images") -> None:
    """Refuse another number of items than labels, and none at all.

    Args:
        items: What has a length: images, descriptors.
        labels: ``(M,)``.
        what: What the message calls the items.

    Raises:
        FieldmarkError: The numbers differ or are 0.
    """
    if len(items) != len(labels):
        raise FieldmarkError(f"{len(items)} {what} and {len(labels)} labels; expected one label each")
    if not len(labels):
        raise FieldmarkError(f"no {what} were given; expected at least one, with its label")


def plain(label: Any) -> Any:
    """A label as a plain JSON type.

    Example:
        >>> plain(np.int64(3)), plain("night")
        (3, 'night')
    """
    return label.item() if isinstance(label, np.generic) else label
