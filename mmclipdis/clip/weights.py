"""Where CLIP weights come from, which layouts they have, and what each becomes.

Everything is turned into one layout, open_clip's ``CLIP.state_dict()``: ``visual.*`` for the image
tower and bare names (``token_embedding.weight``, ``transformer.*``, ...) for the text tower, with
q, k, v fused. Files are read without running code from them: safetensors, ``weights_only=True``,
or the tensors of a TorchScript archive.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import open_clip.pretrained
import torch
from torch import Tensor, nn

from mmclipdis.clip.files import read_file
from mmclipdis.clip.trainable import match_qkv_layout

Arch = str | Mapping[str, Any]

MODEL_CONFIGS = Path(__file__).parent / "model_configs"
open_clip.add_model_config(MODEL_CONFIGS)

#: Weights inside the package: (arch, tag) -> file.
PACKAGED = {("shapes-tiny", "shapes"): MODEL_CONFIGS / "shapes-tiny.safetensors"}

#: Entries of OpenAI's archives that are not weights; only OpenAI's files have them.
_OPENAI_MARKS = ("input_resolution", "context_length", "vocab_size")


@dataclass(frozen=True)
class ClipCheckpoint:
    """Weights in open_clip's layout, and what the file said of itself.

    Attributes:
        state_dict: open_clip ``CLIP`` names to tensors; image, text, or both towers.
        quick_gelu: Whether they were trained with QuickGELU; None if nothing says so.
        source: The tag or file they came from, for messages.
    """

    state_dict: dict[str, Tensor]
    quick_gelu: bool | None
    source: str


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
        names = open_clip.list_models()
        close = difflib.get_close_matches(arch, names, n=5, cutoff=0.4)
        raise ValueError(f"unknown CLIP arch {arch!r}; close names: {', '.join(close) or names}")
    return dict(found)


def read_clip_checkpoint(arch: Arch, source: str | Path) -> ClipCheckpoint:
    """Read CLIP weights for ``arch``, from a tag (downloaded once by open_clip) or a local file.

    Args:
        arch: open_clip config name or dict.
        source: open_clip tag (``'openai'``, ``'laion2b_s34b_b88k'``), or the path of a state dict
            (``.pt``, ``.pth``, ``.bin``), an OpenAI TorchScript archive, a ``.safetensors``, or a
            checkpoint of a run of this package.

    Raises:
        FileNotFoundError: if there is neither such a tag nor such a file.
        ValueError: for a file that is no CLIP checkpoint, or a GELU/QuickGELU mismatch.
    """
    path, quick_gelu = _locate(arch, str(source))
    raw, marked = _read_entries(path)
    state_dict = to_open_clip_layout(raw, str(source))
    quick_gelu = marked if quick_gelu is None else quick_gelu
    _check_activation(arch, quick_gelu, str(source))
    return ClipCheckpoint(state_dict, quick_gelu, str(source))


def load_image_tower(tower: nn.Module, arch: Arch, source: str | Path) -> None:
    """Load the ``visual.*`` weights of ``source`` into ``tower`` (an ``OpenCLIPViT``), strictly.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_clip_checkpoint`; also if a weight is
            missing, left over or of another shape.
    """
    checkpoint = read_clip_checkpoint(arch, source)
    part = {k: v for k, v in checkpoint.state_dict.items() if k.startswith("visual.")}
    load_strictly(tower, part, f"image tower {_name(arch)}", checkpoint.source)


def load_text_transformer(text: nn.Module, arch: Arch, source: str | Path) -> None:
    """Load the text weights of ``source`` into open_clip's ``TextTransformer``, strictly.

    Raises:
        As :func:`load_image_tower`.
    """
    checkpoint = read_clip_checkpoint(arch, source)
    part = {
        k: v
        for k, v in checkpoint.state_dict.items()
        if not k.startswith("visual.") and k not in ("logit_scale", "logit_bias")
    }
    load_strictly(text, part, f"text tower {_name(arch)}", checkpoint.source)


def load_strictly(module: nn.Module, state: dict[str, Tensor], what: str, source: str) -> None:
    """``load_state_dict`` that casts to fp32, accepts fused or split q/k/v, and explains itself.

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
            "choose the arch that the checkpoint was trained with"
        )
    module.load_state_dict(state)


def to_open_clip_layout(raw: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Rename the entries of any known CLIP layout to open_clip's.

    Handles wrappers (``state_dict``, ``model``, ``module``), the prefix ``module.``, prefixes of a
    whole model (``backbone.tower.visual...``), CustomTextCLIP's ``text.``, split q/k/v and compact
    token embeddings (``token_embedding.ids`` and ``.rows``; other rows are as at initialisation).

    Raises:
        ValueError: if it is no CLIP checkpoint, one of an EVA or timm tower, or holds two towers of
            a kind.
    """
    for wrapper in ("state_dict", "model", "module"):
        if isinstance(raw.get(wrapper), Mapping):
            raw = raw[wrapper]
    tensors = {k.removeprefix("module."): v for k, v in raw.items() if isinstance(v, Tensor)}
    # By its text tower alone such a file would load, into blocks with another activation.
    if any("visual.blocks." in key or "visual.trunk." in key for key in tensors):
        raise ValueError(
            f"{source!r} is of an EVA-CLIP (or another tower of timm), which is not supported; "
            "take weights of an OpenAI-style ViT, such as checkpoint='openai' with "
            "arch='ViT-B-16-quickgelu'"
        )
    out: dict[str, Tensor] = {}
    anchors = {
        "visual.": ("visual.conv1.weight",),
        "": ("token_embedding.weight", "token_embedding.ids"),
    }
    for target, names in anchors.items():
        prefix = _prefix_of(tensors, names, source)
        if prefix is not None:
            out.update(_take(tensors, prefix, target))
    if not out:
        raise ValueError(
            f"{source!r} holds no CLIP checkpoint: expected 'visual.conv1.weight' or "
            f"'token_embedding.weight', found {sorted(tensors)[:3] or 'no tensors'}"
        )
    return _fuse_qkv(_expand_token_embedding(out))


def _prefix_of(tensors: dict[str, Tensor], names: tuple[str, ...], source: str) -> str | None:
    found = [key[: -len(n)] for n in names for key in tensors if ("." + key).endswith("." + n)]
    if len(set(found)) > 1:
        raise ValueError(f"{source!r} holds several CLIP towers ({sorted(set(found))}); export one")
    return found[0] if found else None


def _take(tensors: dict[str, Tensor], prefix: str, target: str) -> dict[str, Tensor]:
    """Entries of one tower under ``prefix``, by open_clip's names."""
    if target == "visual.":
        start = prefix + "visual."
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(start)}
    roots = (
        *("token_embedding", "positional_embedding", "transformer", "ln_final"),
        *("text_projection", "logit_scale", "logit_bias"),
    )
    part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return {k: v for k, v in part.items() if k.split(".")[0] in roots}


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


def _fuse_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for key, value in state.items():
        stem, _, leaf = key.rpartition(".")
        if leaf == "q_proj_weight":
            out[f"{stem}.in_proj_weight"] = torch.cat(
                [state[f"{stem}.{name}_proj_weight"] for name in "qkv"]
            )
        elif leaf not in ("k_proj_weight", "v_proj_weight"):
            out[key] = value
    return out


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
        _check_activation(arch, quick_gelu, source)  # before the download
        return Path(open_clip.pretrained.download_pretrained(config)), quick_gelu
    tags = open_clip.pretrained.list_pretrained_tags_by_model(arch) if isinstance(arch, str) else []
    raise FileNotFoundError(
        f"{source!r} is neither a file nor weights known for {_name(arch)}"
        + (f"; known tags: {', '.join(tags)}" if tags else "")
    )


def _read_entries(path: Path) -> tuple[Mapping[str, Any], bool | None]:
    """All entries of a checkpoint file, and whether it is marked as QuickGELU."""
    raw, metadata = read_file(path)
    if not isinstance(raw, Mapping):
        raise ValueError(f"{str(path)!r} holds a {type(raw).__name__}, expected a state dict")
    if "quick_gelu" in metadata:
        return raw, metadata["quick_gelu"].lower() == "true"
    mark = True if all(name in raw for name in _OPENAI_MARKS) else raw.get("quick_gelu")
    return raw, None if mark is None else bool(mark)


def _check_activation(arch: Arch, trained_quick: bool | None, source: str) -> None:
    """Refuse weights trained with one of GELU and QuickGELU in a tower built with the other."""
    if trained_quick is None or trained_quick == bool(model_config(arch).get("quick_gelu", False)):
        return
    if isinstance(arch, str):
        base = arch.removesuffix("-quickgelu")
        right = f"use arch={base + '-quickgelu' if trained_quick else base!r}"
    else:
        right = f"set quick_gelu={trained_quick} in the arch"
    names = ("QuickGELU", "GELU") if trained_quick else ("GELU", "QuickGELU")
    raise ValueError(
        f"{source!r} was trained with {names[0]}, but {_name(arch)} is built with {names[1]}: "
        f"its features would be wrong; {right}"
    )


def _name(arch: Arch) -> str:
    return repr(arch) if isinstance(arch, str) else "the given arch"
