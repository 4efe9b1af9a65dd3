"""One training step: augment on the device, encode, ask the objective for the loss."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import lightning
import torch
from torch import nn

from fieldmark.backbones import Encoder
from fieldmark.errors import FieldmarkError
from fieldmark.methods import Batch, EpisodeBatch, ImageBatch, Objective
from fieldmark.shapes import Tensor
from fieldmark.training.optim import make_optimizer, make_schedule
from fieldmark.training.schema import Stage
from fieldmark.training.seeds import derive

Augment = Callable[[Tensor, torch.Generator], Tensor]


class TrainingModule(lightning.LightningModule):
    """Encoder and objective of one stage.

    Every random choice of a step (augmentation, dropout, DropBlock, angles) is drawn from generators that are seeded
    with (key, step, rank), so a resumed run draws what the uninterrupted one would have.

    Args:
        encoder: Images in [0, 1] or uint8 to maps.
        objective: Gives the loss; already set up for the data.
        augment: Changes a batch of uint8 images ``(B, 3, H, W)`` into floats in [0, 1].
        stage: Optimiser, schedule and what is frozen.
        key: Seed and stage, the root of all random choices.
        steps_per_epoch: For the schedule.
        second: Likewise, for the second view of every image; None: there is one view.

    Raises:
        FieldmarkError: If a ``freeze`` pattern fits no module, or nothing is left to train.
    """

    def __init__(
        self,
        encoder: Encoder,
        objective: Objective,
        augment: Augment | None,
        stage: Stage,
        key: tuple[int | str, ...],
        steps_per_epoch: int,
        second: Augment | None = None,
    ) -> None:
        super().__init__()
        # Convolutions run faster in this layout on CPU and, in mixed precision, on GPU; values are the same.
        self.encoder = encoder.to(memory_format=torch.channels_last)
        self.objective = objective
        self.augment, self.second = augment, second
        self.stage, self.key, self.steps_per_epoch = stage, key, steps_per_epoch
        self.sums: dict[str, Tensor] = {}
        self._generator: torch.Generator | None = None
        self._frozen = self._freeze(stage.freeze)

    def _freeze(self, patterns: list[str]) -> list[nn.Module]:
        named = {name.removeprefix("encoder."): module for name, module in self.named_modules() if name}
        frozen = []
        for pattern in patterns:
            hit = [module for name, module in named.items() if fnmatchcase(name, pattern)]
            if not hit:
                top = [name for name in named if name.count(".") <= 1]
                raise FieldmarkError(
                    f"recipe key stages.{self.stage.name}.freeze: {pattern!r} fits no module; there are "
                    f"{', '.join(top[:12])} and what is inside them"
                )
            frozen += hit
        for module in frozen:
            module.requires_grad_(False)
        if not any(p.requires_grad for p in self.parameters()):
            raise FieldmarkError(f"recipe key stages.{self.stage.name}.freeze leaves nothing to train")
        return frozen

    def train(self, mode: bool = True) -> TrainingModule:
        """Training mode, but frozen modules keep their statistics when the stage says so."""
        super().train(mode)
        if self.stage.freeze_statistics:
            for module in self._frozen:
                module.eval()
        return self

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        """Loss of a batch from :mod:`fieldmark.training.loaders`; sums of all metrics stay on the device."""
        seed = derive(*self.key, "step", batch["step"], self.global_rank)
        torch.manual_seed(seed)
        out = self.objective(self.encoder, self._prepare(batch, seed))
        for name, value in out.items():
            value = value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        return out["loss"]

    def _prepare(self, batch: dict[str, Any], seed: int) -> Batch:
        images, second = self._views(batch["images"], seed)
        if "labels" in batch:
            labels = batch["labels"]
            if second is None:
                return ImageBatch(images, labels)
            return ImageBatch(torch.cat([images, second]), labels.repeat(2), views=2)
        episodes, shots = batch["support_labels"].shape
        images = images.unflatten(0, (episodes, -1))
        return EpisodeBatch(
            images[:, :shots], batch["support_labels"], images[:, shots:], batch["query_labels"], batch["way"],
            None if second is None else second.unflatten(0, (episodes, -1)),
        )  # fmt: skip

    def _views(self, images: Tensor, seed: int) -> tuple[Tensor, Tensor | None]:
        """The images as they are trained on, and their second view; one generator after the other serves both."""
        if self._generator is None:
            self._generator = torch.Generator(device=images.device)
        generator = self._generator.manual_seed(seed)
        first = images.float() / 255 if self.augment is None else self.augment(images, generator)
        second = None if self.second is None else self.second(images, generator)
        if second is not None and second.shape != first.shape:
            raise FieldmarkError(
                f"stage {self.stage.name!r}: the first view has {tuple(first.shape[-2:])} pixels and the second "
                f"{tuple(second.shape[-2:])}; end both augmentation and second_view with images of one size"
            )
        return first, second

    def _groups(self) -> list[Any]:
        """What is trained; what the objective itself learns apart, if it has a learning rate of its own."""
        trained, rate = [p for p in self.parameters() if p.requires_grad], self.stage.optimizer.objective_lr
        if rate is None:
            return trained
        own = {id(p) for p in self.objective.parameters()}
        parts = [[p for p in trained if (id(p) in own) == learned] for learned in (False, True)]
        return [{"params": part, **extra} for part, extra in zip(parts, ({}, {"lr": rate}), strict=True) if part]

    def configure_optimizers(self) -> Any:
        """Optimiser over what is not frozen, and its schedule, advanced every step."""
        optimizer = make_optimizer(self.stage.optimizer, self._groups())
        schedule = make_schedule(self.stage.schedule, optimizer, self.stage.epochs, self.steps_per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
