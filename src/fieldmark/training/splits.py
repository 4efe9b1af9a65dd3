"""The images of a recipe by split, with the held-out slice where one is kept."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from fieldmark.data import ImageStore, hold_out
from fieldmark.data import load as load_data
from fieldmark.errors import FieldmarkError
from fieldmark.training.schema import DataSpec

HELD_OUT = "held-out"
Stores = Mapping[str, ImageStore]


class Splits:
    """The recipe's images, each split loaded when first needed.

    Args:
        spec: Names the data and its splits.
        given: Images by split, in place of those.
        seed: Of the choice of held-out images.
    """

    def __init__(self, spec: DataSpec, given: Stores, seed: int = 0) -> None:
        self.spec, self.given, self.seed = spec, given, seed
        self._loaded: dict[tuple[str, str], ImageStore] = {}

    def get(self, split: str, spec: DataSpec | None = None) -> ImageStore:
        """A whole split, of the recipe's data or of another data set."""
        if spec is None and split == HELD_OUT:
            return self.held_out
        if spec is None and split in self.given:
            return self.given[split]
        of = spec or self.spec
        key = (repr(of), split)
        if key not in self._loaded:
            # Another data set is seen at the size the model was trained at, unless the recipe says otherwise.
            size = of.size if of.size is not None or spec is None else self.train.size
            self._loaded[key] = load_data(of.name, of.root, split, size=size, fit=of.fit)
        return self._loaded[key]

    @cached_property
    def train(self) -> ImageStore:
        """What is trained on: the training split without what is held out."""
        whole = self.get(self.spec.train)
        return whole if self.spec.held_out is None else hold_out(whole, self.spec.held_out, self.seed)[0]

    @cached_property
    def held_out(self) -> ImageStore:
        """What is held out of the training split; refused where the recipe does not say how much."""
        if self.spec.held_out is None:
            raise FieldmarkError("no training images are held out; set data.held_out: 0.1, or use another split")
        return hold_out(self.get(self.spec.train), self.spec.held_out, self.seed)[1]

    @property
    def val(self) -> ImageStore:
        """The validation split."""
        return self.get(self.spec.val)
