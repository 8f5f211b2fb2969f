"""A model becomes a program of ``torch.export``; batch and image size stay open where they can."""

from __future__ import annotations

from typing import Any

import torch

from mmclipdis.export.kinds import Exportable, Size

#: Patches along the sides of the images that a program of open size is captured with.
_PATCHES = (5, 6)


def capture(found: Exportable, size: Size | None) -> Any:
    """The program as ``torch.export`` sees it.

    It runs once before: what is kept between calls (positions, the order of windows) must hold
    real tensors and not those of the capture.

    Raises:
        ValueError: the model does not let itself be captured; says why, and the remedy.
    """
    height, width = size or example_size(found.step)
    image = noise(2 if found.batch else 1, (height, width), found)
    program = found.program.eval()
    program(image)
    try:
        return torch.export.export(
            program,
            (image,),
            dynamic_shapes=_open(found, size),
            strict=False,
        )
    except Exception as error:  # of many kinds, ours among them
        reason = " ".join(str(error).split())[:200]
        remedy = "fix the size: --image-size" if size is None else "use mmclipdis itself"
        raise ValueError(
            f"{type(found.program).__name__} cannot be captured by torch.export "
            f"({'any' if size is None else 'fixed'} size): {type(error).__name__}: {reason}; "
            f"{remedy}"
        ) from error


def example_size(step: Size, patches: tuple[int, int] = _PATCHES) -> Size:
    """A size (height, width) in pixels of so many steps, of 16 pixels where any size goes."""
    height, width = (16 if one == 1 else one for one in step)
    return height * patches[0], width * patches[1]


def noise(batch: int, size: Size, found: Exportable, seed: int = 0) -> torch.Tensor:
    """Images (B, 3, H, W) of normal noise, where the program is; no global state is touched."""
    generator = torch.Generator().manual_seed(seed)
    tensor = next(iter(found.program.state_dict().values()))
    return torch.randn(batch, 3, *size, generator=generator).to(tensor.device)


def _open(found: Exportable, size: Size | None) -> Any:
    axes: dict[int, Any] = {}
    if found.batch:
        axes[0] = torch.export.Dim("batch", min=1)
    if size is None:
        for axis, (name, step) in enumerate(zip(("height", "width"), found.step), 2):
            if step == 1:
                axes[axis] = torch.export.Dim(name, min=2)
            else:
                axes[axis] = step * torch.export.Dim(f"{name}_in_steps", min=2)
    return {"image": axes or None}
