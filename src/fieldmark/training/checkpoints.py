"""State of a stage on disk: everything that the next step depends on, written beside and renamed.

Lightning's own loop counters are not part of it. A stage is one run of batches with numbered steps, every random
choice is a function of that number, and so going on means beginning at a later number with the same state.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.files import write_beside
from fieldmark.training.module import TrainingModule

FORMAT = "fieldmark-training-1"


def training_state(trainer: lightning.Trainer, module: TrainingModule) -> dict[str, Any]:
    """Weights, optimiser, schedule and loss scaler, as they are between two steps."""
    return {
        "format": FORMAT,
        "model": module.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict(),
        "schedule": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
        "precision": trainer.precision_plugin.state_dict(),
        "sums": dict(module.sums),
    }


def restore(trainer: lightning.Trainer, module: TrainingModule, state: dict[str, Any]) -> None:
    """Put a state from :func:`training_state` back; the optimiser must exist already."""
    module.load_state_dict(state["model"])
    trainer.optimizers[0].load_state_dict(state["optimizer"])
    trainer.lr_scheduler_configs[0].scheduler.load_state_dict(state["schedule"])
    if state["precision"]:
        trainer.precision_plugin.load_state_dict(state["precision"])
    module.sums = {name: value.to(module.device) for name, value in state["sums"].items()}


def save_state(path: Path, state: dict[str, Any]) -> Path:
    """Write a state; a kill in the middle leaves the old file."""
    return write_beside(path, lambda file: torch.save(state, file))


def load_state(path: Path) -> dict[str, Any]:
    """Read a state; nothing in the file can run.

    Raises:
        FieldmarkError: If the file is damaged or not one of ours.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise FieldmarkError(f"{path} is not a readable checkpoint ({reason}); delete it to repeat its stage") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise FieldmarkError(f"{path} is not a fieldmark training checkpoint; delete it to repeat its stage")
    return state
