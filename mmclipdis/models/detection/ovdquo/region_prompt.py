"""CORA's region prompt: what a CLIP ResNet's features of a region lack of those of an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmclipdis.clip.weights.files import read_file
from mmclipdis.engine.random_weights import before_use, watch_weights
from mmclipdis.utils.finite import check_weights


class RegionPrompt(BaseModule):
    """A frozen tensor ``(C, S, S)`` that is added to the pooled features of every region.

    Checkpoints of the model hold it (``weight``). Where none has brought it, the file is read at
    the first use.

    Args:
        path: File of :func:`read_region_prompt`.
        channels: ``C`` of the last stage.
        size: ``S``, bins a side of the pooled regions.

    Source: CORA (CVPR 2023), whose prompts OV-DQUO's ResNets take over.
    """

    _is_init: bool  # mmengine's mark that init_weights() has run

    def __init__(self, path: str | Path, channels: int, size: int) -> None:
        super().__init__(init_cfg=dict(type="Pretrained", checkpoint=str(path)))
        self.weight = nn.Parameter(torch.randn(channels, size, size), requires_grad=False)
        watch_weights(self)

    def init_weights(self) -> None:
        """Read the file.

        Raises:
            FileNotFoundError, ValueError: as :func:`read_region_prompt`.
        """
        if not self._is_init:
            path = self.init_cfg["checkpoint"]
            # not by copy_(): a load tells random_weights that values have come
            self.load_state_dict({"weight": read_region_prompt(path, tuple(self.weight.shape))})
            self._is_init = True

    def forward(self, pooled: Tensor) -> Tensor:
        """Prompted features of regions ``(n, C, S, S)``."""
        before_use(self)
        return pooled + self.weight.to(pooled.dtype)


def read_region_prompt(path: str | Path, shape: tuple[int, ...]) -> Tensor:
    """The region prompt ``(C, S, S)`` of a file, fp32.

    Args:
        path: ``.pt``, ``.pth`` or ``.safetensors`` of one tensor, or of a state dict (perhaps under
            ``state_dict`` or ``model``) in which one entry has ``prompt`` in its name.
        shape: What it must have; a leading axis of one is dropped.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unreadable file, none or several prompts in it, another shape, or values
            that are not finite.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"no region prompt at {str(path)!r}: give region_prompt the file of CORA's prompt, or "
            "None to do without"
        )
    name, prompt = _entry(read_file(path)[0], str(path))
    found = tuple(prompt.shape[1:] if prompt.ndim == 4 and len(prompt) == 1 else prompt.shape)
    if found != shape:
        raise ValueError(
            f"the region prompt {name} of {str(path)!r} is {tuple(prompt.shape)}, the backbone "
            f"needs (C, S, S) = {shape}: it is of another CLIP ResNet; take that of the encoder's "
            "arch"
        )
    check_weights({name: prompt}, str(path))
    return prompt.detach().reshape(shape).float()


def _entry(content: Any, source: str) -> tuple[str, Tensor]:
    if isinstance(content, Tensor):
        return "tensor", content
    state = content if isinstance(content, Mapping) else {}
    for key in ("state_dict", "model"):
        state = state[key] if isinstance(state.get(key), Mapping) else state
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
    prompts = {k: v for k, v in tensors.items() if "prompt" in k}
    found = tensors if len(tensors) == 1 else prompts
    if len(found) != 1:
        named = f"several ({', '.join(sorted(found)[:3])})" if found else "none"
        raise ValueError(
            f"{source!r} must hold one region prompt, found {named}: save the tensor (C, S, S) "
            "alone, with torch.save"
        )
    return next(iter(found.items()))
