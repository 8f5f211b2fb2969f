"""Official CAT-Seg checkpoints and ours: one table of names, used in both directions.

Official files are detectron2 checkpoints: CLIP with split q/k/v weights, the aggregator and two
up-samplers. Every key is either renamed by exactly one row of :data:`RENAMES` or dropped by one row
of :data:`DROPS`; shapes are compared with the modules they imply, so ViT-B and ViT-L (and other
widths) need no option.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmclipdis.clip.towers.build import build_image_tower, build_text_transformer
from mmclipdis.clip.weights import activation_mark, readout_mark
from mmclipdis.clip.weights.trainable import split_qkv
from mmclipdis.models.segmentation.catseg.aggregator import CATSegAggregator

_CLIP = "sem_seg_head.predictor.clip_model."
_AGGREGATOR = "sem_seg_head.predictor.transformer."
_OURS = "decode_head.aggregator."
_MARKS = (
    f"image_encoder.{readout_mark.MARK}",
    f"image_encoder.{activation_mark.MARK}",
    f"text_encoder.{activation_mark.MARK}",
)
_LAYER = _OURS + "layers.{l}."
_OFFICIAL_LAYER = _AGGREGATOR + "layers.{l}."

RENAMES: tuple[tuple[str, str], ...] = (
    # (ours, official); a placeholder stands for one number, {*} for the rest of the name.
    ("image_encoder.tower.visual.{*}", _CLIP + "visual.{*}"),
    ("text_encoder.tower.text.{*}", _CLIP + "{*}"),
    ("decode_head.guidance_up.0.{*}", "upsample1.{*}"),
    ("decode_head.guidance_up.1.{*}", "upsample2.{*}"),
    (_OURS + "cost_embedding.{*}", _AGGREGATOR + "conv1.{*}"),
    (_OURS + "appearance_projection.{*}", _AGGREGATOR + "guidance_projection.0.{*}"),
    (_OURS + "text_projection.{*}", _AGGREGATOR + "text_guidance_projection.0.{*}"),
    (
        _OURS + "guidance_projections.{i}.{*}",
        _AGGREGATOR + "decoder_guidance_projection.{i}.0.{*}",
    ),
    (
        _LAYER + "spatial.guidance_norm.{*}",
        _OFFICIAL_LAYER + "swin_block.guidance_norm.{*}",
    ),
    (_LAYER + "spatial.blocks.0.{*}", _OFFICIAL_LAYER + "swin_block.block_1.{*}"),
    (_LAYER + "spatial.blocks.1.{*}", _OFFICIAL_LAYER + "swin_block.block_2.{*}"),
    (_LAYER + "classes.attn.{*}", _OFFICIAL_LAYER + "attention.attention.{*}"),
    (_LAYER + "classes.mlp.fc1.{*}", _OFFICIAL_LAYER + "attention.MLP.0.{*}"),
    (_LAYER + "classes.mlp.fc2.{*}", _OFFICIAL_LAYER + "attention.MLP.2.{*}"),
    (_LAYER + "classes.{*}", _OFFICIAL_LAYER + "attention.{*}"),
    *(
        (
            f"{_OURS}decoder.stages.{i}.{ours}.{{*}}",
            f"{_AGGREGATOR}decoder{i + 1}.{official}.{{*}}",
        )
        for i in range(2)
        for ours, official in (
            ("up", "up"),
            ("conv1", "conv.double_conv.0"),
            ("norm1", "conv.double_conv.1"),
            ("conv2", "conv.double_conv.3"),
            ("norm2", "conv.double_conv.4"),
        )
    ),
    (_OURS + "decoder.head.{*}", _AGGREGATOR + "head.{*}"),
)

DROPS: tuple[tuple[str, str], ...] = (
    # (official, reason)
    (
        _CLIP + "logit_scale",
        "never read by CAT-Seg; kept beside the weights for the way back",
    ),
    (_OFFICIAL_LAYER + "swin_block.block_2.attn_mask", "constant of the window layout"),
)

_CLIP_LOGIT_SCALE = math.log(100.0)


@dataclass
class ConversionReport:
    """What became of every key.

    Attributes:
        renamed: From -> to.
        dropped: Key -> reason.
        added: Key that the source did not have -> where its value comes from.
    """

    renamed: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{old} -> {new}" for old, new in self.renamed.items()]
        lines += [f"{key} dropped: {reason}" for key, reason in self.dropped.items()]
        lines += [f"{key} added: {reason}" for key, reason in self.added.items()]
        counts = [f"{len(self.renamed)} keys renamed", f"{len(self.dropped)} dropped"]
        if self.added:
            counts.append(f"{len(self.added)} added")
        return "\n".join([*lines, ", ".join(counts)])


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"(\{.\})", template)
    out = ""
    for part in parts:
        if part == "{*}":
            out += r"(?P<rest>.+)"
        elif part.startswith("{"):
            out += rf"(?P<{part[1]}>\d+)"
        else:
            out += re.escape(part)
    return re.compile(out)


def _rename(name: str, source: int) -> str | None:
    for row in RENAMES:
        match = _pattern(row[source]).fullmatch(name)
        if match:
            return row[1 - source].replace("{*}", "{rest}").format(**match.groupdict())
    return None


def official_name(name: str) -> str:
    """Official name of one of our parameters.

    Raises:
        ValueError: CAT-Seg has no such parameter.
    """
    renamed = _rename(name, source=0)
    if renamed is None:
        raise ValueError(f"{name!r} is not a parameter of CATSeg with two decoder stages.")
    return renamed


def from_official(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor], ConversionReport]:
    """Rename an official state dict to that of :class:`CATSeg`.

    Args:
        state: Official names and tensors.

    Returns:
        Our state dict, the dropped tensors that the way back needs, and the report.

    Raises:
        ValueError: a key that CAT-Seg does not have, a missing key, or a wrong shape.
    """
    if _AGGREGATOR + "conv1.weight" not in state or _CLIP + "visual.proj" not in state:
        raise ValueError(
            "Not an official CAT-Seg checkpoint: expected names such as "
            f"'{_AGGREGATOR}conv1.weight' and '{_CLIP}visual.proj', got {_examples(state)}. "
            "Plain CLIP weights need no conversion; older CAT-Seg models (arXiv v1) cannot be used."
        )
    report, ours, extra = ConversionReport(), {}, {}
    for key, value in state.items():
        reason = next((why for rule, why in DROPS if _pattern(rule).fullmatch(key)), None)
        if reason is not None:
            report.dropped[key] = reason
            if key.endswith("logit_scale"):
                extra["logit_scale"] = value
            continue
        name = _rename(key, source=1)
        if name is None or name in ours:
            raise ValueError(f"Unexpected key {key!r} in an official CAT-Seg checkpoint.")
        ours[name] = value
        report.renamed[key] = name
    _check_layout(ours)
    return ours, extra, report


def to_official(
    state: Mapping[str, Tensor], extra: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], ConversionReport]:
    """Inverse of :func:`from_official`.

    Args:
        state: State dict of :class:`CATSeg`.
        extra: What :func:`from_official` set aside; without it, ``logit_scale`` is CLIP's
            ``log 100``. The masks of the shifted windows are those of the official models, windows
            of 12 on a 24 x 24 grid: shapes do not tell another size.

    Returns:
        The official state dict and the report.

    Raises:
        ValueError: names or shapes are not those of the model.
    """
    report, official = ConversionReport(), {}
    for mark in _MARKS:
        if mark in state:
            report.dropped[mark] = "says what was trained; official files have no place for it"
    state = _split_fused({key: value for key, value in state.items() if key not in _MARKS})
    _check_layout(state)
    for name, value in state.items():
        official[official_name(name)] = value
        report.renamed[name] = official_name(name)
    known = dict(extra or {})
    scale = known.get("logit_scale", torch.tensor(_CLIP_LOGIT_SCALE))
    official[_CLIP + "logit_scale"] = scale
    source = "set aside when it was converted" if "logit_scale" in known else "CLIP's log 100"
    report.added[_CLIP + "logit_scale"] = source
    layers = {int(m[1]) for k in state if (m := re.match(rf"{_OURS}layers\.(\d+)\.", k))}
    for layer in sorted(layers):
        key = f"{_AGGREGATOR}layers.{layer}.swin_block.block_2.attn_mask"
        official[key] = shifted_window_mask(24, 12)
        report.added[key] = "windows of 12 on a 24 x 24 grid, as in the official models"
    return official, report


def shifted_window_mask(grid: int, window: int) -> Tensor:
    """The reference's buffer: 0 inside, -100 between the regions of a cyclically shifted window.

    Returns:
        ``((grid / window)^2, window^2, window^2)``.
    """
    shift = window // 2
    part = torch.zeros(grid, dtype=torch.long)
    part[grid - window : grid - shift] = 1
    part[grid - shift :] = 2
    regions = 3 * part[:, None] + part
    n = grid // window
    regions = regions.view(n, window, n, window).transpose(1, 2).reshape(n * n, window * window)
    return -100.0 * (regions[:, None] != regions[:, :, None]).float()


def _split_fused(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split fused ``in_proj_weight`` of encoders that were frozen in training."""
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        stem, _, leaf = key.rpartition(".")
        if leaf == "in_proj_weight":
            for part, weight in zip("qkv", value.chunk(3), strict=True):
                out[f"{stem}.{part}_proj_weight"] = weight
        else:
            out[key] = value
    return out


def _check_layout(ours: Mapping[str, Tensor]) -> None:
    """Compare names and shapes with the modules that the shapes themselves imply."""
    expected = _expected_shapes(ours)
    missing = sorted(set(expected) - set(ours))
    unexpected = sorted(set(ours) - set(expected))
    if missing or unexpected:
        raise ValueError(
            f"CAT-Seg checkpoint with other names than expected: missing {missing[:5]} "
            f"({len(missing)} in all), unexpected {unexpected[:5]} ({len(unexpected)} in all)."
        )
    for name, shape in expected.items():
        if tuple(ours[name].shape) != shape:
            raise ValueError(f"{name} has shape {tuple(ours[name].shape)}, expected {shape}.")


def _expected_shapes(ours: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    image, text = "image_encoder.tower.visual.", "text_encoder.tower.text."
    try:
        arch = _arch(ours, image, text)
        hidden = ours[_OURS + "cost_embedding.weight"].shape[0]
        projections = [ours[f"{_OURS}guidance_projections.{i}.weight"].shape for i in range(2)]
        decoder_dims = [ours[f"{_OURS}decoder.stages.{i}.conv1.weight"].shape[0] for i in range(2)]
    except KeyError as error:
        raise ValueError(f"CAT-Seg checkpoint without {error.args[0]!r}.") from None
    with torch.device("meta"):
        modules = {
            image: split_qkv(build_image_tower(arch).visual),
            text: split_qkv(build_text_transformer(arch)),
            _OURS: CATSegAggregator(
                arch["embed_dim"],
                hidden,
                num_layers=_count(ours, _OURS + "layers."),
                guidance_dims=[shape[1] for shape in projections],
                guidance_proj_dims=[shape[0] for shape in projections],
                decoder_dims=decoder_dims,
            ),
        }
    expected = {
        prefix + name: tuple(value.shape)
        for prefix, module in modules.items()
        for name, value in module.state_dict().items()
    }
    width = arch["vision_cfg"]["width"]
    for i, shape in enumerate(projections):
        side = 2 ** (i + 1)
        expected[f"decode_head.guidance_up.{i}.weight"] = (width, shape[1], side, side)
        expected[f"decode_head.guidance_up.{i}.bias"] = (shape[1],)
    return expected


def _arch(ours: Mapping[str, Tensor], image: str, text: str) -> dict:
    """open_clip config of the towers in a checkpoint, from shapes (which heads do not change)."""
    width, _, patch, _ = ours[image + "conv1.weight"].shape
    grid = math.isqrt(len(ours[image + "positional_embedding"]) - 1)
    context, text_width = ours[text + "positional_embedding"].shape
    return {
        "embed_dim": ours[image + "proj"].shape[1],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": grid * patch,
            "patch_size": patch,
            "width": width,
            "head_width": width,
            "layers": _count(ours, image + "transformer.resblocks."),
        },
        "text_cfg": {
            "context_length": context,
            "vocab_size": len(ours[text + "token_embedding.weight"]),
            "width": text_width,
            "heads": 1,
            "layers": _count(ours, text + "transformer.resblocks."),
        },
    }


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def _examples(state: Mapping[str, Tensor]) -> str:
    keys = list(state)[:3]
    return ", ".join(repr(key) for key in keys) + (", ..." if len(state) > 3 else "")
