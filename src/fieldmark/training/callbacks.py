"""What happens between steps: epochs are closed, the best model is kept, nothing is lost when it is stopped."""

from __future__ import annotations

import csv
import io
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.files import write_beside
from fieldmark.training.checkpoints import restore, save_state, training_state
from fieldmark.training.module import TrainingModule

Row = dict[str, float | int | str]
Validate = Callable[[TrainingModule], dict[str, float]]

SAVE_EVERY = 300.0  # seconds between checkpoints inside an epoch
LOOK_EVERY = 50  # steps between looks at the loss on an accelerator, each of which waits for it


class TrainingInterrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C or a termination signal; its text says how to go on."""


class StopAfterStep(Exception):  # noqa: N818 (a request, not an error; never leaves this package)
    """Leaves Lightning's loop after the state was saved."""


class Epochs(lightning.Callback):
    """Closes epochs: measures, validates, writes ``metrics.csv``, keeps ``best.ckpt`` and ``last.ckpt``.

    Args:
        folder: The stage's folder.
        stage: Its name.
        epochs: How many there are.
        validate: What is measured on the validation images, by column of ``metrics.csv``: ``val_accuracy``, which
            decides, ``val_ci95`` and what else there is; None: the last epoch is best.
        every: Epochs between two validations; the last epoch always is validated.
        state: What an interrupted run saved, or None.
        earlier: Rows of the stages before, for ``metrics.csv``.
        metrics: Path of ``metrics.csv``.
    """

    def __init__(
        self,
        folder: Path,
        stage: str,
        epochs: int,
        validate: Validate | None,
        every: int,
        state: dict[str, Any] | None,
        earlier: Sequence[Row],
        metrics: Path,
    ) -> None:
        self.folder, self.stage, self.epochs = folder, stage, epochs
        self.validate, self.every = validate, every
        self.state, self.earlier, self.metrics = state, list(earlier), metrics
        progress = (state or {}).get("progress", {})
        self.rows: list[Row] = progress.get("rows", [])
        self.best: float | None = progress.get("best")
        self.best_epoch: int = progress.get("best_epoch", 0)
        self.step: int = progress.get("step", 0)
        self._spent: float = progress.get("spent", 0.0)

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.folder / "last.ckpt"

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put an interrupted run's state back."""
        assert isinstance(pl_module, TrainingModule)
        if self.state is not None:
            restore(trainer, pl_module, self.state)
            self.state = None
        pl_module.train()
        self._since = time.perf_counter()

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Note the learning rate of this step; after it, the optimiser already has the next one's."""
        self._rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Watch the loss; after an epoch's last step close it."""
        whole = step_ends(batch, pl_module)
        self.step = batch["step"] + whole
        loss = outputs["loss"] * pl_module.stage.accumulate
        alone = trainer.world_size == 1  # with several processes all of them must leave together: at an epoch's end
        if alone and (loss.device.type == "cpu" or self.step % LOOK_EVERY == 0) and not math.isfinite(loss.item()):
            raise self._diverged(pl_module)
        if not whole:
            return
        if self.step % LOOK_EVERY == 0:
            for logger in trainer.loggers:
                logger.log_metrics({"step_loss": loss.item()}, self.step)
        if self.step % pl_module.steps_per_epoch == 0:
            self._close_epoch(trainer, pl_module)

    def _close_epoch(self, trainer: lightning.Trainer, module: TrainingModule) -> None:
        epoch = self.step // module.steps_per_epoch
        row: Row = {"stage": self.stage, "epoch": epoch, "step": self.step}
        row["lr"] = self._rate
        names = sorted(module.sums)
        means = torch.stack([module.sums[name] for name in names]) / module.steps_per_epoch
        reduced = trainer.strategy.reduce(means, reduce_op="mean")
        for name, value in zip(names, torch.as_tensor(reduced).tolist(), strict=True):
            row[f"train_{name}"] = value
        if not math.isfinite(float(row["train_loss"])):
            raise self._diverged(module)
        module.sums = {}
        better = self.validate is None
        if self.validate is not None and (epoch % self.every == 0 or epoch == self.epochs):
            # One process measures: batch statistics differ slightly between processes, the others must not disagree.
            found = self.validate(module) if trainer.is_global_zero else None
            module.train()
            measured: dict[str, float] = trainer.strategy.broadcast(found)  # type: ignore[arg-type]
            row.update(measured)
            accuracy = measured["val_accuracy"]
            better = self.best is None or accuracy > self.best
            if better:
                self.best = accuracy
        if better:
            self.best_epoch = epoch
        row["seconds"] = round(self._seconds(), 3)
        self._spent, self._since = 0.0, time.perf_counter()
        self.rows.append(row)
        for logger in trainer.loggers:
            scalars = {name: value for name, value in row.items() if not isinstance(value, str)}
            logger.log_metrics(scalars, self.step)
        self.save(trainer, module)
        if trainer.is_global_zero:
            if better and self.validate is not None:
                copy_file(self.last, self.folder / "best.ckpt")
            write_rows(self.metrics, [*self.earlier, *self.rows])

    def save(self, trainer: lightning.Trainer, module: TrainingModule) -> None:
        """Write ``last.ckpt``: everything the next step depends on."""
        if not trainer.is_global_zero:
            return
        state = training_state(trainer, module)
        state["progress"] = {
            "step": self.step,
            "rows": self.rows,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "spent": self._seconds(),
        }
        save_state(self.last, state)

    def _seconds(self) -> float:
        return self._spent + time.perf_counter() - self._since

    def _diverged(self, module: TrainingModule) -> FieldmarkError:
        rate = module.stage.optimizer.lr
        return FieldmarkError(
            f"training diverged: the loss of stage {self.stage!r} is not finite at step {self.step}; lower its "
            f"learning rate (--stages.{self.stage}.optimizer.lr {rate / 3:.2g}) and use a new --name, or --restart"
        )


class Interruptions(lightning.Callback):
    """Ctrl-C, a termination signal and the clock: the state is saved between two steps, where it is whole.

    Only for one process; several could be at different steps, so they go on from the last epoch's end.
    """

    def __init__(self, epochs: Epochs, save_every: float = SAVE_EVERY) -> None:
        self.epochs, self.save_every = epochs, save_every
        self._before: dict[int, Any] = {}
        self._asked = False
        self._saved = time.monotonic()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen to signals."""
        self._saved = time.monotonic()
        if trainer.world_size > 1 or threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._heard)

    def _heard(self, number: int, frame: Any) -> None:
        if self._asked:  # asked twice: at once
            raise KeyboardInterrupt
        self._asked = True

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when asked to stop, or when it is time."""
        if trainer.world_size > 1:
            return
        if not step_ends(batch, pl_module) or (not self._asked and time.monotonic() - self._saved < self.save_every):
            return
        if math.isfinite(outputs["loss"].item()):
            self.epochs.save(trainer, pl_module)
        self._saved = time.monotonic()
        if self._asked:
            raise StopAfterStep

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class Bar(lightning.Callback):
    """A progress bar over the whole stage, on a terminal only."""

    def __init__(self, stage: str, batches: Any, epochs: Epochs) -> None:
        self.stage, self.batches, self.epochs = stage, batches, epochs
        self._bar: Any = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show it."""
        if not trainer.is_global_zero or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        text = TextColumn("{task.description}"), TextColumn("[dim]{task.fields[note]}")
        columns = (text[0], BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), text[1])
        self._bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=2)
        self._task = self._bar.add_task(self.stage, total=self.batches.steps, completed=self.batches.start, note="")
        self._bar.start()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move it."""
        if self._bar is None:
            return
        note = {}
        if self.epochs.rows:
            row = self.epochs.rows[-1]
            shown = ("epoch", "train_loss", "train_accuracy", "val_accuracy")
            text = ", ".join(f"{k} {row[k]:.4g}" for k in shown if k in row)
            note = {"note": text}
        self._bar.update(self._task, completed=batch["step"] + 1, **note)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Put it away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def step_ends(batch: Any, module: TrainingModule) -> bool:
    """Whether a micro-batch is the last one of its step: the weights have changed, and nothing is half done."""
    return batch.get("micro", 0) + 1 == module.stage.accumulate


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """All rows as CSV, with the union of their columns; beside and renamed."""
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "seconds"))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, "seconds"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_beside(path, lambda file: file.write(text.getvalue().encode()))


def copy_file(source: Path, target: Path) -> None:
    """A second name for a file that is only ever replaced, never changed; a copy where that is not possible."""
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:
        shutil.copyfile(source, part)
    os.replace(part, target)
