"""What was trained with a model beside its backbone: a few-shot head, a classifier; kept in the model's file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from torch import nn

from fieldmark.errors import FieldmarkError
from fieldmark.shapes import Tensor

Part = TypeVar("Part", bound="TrainedPart")
Made = TypeVar("Made", bound=nn.Module)


@dataclass(frozen=True)
class TrainedPart:
    """What has to be known to make a trained part again.

    Attributes:
        name: Its registered name.
        options: The options it was trained with.
        weights: What it learned, by the names of its state; empty for one of which only the options count.
        kind: What it is, and so the entry of the file's header and the prefix of its tensors.
    """

    name: str
    options: dict[str, Any]
    weights: dict[str, Tensor] = field(default_factory=dict, repr=False)
    kind: ClassVar[str]

    @classmethod
    def prefix(cls) -> str:
        """What stands before the names of its tensors in the file."""
        return f"{cls.kind}."

    def header(self) -> str:
        """What is not a tensor, as it stands in the header of a model file.

        Example:
            >>> TrainedHead("prototype", {"metric": "cosine"}).header()
            '{"name": "prototype", "options": {"metric": "cosine"}}'
        """
        return json.dumps({"name": self.name, "options": self.options})

    @classmethod
    def from_file(cls: type[Part], header: str, weights: Mapping[str, Tensor], where: str) -> Part:
        """A part from the header and the tensors of a model file; floating-point weights become float32.

        Args:
            header: What :meth:`header` wrote.
            weights: The file's tensors of the part, by their names in it ("head.correspondence.0.weight").
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
        if not isinstance(values, dict) or not cls._fits(values):
            raise FieldmarkError(
                f"{where}: its trained {cls.kind} cannot be read; expected {cls._expected()}, found {header[:60]!r}; "
                "the file is damaged, or from a newer fieldmark"
            )
        learned = {
            key.removeprefix(cls.prefix()): value.float() if value.is_floating_point() else value
            for key, value in weights.items()
        }
        return cls(values["name"], values["options"], learned, *cls._more(values))

    @classmethod
    def _fits(cls, values: Mapping[str, Any]) -> bool:
        return isinstance(values.get("name"), str) and isinstance(values.get("options"), dict)

    @classmethod
    def _expected(cls) -> str:
        return "a name and options"

    @classmethod
    def _more(cls, values: Mapping[str, Any]) -> Sequence[Any]:
        """Further fields of the class, from the header."""
        return ()


@dataclass(frozen=True)
class TrainedHead(TrainedPart):
    """A few-shot head that was trained with the model; :func:`fieldmark.heads.create_for` makes it again.

    Example:
        >>> TrainedHead("prototype", {"metric": "cosine"}).weights
        {}
    """

    kind: ClassVar[str] = "head"


@dataclass(frozen=True)
class TrainedClassifier(TrainedPart):
    """The classifier of the classes that a model was trained on; :func:`fieldmark.classifiers.classifier_of` makes it.

    Attributes:
        class_names: The classes, in the order of its scores.

    Example:
        >>> TrainedClassifier("linear", {"dropout": 0.0}, {}, ("apple", "pear")).header()
        '{"name": "linear", "options": {"dropout": 0.0}, "class_names": ["apple", "pear"]}'
    """

    class_names: tuple[str, ...] = field(default=(), repr=False)
    kind: ClassVar[str] = "classifier"

    def header(self) -> str:
        """Name, options and classes, as they stand in the header of a model file."""
        return json.dumps({"name": self.name, "options": self.options, "class_names": list(self.class_names)})

    @classmethod
    def _fits(cls, values: Mapping[str, Any]) -> bool:
        names = values.get("class_names")
        return super()._fits(values) and isinstance(names, list) and all(isinstance(one, str) for one in names)

    @classmethod
    def _expected(cls) -> str:
        return "a name, options and class names"

    @classmethod
    def _more(cls, values: Mapping[str, Any]) -> Sequence[Any]:
        return (tuple(values["class_names"]),)


def give_weights(made: Made, trained: TrainedPart, channels: int, changes: Mapping[str, Any] | None = None) -> Made:
    """Put what was learned into a part that was made and set up again; of the kept weights those that it has.

    Args:
        made: The part, with fresh weights.
        trained: What was kept.
        channels: Channels of the maps that it was set up for, for the message.
        changes: Options that differ from its training, for the message.

    Returns:
        The part, in evaluation mode.

    Raises:
        FieldmarkError: If it has parts that were not trained, or of another shape.
    """
    wanted = made.state_dict()
    missing = [key for key in wanted if key not in trained.weights]
    if missing:
        changed = f" with {', '.join(f'{key} {value}' for key, value in changes.items())}" if changes else ""
        raise FieldmarkError(
            f"{trained.kind} {trained.name!r}{changed} has a part {missing[0].split('.')[0]!r} that was not trained "
            f"with this model; leave out the options that ask for it, or train it"
        )
    for key, value in wanted.items():
        if value.shape != trained.weights[key].shape:
            raise FieldmarkError(
                f"entry {key!r} of the trained {trained.kind} {trained.name!r} is "
                f"{tuple(trained.weights[key].shape)}; expected {tuple(value.shape)} for a model of {channels} "
                "channels; the model's file is damaged or mixed up"
            )
    made.load_state_dict({key: trained.weights[key] for key in wanted})
    return made.eval()


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state as it is now, on the processor and for itself."""
    return {key: value.detach().cpu().clone() for key, value in weights.items()}
