"""Shapes in signatures: ``Float[Tensor, "Q N C"]``.

They are jaxtyping's where that is installed (our tests check them on every call) and plain tensors elsewhere, so
that ``fieldmark.functional`` needs torch alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

__all__ = ["Bool", "Float", "Int", "Tensor", "UInt8"]

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, UInt8
else:
    try:
        from jaxtyping import Bool, Float, Int, UInt8
    except ImportError:

        class _AnyShape:
            def __class_getitem__(cls, item):
                return item[0]

        Bool = Float = Int = UInt8 = _AnyShape
