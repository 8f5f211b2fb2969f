"""Names of devices, checked before anything is moved to one."""

from __future__ import annotations

import torch


def usable_device(device: str | torch.device | None = None) -> torch.device:
    """The device of this name, which this machine has.

    Args:
        device: ``'cuda'``, ``'cuda:1'``, ``'cpu'``, ...; None for a GPU if there is one.

    Raises:
        ValueError: PyTorch knows no such device, or has none here.
    """
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"there is no device {device!r}; name one as 'cpu', 'cuda' or 'cuda:0'"
        ) from error
    try:
        torch.empty(
            1, device=chosen
        )  # what is there tells PyTorch alone, for each kind differently
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        count = torch.cuda.device_count()
        raise ValueError(
            f"device {str(chosen)!r} cannot be used here (PyTorch sees {count} GPUs); use 'cpu'"
            + (f", or 'cuda:0' to 'cuda:{count - 1}'" if count else "")
        ) from error
    return chosen
