"""Where CLIP weights come from, and loading them into towers they fit.

Every layout is turned into open_clip's (:mod:`mmclipdis.clip.weights.layouts`). Files are read
as data, without running code from them: safetensors, ``weights_only=True``, TorchScript archives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import open_clip
import open_clip.pretrained
from torch import Tensor, nn

from mmclipdis.clip.towers.readout import AnyReadout
from mmclipdis.clip.weights.activation_mark import check_activation, find_quick_gelu
from mmclipdis.clip.weights.dino_layout import fit_bias
from mmclipdis.clip.weights.fetching import fetch_tag
from mmclipdis.clip.weights.files import read_file
from mmclipdis.clip.weights.layouts import SCALARS, read_layout
from mmclipdis.clip.weights.parts import (
    ClipCheckpoint,
    joined,
    missing_text,
    without_other_image,
)
from mmclipdis.clip.weights.readout_mark import check_readout, find_readout
from mmclipdis.clip.weights.tags import PACKAGED, unknown_arch, unknown_source
from mmclipdis.clip.weights.tower_size import TowerSize, kind_of_arch, remedy, tower_size
from mmclipdis.clip.weights.trainable import match_qkv_layout
from mmclipdis.utils.finite import check_weights

#: (kind of the file, of the arch) -> what to do where the one is a part of the other.
_PARTS = {
    (dino, "dino.txt"): "give the file of its head, too: checkpoint=[BACKBONE, HEAD]"
    for dino in ("DINOv2", "DINOv3")
}
Arch = str | Mapping[str, Any]
#: A tag, a file, or the files that hold the parts of one model.
Source = str | Path | Sequence[str | Path]


def model_config(arch: Arch) -> dict[str, Any]:
    """The open_clip model config of ``arch`` (a name, or already a config).

    Raises:
        ValueError: for an unknown name (with the closest ones) or an incomplete config.
    """
    if isinstance(arch, Mapping):
        config = dict(arch)
        missing = [k for k in ("embed_dim", "vision_cfg", "text_cfg") if k not in config]
        if missing:
            raise ValueError(f"arch dict lacks {missing}; it has {sorted(config)}")
        return config
    found = open_clip.get_model_config(arch)
    if found is None:
        raise ValueError(unknown_arch(arch))
    return dict(found)


def is_resnet(arch: Arch) -> bool:
    """Whether ``arch`` has CLIP's ResNet: a number of blocks for each of its stages."""
    return isinstance(model_config(arch)["vision_cfg"].get("layers"), (list, tuple))


def has_quick_gelu(arch: Arch) -> bool:
    """Whether the towers of ``arch`` have QuickGELU in place of GELU."""
    return bool(model_config(arch).get("quick_gelu", False))


def read_clip_checkpoint(arch: Arch, source: Source) -> ClipCheckpoint:
    """Read CLIP weights for ``arch``, from a tag (downloaded once), a local file or several.

    Args:
        arch: open_clip config name or dict.
        source: open_clip tag (``'openai'``, ``'merged2b_s8b_b131k'``), or the path of a state dict
            (``.pt``, ``.pth``, ``.bin``), an OpenAI TorchScript archive, a ``.safetensors``, an
            ``.npz``, a file of any layout of :mod:`mmclipdis.clip.weights.known_layouts`, or a
            checkpoint of a run of this package. Some models come in parts (dino.txt: backbone, head
            and text; TIPS: image and text): a list of their files.

    Raises:
        FileNotFoundError: if there is neither such a tag nor such a file, or the tag's cannot be
            downloaded.
        ValueError: for a file that is no CLIP checkpoint, one of another kind of image tower than
            ``arch``, weights that are not finite, a GELU/QuickGELU mismatch, or two files that hold
            the same weight.
    """
    if isinstance(source, (str, Path)):
        return _read_one(arch, str(source), whole=True)
    if not source:
        raise ValueError("the list of weights is empty: name a file or a tag")
    found = reduce(joined, (_read_one(arch, str(one), whole=False) for one in source))
    _check_kind(arch, tower_size(found.state_dict), found.source)
    return found


def _read_one(arch: Arch, source: str, *, whole: bool) -> ClipCheckpoint:
    """A file of weights: a ``whole`` image tower, if any, or maybe its head or trunk alone."""
    path, quick_gelu = _locate(arch, source)
    raw, metadata = _read_entries(path)
    found = without_other_image(model_config(arch), read_layout(raw, source))
    if whole:
        _check_kind(arch, tower_size(found.state), source)
    check_weights(found.state, source)
    entries = {**raw, **found.entries}
    if quick_gelu is None:
        quick_gelu = find_quick_gelu(entries, metadata, source)
    check_activation(quick_gelu, has_quick_gelu(arch), arch, repr(source))
    readout = find_readout(entries, metadata, found.image_prefix, source)
    return ClipCheckpoint(found.state, quick_gelu, source, readout, found.report, found.unread)


def fetch_weights(arch: Arch, source: str | Path) -> Path:
    """The file of weights: the one that is given, or that of a tag, downloaded if need be.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_clip_checkpoint`.
    """
    return _locate(arch, str(source))[0]


def load_image_tower(
    tower: nn.Module, arch: Arch, source: Source, readout: AnyReadout | None = None
) -> None:
    """Load the ``visual.*`` weights of ``source`` into ``tower`` (its ``visual``), strictly.

    Args:
        tower: Image tower of ``arch``.
        arch: open_clip config name or dict.
        source: As in :func:`read_clip_checkpoint`.
        readout: How the tower will be read out, compared with what the file says that its weights
            were trained for; None compares nothing.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_clip_checkpoint`; also if the tower has
            another size, a weight is missing, left over or of another shape, or the file is of
            another readout.
    """
    checkpoint = read_clip_checkpoint(arch, source)
    check_readout(checkpoint.readout, readout, repr(checkpoint.source))
    part = {k: v for k, v in checkpoint.state_dict.items() if k.startswith("visual.")}
    if all(key.startswith("visual.head.") for key in part):
        what = "the head of an image tower without its trunk" if part else "no image tower"
        raise ValueError(
            f"{checkpoint.source!r} holds {what}; give the file of the image tower, too: "
            "checkpoint=[FILE, FILE]"
        )
    check_size(part, tower, arch, checkpoint.source)
    part = fit_bias(part, tower.state_dict(), checkpoint.source)
    load_strictly(tower, part, f"image tower {_name(arch)}", checkpoint.source)


def check_size(state: Mapping[str, Tensor], tower: nn.Module, arch: Arch, source: str) -> None:
    """Refuse the weights of an image tower of another size than ``tower``.

    Raises:
        ValueError: naming both sizes and the arch to choose.
    """
    size, own = tower_size(state), tower_size(tower.state_dict())
    if size is not None and own is not None and size != own:
        raise ValueError(
            f"{source!r} does not fit the image tower {_name(arch)}: it holds {size}, but the "
            f"tower is {own}; {remedy(size)}"
        )


def load_text_transformer(
    text: nn.Module, arch: Arch, source: Source
) -> tuple[float, float | None] | None:
    """Load the text weights of ``source`` into open_clip's ``TextTransformer``, strictly.

    Returns:
        The scale and bias that it holds, as :func:`scale_and_bias`.

    Raises:
        As :func:`load_image_tower`.
    """
    checkpoint = read_clip_checkpoint(arch, source)
    part = {
        k: v
        for k, v in checkpoint.state_dict.items()
        if not k.startswith("visual.") and k not in SCALARS
    }
    if not part:
        what = f"{checkpoint.unread}, which is not read" if checkpoint.unread else "no text tower"
        raise ValueError(
            f"{checkpoint.source!r} holds {what}; give the file of the text tower, or embeddings "
            "of the classes that were made with it (embeddings=FILE)"
        )
    size = tower_size(checkpoint.state_dict)
    advice = missing_text(model_config(arch), part) or (None if size is None else remedy(size))
    load_strictly(text, part, f"text tower {_name(arch)}", checkpoint.source, advice)
    return scale_and_bias(checkpoint.state_dict)


def scale_and_bias(state: Mapping[str, Tensor]) -> tuple[float, float | None] | None:
    """What cosines are multiplied with, ``exp(logit_scale)``, and ``logit_bias``, if it is there.

    Args:
        state: open_clip names to tensors, of shape () or (1,). None without a scale.
    """
    if "logit_scale" not in state:
        return None
    bias = state.get("logit_bias")
    return math.exp(state["logit_scale"].item()), None if bias is None else float(bias.item())


def load_strictly(
    module: nn.Module, state: dict[str, Tensor], what: str, source: str, remedy: str | None = None
) -> None:
    """``load_state_dict`` that casts to fp32, accepts fused or split q/k/v, and explains itself.

    Args:
        module: Gets the weights.
        state: All weights of ``module``.
        what: Name of ``module`` for messages.
        source: Where the weights are from, for messages.
        remedy: What to do if they do not fit; None names no arch.

    Raises:
        ValueError: naming the first missing, unexpected and misshapen entries.
    """
    state = match_qkv_layout(state, module)
    own = module.state_dict()
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    shapes = [
        f"{k} is {tuple(state[k].shape)}, expected {tuple(own[k].shape)}"
        for k in own
        if k in state and own[k].shape != state[k].shape
    ]
    problems = []
    for label, found in (("missing", missing), ("unexpected", unexpected), ("shape", shapes)):
        if found:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            problems.append(f"{label}: {', '.join(found[:3])}{more}")
    if problems:
        raise ValueError(
            f"{source!r} does not fit the {what} ({'; '.join(problems)}); "
            + (remedy or "choose the arch that the checkpoint was trained with")
        )
    module.load_state_dict(state)


def _locate(arch: Arch, source: str) -> tuple[Path, bool | None]:
    """File of ``source`` and, for a tag, whether it was trained with QuickGELU."""
    if isinstance(arch, str) and (arch, source) in PACKAGED:
        return PACKAGED[arch, source], None
    path = Path(source).expanduser()
    if path.is_file():
        return path, None
    if isinstance(arch, str) and open_clip.pretrained.is_pretrained_cfg(arch, source):
        config = open_clip.pretrained.get_pretrained_cfg(arch, source)
        quick_gelu = bool(config.get("quick_gelu", False))
        # before the download
        check_activation(quick_gelu, has_quick_gelu(arch), arch, repr(source))
        return fetch_tag(arch, source, config), quick_gelu
    name = arch if isinstance(arch, str) else None
    raise FileNotFoundError(unknown_source(name, source, _name(arch)))


def _read_entries(path: Path) -> tuple[Mapping[str, Any], dict[str, str]]:
    """All entries of a checkpoint file, and its metadata."""
    raw, metadata = read_file(path)
    if not isinstance(raw, Mapping):
        raise ValueError(f"{str(path)!r} holds a {type(raw).__name__}, expected a state dict")
    return raw, metadata


def _check_kind(arch: Arch, size: TowerSize | None, source: str) -> None:
    """Refuse a file of another kind of image tower than that of ``arch``.

    Their text towers have the same names and shapes (those of EVA02-B-16, RN101 and ViT-B-16), so
    one would load where it is of another space, or into blocks with another activation.
    """
    wanted = kind_of_arch(model_config(arch))
    if size is None or size.kind == wanted:
        return
    advice = _PARTS.get((size.kind, wanted)) or remedy(size)
    raise ValueError(
        f"{source!r} holds {size}, but {_name(arch)} has an image tower of the {wanted} kind; "
        f"{advice}"
    )


def _name(arch: Arch) -> str:
    return repr(arch) if isinstance(arch, str) else "the given arch"
