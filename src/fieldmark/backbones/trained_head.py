"""A head that was trained with a model: its name, its options and what it learned, kept in the model's file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Tensor

PREFIX = "head."


@dataclass(frozen=True)
class TrainedHead:
    """What has to be known to make a trained head again; :func:`fieldmark.heads.create_for` makes it.

    Attributes:
        name: The head's registered name.
        options: The options it was trained with.
        weights: What it learned, by the names of its state; empty for a head of which only the options count.

    Example:
        >>> TrainedHead("prototype", {"metric": "cosine"}).weights
        {}
    """

    name: str
    options: dict[str, Any]
    weights: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def header(self) -> str:
        """Name and options as they stand in the header of a model file.

        Example:
            >>> TrainedHead("prototype", {"metric": "cosine"}).header()
            '{"name": "prototype", "options": {"metric": "cosine"}}'
        """
        return json.dumps({"name": self.name, "options": self.options})

    @classmethod
    def from_file(cls, header: str, weights: Mapping[str, Tensor], where: str) -> TrainedHead:
        """A head from the header and the tensors of a model file; floating-point weights become float32.

        Args:
            header: What :meth:`header` wrote.
            weights: The file's tensors of the head, by their names in it ("head.correspondence.0.weight").
            where: The file, for the message.

        Raises:
            FieldmarkError: If the header is damaged.

        Example:
            >>> TrainedHead.from_file("[1, 2]", {}, "model.safetensors")
            Traceback (most recent call last):
            fieldmark.errors.FieldmarkError: model.safetensors: its trained head cannot be read; expected a name and ...
        """
        try:
            values = json.loads(header)
        except ValueError:
            values = None
        fits = isinstance(values, dict) and isinstance(values.get("name"), str)
        if not fits or not isinstance(values.get("options"), dict):
            raise FieldmarkError(
                f"{where}: its trained head cannot be read; expected a name and options, found {header[:60]!r}; the "
                "file is damaged, or from a newer fieldmark"
            )
        learned = {
            key.removeprefix(PREFIX): value.float() if value.is_floating_point() else value
            for key, value in weights.items()
        }
        return cls(values["name"], values["options"], learned)
