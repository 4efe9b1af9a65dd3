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
        FieldmarkError: If a pattern of ``freeze`` or ``optimizer.rates`` fits no module, or nothing is left to train.
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
        self._frozen = [module for pattern in stage.freeze for module in self._fitting(pattern, "freeze")]
        self._held: list[nn.Parameter] = []
        self.thawed = False
        self._freeze()

    def _fitting(self, pattern: str, key: str) -> list[nn.Module]:
        """Modules whose names fit a pattern of a recipe key."""
        named = {name.removeprefix("encoder."): module for name, module in self.named_modules() if name}
        hit = [module for name, module in named.items() if fnmatchcase(name, pattern)]
        if not hit:
            top = [name for name in named if name.count(".") <= 1]
            raise FieldmarkError(
                f"recipe key stages.{self.stage.name}.{key}: {pattern!r} fits no module; there are "
                f"{', '.join(top[:12])} and what is inside them"
            )
        return hit

    def _freeze(self) -> None:
        inside = {id(p): p for module in self._frozen for p in module.parameters() if p.requires_grad}
        self._held = list(inside.values())
        for parameter in self._held:
            parameter.requires_grad_(False)
        if not any(p.requires_grad for p in self.parameters()):
            raise FieldmarkError(f"recipe key stages.{self.stage.name}.freeze leaves nothing to train")

    def setup(self, stage: str) -> None:
        """With several processes all gradients that will ever be needed must be known from the start."""
        if self.stage.freeze_epochs is not None and self.trainer.world_size > 1:
            for parameter in self._held:
                parameter.requires_grad_(True)

    def thaw(self, step: int) -> None:
        """From the step on that ``freeze_epochs`` names, train everything; no steps before it are ever after it."""
        epochs = self.stage.freeze_epochs
        if self.thawed or epochs is None or step < epochs * self.steps_per_epoch:
            return
        self.thawed = True
        for parameter in self._held:
            parameter.requires_grad_(True)
        self.train()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Frozen weights keep their values, also where their gradients had to be computed (:meth:`setup`)."""
        if self.stage.freeze_epochs is not None and not self.thawed:
            for parameter in self._held:
                parameter.grad = None

    def train(self, mode: bool = True) -> TrainingModule:
        """Training mode, but modules keep their statistics while they are frozen, when the stage says so."""
        super().train(mode)
        if self.stage.freeze_statistics and not self.thawed:
            for module in self._frozen:
                module.eval()
        return self

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        """Loss of a batch from :mod:`fieldmark.training.loaders`; sums of all metrics stay on the device."""
        self.thaw(batch["step"])
        micro = ("micro", batch["micro"]) if batch.get("micro") else ()
        seed = derive(*self.key, "step", batch["step"], self.global_rank, *micro)
        torch.manual_seed(seed)
        out = self.objective(self.encoder, self._prepare(batch, seed))
        for name, value in out.items():
            value = value.detach().float() / self.stage.accumulate
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
        """What is trained, or will be; parts that have a learning rate of their own apart."""
        later = {id(p) for p in self._held} if self.stage.freeze_epochs is not None else set()
        trained = [p for p in self.parameters() if p.requires_grad or id(p) in later]
        spec = self.stage.optimizer
        rates = dict(spec.rates) if spec.objective_lr is None else {"objective": spec.objective_lr, **spec.rates}
        if not rates:
            return trained
        chosen = dict.fromkeys((id(p) for p in trained), -1)  # which of the rates holds; -1: that of all
        for number, pattern in enumerate(rates):
            inside = [p for module in self._fitting(pattern, "optimizer.rates") for p in module.parameters()]
            chosen |= {id(p): number for p in inside if id(p) in chosen}
        groups: list[Any] = []
        for number, extra in enumerate([{}, *({"lr": rate} for rate in rates.values())], -1):
            if part := [p for p in trained if chosen[id(p)] == number]:
                groups.append({"params": part, **extra})
        return groups

    def configure_optimizers(self) -> Any:
        """Optimiser over what is not frozen, and its schedule, advanced every step."""
        optimizer = make_optimizer(self.stage.optimizer, self._groups())
        schedule = make_schedule(self.stage.schedule, optimizer, self.stage.epochs, self.steps_per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
