"""The CLIP that weights belong to, saved with them and checked when they are loaded.

What is learned on top of a frozen CLIP (DCLIP's projectors) fits every CLIP of the same width, and
is worth nothing on another one: RN101 and ViT-B are both 512 wide. A mark beside the weights (entry
``arch``: open_clip's config name, or a config as JSON) turns that into an error. Weights without a
mark are not checked.

An arch has many weights (OpenAI's, LAION's, a distilled student's, random ones), so a second mark
(entry ``clip``) is the fingerprint of the weights themselves.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from mmclipdis.clip.text.embedding_cache import weights_fingerprint
from mmclipdis.clip.weights.loading import Arch
from mmclipdis.clip.weights.marks import decode_text, encode_text, remember

#: Names of the marks in a state dict.
MARK, WEIGHTS_MARK = "arch", "clip"


def remember_arch(module: nn.Module) -> None:
    """Save ``module.arch`` with the weights of ``module``, and check it when they are loaded.

    A module whose ``arch`` is None saves no mark and loads every weight; one whose ``any_arch`` is
    true loads every weight. See :func:`~mmclipdis.clip.weights.marks.remember`.

    Args:
        module: Has the attributes ``arch`` and ``any_arch``.

    Raises:
        ValueError: not here but when loading, if the weights belong to another CLIP.
    """
    remember(module, MARK, _encode, _check)


def remember_clip(module: nn.Module) -> None:
    """Save ``module.clip``, a fingerprint or None, with the weights; loading them sets it.

    See :func:`clip_fingerprint` and :func:`check_clip`.
    """
    remember(module, WEIGHTS_MARK, _encode_clip, _set_clip)


def clip_fingerprint(encoder: nn.Module) -> str | None:
    """Which weights the image tower of an encoder holds, whatever its readout; seconds if large.

    None if they tell nothing: they are trained, or were cast to another type than float32.
    """
    tower = getattr(encoder, "tower", None)
    source = tower if isinstance(tower, nn.Module) else encoder
    weights = list(source.parameters())
    if any(p.requires_grad or p.dtype != torch.float32 for p in weights):
        return None
    return weights_fingerprint(source, "")


def check_clip(trained: str | None, used: str | None, source: str) -> None:
    """Refuse weights that belong to a CLIP with other weights; None on either side says nothing.

    Raises:
        ValueError: naming the remedies.
    """
    if trained is not None and used is not None and trained != used:
        raise ValueError(
            f"{source} was trained on a CLIP with other weights than those in use ({trained[:8]}, "
            f"not {used[:8]}): its results would be wrong; name the weights of the training in the "
            "encoder's init_cfg=dict(type='Pretrained', checkpoint=...), or set any_arch=True to "
            "use others anyway"
        )


def decode_arch(mark: Tensor, source: str) -> Arch:
    """The arch of a mark: open_clip's config name, or a config.

    Args:
        mark: Entry of a state dict.
        source: Where it was found, for the message.

    Raises:
        ValueError: if it is none.
    """
    try:
        text = decode_text(mark)
        arch: Arch = json.loads(text) if text.startswith("{") else text
        return arch
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{source} holds an entry 'arch' that names no CLIP ({error})") from error


def check_arch(trained: Arch | None, used: Arch | None, source: str) -> None:
    """Refuse weights that belong to another CLIP; None on either side says nothing.

    Raises:
        ValueError: naming both and the remedies.
    """
    if trained is None or used is None or _as_text(trained) == _as_text(used):
        return
    raise ValueError(
        f"{source} was trained on {_title(trained)}, but the model uses {_title(used)}: its "
        "results would be wrong; use the same arch, or any_arch=True to load the weights anyway"
    )


def _encode(module: Any) -> Tensor | None:
    return None if module.arch is None else encode_text(_as_text(module.arch))


def _check(module: Any, mark: Tensor, source: str) -> None:
    if not module.any_arch:
        check_arch(decode_arch(mark, source), module.arch, source)


def _encode_clip(module: Any) -> Tensor | None:
    return None if module.clip is None else encode_text(module.clip)


def _set_clip(module: Any, mark: Tensor, source: str) -> None:
    try:
        module.clip = decode_text(mark)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{source} holds an entry 'clip' that is no fingerprint ({error})"
        ) from error


def _as_text(arch: Arch) -> str:
    return arch if isinstance(arch, str) else json.dumps(arch, sort_keys=True)


def _title(arch: Arch) -> str:
    return repr(arch) if isinstance(arch, str) else f"the CLIP of the arch {_as_text(arch)}"
