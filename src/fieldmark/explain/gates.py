"""What API-Net's gates look at in a pair of images: the maps of the channels that they open most."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fieldmark.backbones import Backbone, Encoder, TrainedClassifier, as_encoder, load_model
from fieldmark.classifiers.trained import classifier_of
from fieldmark.data.images import Fit, check_fit
from fieldmark.data.layouts.base import IMAGENET_STATISTICS
from fieldmark.errors import FieldmarkError
from fieldmark.explain.images import Picture, check_finite, fitted_pair, names_of
from fieldmark.explain.panels import CAPTION, GAP, Scale, draw_row, draw_scale, over_image, size_of
from fieldmark.explain.picture import draw_lines, stacked
from fieldmark.explain.sheet import FOOT, HEADING, MARGIN, Sheet
from fieldmark.methods import APINet
from fieldmark.methods.pairwise_interaction import PairwiseInteraction
from fieldmark.shapes import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Guess(NamedTuple):
    """What a model's classifier says of an image by itself."""

    name: str
    probability: float


@dataclass(frozen=True)
class View:
    """One image of the pair.

    Attributes:
        image: ``(H, W, 3)`` uint8, as the model sees it.
        name: Of its file.
        channels: Channels that its gate opens most, the most open first.
        gate: Their gates, 0 to 1.
        maps: ``(channels, h, w)`` their maps.
        baseline: ``(channels, h, w)`` maps of the same channels in the baseline; None without one.
        guess: Of the model; None without a classifier.
        baseline_guess: Of the baseline.
    """

    image: np.ndarray
    name: str
    channels: list[int]
    gate: list[float]
    maps: np.ndarray
    baseline: np.ndarray | None = None
    guess: Guess | None = None
    baseline_guess: Guess | None = None


@dataclass(frozen=True)
class Gates:
    """A pair of images through each other's gates.

    Attributes:
        views: The two images.
        facts: Backbone, sizes, and how the mutual vector is made.
    """

    views: tuple[View, View]
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, without pixels and maps."""
        images = [
            {
                "name": one.name, "channels": one.channels, "gates": one.gate,
                "prediction": None if one.guess is None else one.guess._asdict(),
                "baseline_prediction": None if one.baseline_guess is None else one.baseline_guess._asdict(),
            }
            for one in self.views
        ]  # fmt: skip
        return {"images": images, **self.facts}


def interaction_of(run: str | Path) -> PairwiseInteraction:
    """The trained pairwise interaction of a run whose last stage is API-Net.

    A model file holds the classifier alone, since the interaction is not needed at test; the run's checkpoints have it.

    Args:
        run: The run's folder.

    Returns:
        The interaction in evaluation mode, that of the run's model (its best epoch where the run validates).

    Raises:
        FieldmarkError: If it is no run folder, or no run of API-Net.
    """
    from fieldmark import methods
    from fieldmark.training import make_recipe
    from fieldmark.training.checkpoints import load_state
    from fieldmark.training.folder import RunFolder
    from fieldmark.training.typed import parse_yaml

    run = Path(run)
    if not run.is_dir():
        raise FieldmarkError(
            f"{run} is no run folder; expected that of an API-Net training (a model file has no interaction)"
        )
    encoder, facts = load_model(run)
    stage = make_recipe(parse_yaml(facts["recipe_yaml"], str(run))).stages[-1]
    objective = methods.create(stage.objective.name, **stage.objective.options)
    if not isinstance(objective, APINet):
        raise FieldmarkError(
            f"{run}: its last stage {stage.name!r} trains {stage.objective.name}; expected apinet, which has gates"
        )
    kept = load_state(RunFolder(run).stage(stage.name) / facts["stages"][-1]["checkpoint"])["model"]
    learned = {key.removeprefix("objective."): value for key, value in kept.items() if key.startswith("objective.")}
    with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced at once
        objective.setup(encoder.channels, len(learned["classifier.layer.bias"]))
    objective.load_state_dict(learned)
    return objective.interaction.eval()


@torch.no_grad()
def gates(
    model: Encoder,
    interaction: PairwiseInteraction,
    first_image: Picture,
    second_image: Picture,
    *,
    baseline: Encoder | Backbone | None = None,
    channels: int = 5,
    size: int | tuple[int, int] | None = None,
    fit: Fit = "squash",
) -> Gates:
    """The channels that the gates of a pair open most, with their maps before pooling.

    Source: API-Net (Zhuang et al. 2020), section 4.3 and Fig. 3. Of the first image the top channels of g_1 are shown,
    of the second those of g_2; of the baseline, the maps of the same channels: the two networks began with the same
    weights, or the comparison says nothing.

    Args:
        model: The encoder that was trained with the interaction.
        interaction: From :func:`interaction_of`, or of an objective.
        first_image: A file, a PIL image of mode RGB, or a uint8 array (H, W, 3).
        second_image: Likewise; usually of a class that is confused with the first one's.
        baseline: A plain model of the same backbone.
        channels: How many of each gate.
        size: Side, or (height, width), at which the model sees them; default: the model's own.
        fit: How they are brought to that size.

    Raises:
        FieldmarkError: For unreadable images, features that are not finite, or models that do not fit together.

    Example:
        >>> from fieldmark import backbones
        >>> encoder = Encoder(backbones.create("conv4", channels=8), mean=(0.5,) * 3, std=(0.25,) * 3).eval()
        >>> image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        >>> found = gates(encoder, PairwiseInteraction(encoder.channels), image, image[:, ::-1], channels=2, size=32)
        >>> found.views[0].maps.shape, len(found.views[1].channels)
        ((2, 2, 2), 2)
    """
    check_fit(fit)
    if channels < 1:
        raise FieldmarkError(f"channels is {channels}; expected at least 1")
    if interaction.channels != model.channels:
        raise FieldmarkError(
            f"the interaction is for {interaction.channels} channels and the model has {model.channels}; expected "
            "those of one training"
        )
    images = [_middle(one, model.crop) for one in fitted_pair(model, first_image, second_image, size, fit)]
    maps = _maps(model, images)
    check_finite(maps)
    pooled = maps.mean((-2, -1))
    opened = interaction(*pooled.split(1)).gates
    plain = None if baseline is None else as_encoder(baseline, *IMAGENET_STATISTICS)
    if plain is not None and plain.channels != model.channels:
        raise FieldmarkError(
            f"the baseline has {plain.channels} channels and the model {model.channels}; expected a plain training of "
            "the same backbone"
        )
    others = None if plain is None else _maps(plain, images)
    guesses, other_guesses = _guesses(model, maps), _guesses(plain, others)
    views = []
    for number, name in enumerate(names_of(first_image, second_image)):
        values, top = opened[number][0].topk(min(channels, model.channels))
        views.append(
            View(
                images[number], name, top.tolist(), values.tolist(), maps[number, top].numpy(),
                None if others is None else others[number, top].numpy(), guesses[number], other_guesses[number],
            )
        )  # fmt: skip
    facts = {
        "backbone": model.backbone.name, "mutual": interaction.mutual, "gate": interaction.gate,
        "size": list(images[0].shape[:2]), "grid": list(maps.shape[-2:]), "fit": fit,
        "baseline": None if plain is None else plain.backbone.name,
    }  # fmt: skip
    return Gates((views[0], views[1]), facts)


def gates_picture(found: Gates) -> Figure:
    """The two images with the maps of their gates' top channels, and the baseline's below.

    Source: API-Net (Zhuang et al. 2020), Fig. 3. The maps of an image share one colour scale; model and baseline have
    one each.

    Args:
        found: What :func:`gates` found.

    Returns:
        A figure; write it by its ``savefig`` or by :func:`fieldmark.explain.save_picture`.
    """
    parts = [
        (
            lambda one, number=number: _height(one.views[number]),
            lambda sheet, one, number=number: _draw(sheet, one, number),
        )
        for number in (0, 1)
    ]
    return stacked(found, parts, _draw_title)


def _height(view: View) -> float:
    rows = 1 if view.baseline is None else 2
    return HEADING + rows * (size_of(view.image, len(view.channels) + 1)[1] + CAPTION) + FOOT


def _draw(sheet: Sheet, found: Gates, number: int) -> None:
    view = found.views[number]
    sheet.heading(
        f"Image {number + 1}: {view.name}",
        f"Channels that gate g{number + 1} opens most, their maps over the image; below each its number and its gate.",
    )
    size = size_of(view.image, len(view.channels) + 1)
    rows = [("API-Net", view.maps, view.guess)]
    if view.baseline is not None:
        rows.append(("baseline", view.baseline, view.baseline_guess))
    top = HEADING
    for title, maps, guess in rows:
        scale = Scale.of(list(maps), title, low=min(0.0, float(maps.min())))
        said = title if guess is None else f"{title}: {guess.name} {100 * guess.probability:.0f} %"
        captions = [
            f"{c}: {g:.3f}" if title == "API-Net" else f"{c}" for c, g in zip(view.channels, view.gate, strict=True)
        ]
        pictures = [view.image, *(over_image(view.image, one, scale) for one in maps)]
        draw_row(sheet, top, pictures, size, [said, *captions])
        draw_scale(sheet, scale, MARGIN + len(pictures) * (size[0] + GAP), top, size[1])
        top += size[1] + CAPTION


def _draw_title(sheet: Sheet, found: Gates) -> None:
    facts = found.facts
    (height, width), (rows, columns) = facts["size"], facts["grid"]
    against = "no baseline given" if facts["baseline"] is None else "baseline: the same channels without interaction"
    how = (
        f"{facts['backbone']} at {width} × {height} pixels, map {rows} × {columns}  ·  mutual vector "
        f"{facts['mutual'].replace('_', ' ')}, gate {facts['gate']}  ·  {against}"
    )
    draw_lines(sheet, "Channels that the pair's gates open", ("query", "support"), how)


def _maps(encoder: Encoder, images: list[np.ndarray]) -> Tensor:
    was_training = encoder.training
    encoder.eval()
    try:
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(encoder.device)
        return encoder(batch).float().cpu()
    finally:
        encoder.train(was_training)


def _guesses(encoder: Encoder | None, maps: Tensor | None) -> list[Guess | None]:
    """By the trained classifier, where it needs the maps alone."""
    trained = None if encoder is None else encoder.classifier
    if not isinstance(trained, TrainedClassifier) or trained.name != "linear" or maps is None:
        return [None, None]
    classifier = classifier_of(encoder).cpu()
    probabilities = classifier(lambda given: given, maps).softmax(-1)
    return [Guess(trained.class_names[int(one.argmax())], float(one.max())) for one in probabilities]


def _middle(image: np.ndarray, crop: int | None) -> np.ndarray:
    """What the encoder sees of an image."""
    if crop is None or min(image.shape[:2]) <= crop:
        return image
    top, left = ((side - crop) // 2 for side in image.shape[:2])
    return np.ascontiguousarray(image[top : top + crop, left : left + crop])
