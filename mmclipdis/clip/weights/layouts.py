"""The layouts of CLIP checkpoints, and the one that everything is turned into.

That one is open_clip's ``CLIP.state_dict()``: ``visual.*`` for the image tower (``visual.trunk.*``
for those of timm) and bare names (``token_embedding.weight``, ``transformer.*``, ...) for the text
tower, with OpenAI's q, k, v fused. Those of other libraries are in
:mod:`mmclipdis.clip.weights.known_layouts`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmclipdis.clip.weights import activation_mark, readout_mark
from mmclipdis.clip.weights.eva_layout import computed_reason, official_to_open_clip
from mmclipdis.clip.weights.known_layouts import (
    KnownLayout,
    find_layout,
    refuse_unread,
    unread_text,
)
from mmclipdis.clip.weights.renaming import LayoutReport
from mmclipdis.clip.weights.trainable import fuse_qkv, fused_name

#: Entries that say what the weights were trained for: name -> what became of it.
_MARKS = {
    readout_mark.MARK: "mark of the readout, read apart",
    activation_mark.MARK: "mark of the activation, read apart",
}

#: A weight that every image tower of a kind has, without what stands before it.
_OPENAI, _TIMM = "visual.conv1.weight", "visual.trunk.patch_embed.proj.weight"
_EVA = "visual.patch_embed.proj.weight"
#: The same of towers with a stem of several convolutions; messages name those above.
_STEMS = (
    "visual.trunk.patch_embed.backbone.0.conv.weight",  # MobileCLIP-B
    "visual.trunk.patch_embed.backbone.stem.conv1.weight",  # ViTamin
    "visual.trunk.stem.0.conv_kxk.0.conv.weight",  # FastViT
    "visual.trunk.stem.0.weight",  # ConvNeXt
)
_TEXT = ("token_embedding.weight", "token_embedding.ids")
_TEXT_ROOTS = (
    *("token_embedding", "positional_embedding", "transformer", "ln_final"),
    *("text_projection", "linear_layer", "hidden_layers"),  # the last two: Talk2DINO's map
)
#: Names of the temperature and the bias of the logits.
SCALARS = ("logit_scale", "logit_bias")


class ClipEntries(NamedTuple):
    """A checkpoint in open_clip's layout.

    Attributes:
        state: Names to tensors.
        report: What became of every key of the file.
        image_prefix: What stood before ``visual.`` in the file; None without an image tower.
        entries: All entries of the file's state dict.
        unread: What text tower the file holds that is not read, in words; empty without one.
    """

    state: dict[str, Tensor]
    report: LayoutReport
    image_prefix: str | None
    entries: Mapping[str, Any]
    unread: str = ""


def read_layout(raw: Mapping[str, Any], source: str) -> ClipEntries:
    """Rename the entries of any known CLIP layout to open_clip's.

    Handles wrappers (``model``, ``module``, ``state_dict``, in this order), prefixes of DDP and of
    a whole model (``module.``, ``backbone.tower.visual...``), CustomTextCLIP's ``text.``,
    EVA02-CLIP's official names, split q/k/v and compact token embeddings (``token_embedding.ids``
    and ``.rows``; other rows are as at initialisation), and the layouts of
    :mod:`mmclipdis.clip.weights.known_layouts`.

    Args:
        raw: Content of the file.
        source: The file, for messages.

    Raises:
        ValueError: if it is no CLIP checkpoint, one of a layout that is known and not read, an EVA
            tower of a design that is not supported, or holds two towers of a kind.
    """
    raw = _unwrapped(raw)
    tensors = {key: value for key, value in raw.items() if isinstance(value, Tensor)}
    known = find_layout(tensors)
    if known is not None:
        return _converted(raw, tensors, known, source)
    image = _prefix_of(tensors, (_OPENAI, _TIMM, _EVA, *_STEMS), source)
    text = _prefix_of(tensors, _TEXT, source)
    if image is None:
        refuse_unread(tensors, source)
    if image is None and text is None:
        raise ValueError(
            f"{source!r} holds no CLIP checkpoint: expected {_OPENAI!r}, {_TIMM!r}, {_EVA!r} or "
            f"{_TEXT[0]!r}, found {sorted(tensors)[:3] or 'no tensors'}"
        )
    names = _image_names(tensors, image, source) | _text_names(tensors, text)
    names |= _scalar_names(tensors, image, text)
    report = LayoutReport()
    for key in raw:
        if key in names:
            report.note(key, _whole_name(names[key]))
        else:
            report.dropped[key] = _why_dropped(key)
    state = {new: tensors[old] for old, new in names.items()}
    state = fuse_qkv(_expand_token_embedding(_count_batches(state)))
    unread = unread_text(tensors) if text is None else ""
    return ClipEntries(state, report, image, raw, unread=unread)


def _converted(
    raw: Mapping[str, Any], tensors: dict[str, Tensor], known: KnownLayout, source: str
) -> ClipEntries:
    """A checkpoint of another library in open_clip's layout."""
    try:
        state, report = known.convert(tensors)
    except ValueError as error:
        raise ValueError(f"{source!r} holds {error}") from None
    report.dropped |= {key: _why_dropped(key) for key in raw if key not in tensors}
    image = "" if any(key.startswith("visual.") for key in state) else None
    return ClipEntries(state, report, image, raw)


def to_open_clip_layout(raw: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """The state dict of :func:`read_layout` alone.

    Raises:
        ValueError: as :func:`read_layout`.
    """
    return read_layout(raw, source).state


def _unwrapped(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state dict in a file: in the order of the official code (declip spec 2.5), else bare."""
    for wrapper in ("model", "module", "state_dict"):
        inner = raw.get(wrapper)
        # a ``model`` without tensors is a config
        if isinstance(inner, Mapping) and any(isinstance(v, Tensor) for v in inner.values()):
            return inner
    return raw


def _why_dropped(key: str) -> str:
    mark = _MARKS.get(key.rpartition(".")[2])
    return mark or computed_reason(key) or "no weight of a CLIP tower"


def _prefix_of(tensors: dict[str, Tensor], names: tuple[str, ...], source: str) -> str | None:
    found = [key[: -len(n)] for n in names for key in tensors if ("." + key).endswith("." + n)]
    if len(set(found)) > 1:
        raise ValueError(f"{source!r} holds several CLIP towers ({sorted(set(found))}); export one")
    return found[0] if found else None


def _image_names(tensors: dict[str, Tensor], prefix: str | None, source: str) -> dict[str, str]:
    """Key in the file -> open_clip's name, for the weights of the image tower."""
    if prefix is None:
        return {}
    bare = {
        key.removeprefix(prefix): value
        for key, value in tensors.items()
        if key.startswith(prefix + "visual.") and computed_reason(key) is None
    }
    names = {key: key for key in bare}
    if _EVA in bare:
        try:
            names = official_to_open_clip(bare)[1].names
        except ValueError as error:
            raise ValueError(f"{source!r} holds {error}") from None
    return {prefix + old: new for old, new in names.items()}


def _text_names(tensors: dict[str, Tensor], prefix: str | None) -> dict[str, str]:
    """Key in the file -> open_clip's name, for the weights of the text tower."""
    if prefix is None:
        return {}
    bare = {key: key.removeprefix(prefix) for key in tensors if key.startswith(prefix)}
    return {key: name for key, name in bare.items() if name.split(".")[0] in _TEXT_ROOTS}


def _scalar_names(
    tensors: dict[str, Tensor], image: str | None, text: str | None
) -> dict[str, str]:
    """Temperature and bias: beside the image tower, or inside the text tower in old files."""
    names: dict[str, str] = {}
    for scalar in SCALARS:
        places = [] if image is None else [image]
        places += [] if text is None else [text, text.removesuffix("text.")]
        found = next((p + scalar for p in places if p + scalar in tensors), None)
        if found is not None:
            names[found] = scalar
    return names


def _expand_token_embedding(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fill in the rows of words never seen in training: drawn as open_clip initialises them.

    The seed is fixed, so that two loads agree, and the rows differ, so that unknown class names
    stay distinct from each other.
    """
    if "token_embedding.ids" not in state:
        return state
    ids, rows = state.pop("token_embedding.ids"), state.pop("token_embedding.rows")
    size = int(state.pop("token_embedding.size", torch.tensor(49408)))
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(size, rows.shape[1], generator=generator).mul_(0.02).to(rows.dtype)
    table[ids.long()] = rows
    return {**state, "token_embedding.weight": table}


def _count_batches(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fill in the batch counter that BatchNorms of old files lack, as PyTorch does."""
    ending, counter = ".running_mean", ".num_batches_tracked"
    norms = [key.removesuffix(ending) for key in state if key.endswith(ending)]
    return {norm + counter: torch.tensor(0) for norm in norms} | state


def _whole_name(name: str) -> str:
    """The entry that ``name`` ends in once it is put together, for the report."""
    return re.sub(r"^token_embedding\.(ids|rows|size)$", "token_embedding.weight", fused_name(name))
