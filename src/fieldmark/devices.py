"""Which device to compute on, by name."""

from __future__ import annotations

import torch

from fieldmark.errors import FieldmarkError


def choose_device(text: str) -> torch.device:
    """The device named by the user; ``auto`` takes an accelerator where there is one.

    Raises:
        FieldmarkError: If there is no such device here.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if text == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(text)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise FieldmarkError(f"device {text!r} is not available here; expected auto, cpu, cuda or cuda:0") from None
    return device
