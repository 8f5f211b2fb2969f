"""A model's config made tiny: towers, heads and sizes, with random weights in files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmclipdis.apis.reproduction.miniature_towers import (
    SHRINK,
    STEM,
    WIDTH,
    Scale,
    patch_of,
    tiny_arch,
    tiny_vision_model,
    write_clip,
    write_projectors,
    write_region_prompt,
    write_tokenizer,
    write_vision_model,
)
from mmclipdis.clip.text.templates import get_templates

#: Sentences that remain of a set of many.
_SENTENCES = 2
#: Channels of detectors' necks and heads.
_CHANNELS = 16
#: Options that are sides in pixels, or pairs of them, anywhere in a model.
_SIDES = ("crop_size", "stride", "size", "clip_size", "image_size", "pad_size_divisor")
#: Readouts that need windows of more patches: SC-CLIP looks at the 30 nearest ones of each.
_LESS = {"scclip": 1}
#: What tells the patch of a model, in this order: the encoder of its images.
_IMAGE_SIDES = ("backbone", "image_encoder", "encoder", "student")


def scale_of(model: Any) -> Scale:
    """By how much the sides of a model's config shrink, in patches of its image encoder.

    Raises:
        ValueError: no part of it names an ``arch``.
    """
    for node in parts(model):
        for name in _IMAGE_SIDES:
            part = node.get(name)
            if isinstance(part, dict) and isinstance(part.get("arch"), str):
                return Scale(patch_of(part["arch"]), _LESS.get(str(part.get("readout")), SHRINK))
    raise ValueError(f"no miniature of a {model.get('type')}: no part of it names an arch")


def parts(node: Any) -> Iterator[Any]:
    """A config and all dicts in it, the outer ones first."""
    if isinstance(node, dict):
        yield node
        for value in list(node.values()):
            yield from parts(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from parts(value)


def shrink_model(model: Any, folder: Path) -> None:
    """Make a model's config tiny in place.

    Args:
        model: Config of the model.
        folder: Where files of random weights go; existing ones are taken as they are.

    Raises:
        ValueError: there is no miniature of such a model.
    """
    scale = scale_of(model)
    arch = image_arch(model)
    for node in list(parts(model)):
        if node.get("type") == "FViTBBoxHead" or "templates" in node:
            shorten_templates(node)
        if "region_classifier" in node:
            shorten_templates(node["region_classifier"])
        _shrink_sides(node, scale)
        if isinstance(node.get("projector"), str):
            file = Path(node["projector"])
            path = folder / f"{file.parent.name}_{file.stem}.pt"
            node["projector"] = str(write_projectors(arch, path))
        if isinstance(node.get("region_prompt"), str):
            path = folder / f"{Path(node['region_prompt']).stem}.pt"
            node["region_prompt"] = str(write_region_prompt(arch, path))
        if node.get("type") in ("TimmVFM", "SAMMatrix"):
            _shrink_vision_model(node, folder)
        if isinstance(node.get("arch"), str):
            _shrink_encoder(node, folder)
    for node in list(parts(model)):
        narrow = HEADS.get(str(node.get("type")))
        if narrow is not None:
            narrow(node, arch)


def image_arch(model: Any) -> dict[str, Any]:
    """The tiny arch of the first encoder of a model's config."""
    for node in parts(model):
        if isinstance(node.get("arch"), str):
            return tiny_arch(node["arch"], (node.get("init_cfg") or {}).get("checkpoint"))
    raise ValueError(f"no miniature of a {model.get('type')}: no part of it names an arch")


def shorten_templates(node: Any) -> None:
    """Two sentences of a named set of many; the way in which it is rendered goes."""
    given = node.get("templates", "vild63")  # the default of detectors and of region classifiers
    if isinstance(given, str) and len(get_templates(given)) > _SENTENCES:
        formats = get_templates(given).formats[:_SENTENCES]
        node["templates"] = tuple(text.replace("{article}", "a") for text in formats)


def _shrink_sides(node: Any, scale: Scale) -> None:
    for key in _SIDES:
        given = node.get(key)
        if isinstance(given, (list, tuple)) and all(isinstance(side, int) for side in given):
            node[key] = scale.sides(given)
        elif isinstance(given, int) and given > scale.patch:
            node[key] = scale.side(given, least=2)


def _shrink_encoder(encoder: Any, folder: Path) -> None:
    arch, init = encoder["arch"], encoder.get("init_cfg")
    source = (init or {}).get("checkpoint")
    encoder["arch"] = tiny_arch(arch, source)
    if init:
        init["checkpoint"] = str(write_clip(arch, source, folder))
    if "tokenizer" in encoder:
        encoder["tokenizer"] = str(write_tokenizer(arch, folder))
    if encoder.get("type") == "OpenCLIPTextEncoder":
        encoder.update(cache_dir=False, progress=False)


def _shrink_vision_model(vfm: Any, folder: Path) -> None:
    name = vfm.get("model", "dinov2-B")
    vfm["model_kwargs"] = tiny_vision_model(name)
    if vfm.get("init_cfg"):
        source = vfm["init_cfg"]["checkpoint"]
        vfm["init_cfg"]["checkpoint"] = str(write_vision_model(name, source, folder))


def _narrow_catseg(model: Any, arch: Any) -> None:
    model["decode_head"]["guidance_dims"] = (8, 4)
    model["decode_head"]["aggregator"].update(
        hidden_dim=16, num_heads=2, guidance_proj_dims=(4, 4), decoder_dims=(16, 8)
    )


def _narrow_fvit(model: Any, arch: Any) -> None:
    for node in parts(model):
        for key in [key for key in node if str(key).endswith("_channels") and node[key] == 256]:
            node[key] = _CHANNELS
    model["neck"]["in_channels"] = [WIDTH] * len(model["neck"]["in_channels"])
    model["roi_head"]["bbox_head"]["fc_out_channels"] = arch["embed_dim"]
    for stage in ("train_cfg", "test_cfg"):
        for name in ("rpn_proposal", "rpn"):
            if "nms_pre" in model[stage].get(name, {}):
                model[stage][name].update(nms_pre=50, max_per_img=20)
    model["test_cfg"]["rcnn"]["score_thr"] = 0.0  # mmdet has no metrics where nothing is found


def _narrow_ovdquo(model: Any, arch: Any) -> None:
    """Queries keep their 256 channels, without which mmdet's decoder does not work."""
    for name in ("encoder", "decoder"):
        model[name]["num_layers"] = 1
        model[name]["layer_cfg"]["ffn_cfg"]["feedforward_channels"] = 2 * _CHANNELS
    wide = isinstance(arch["vision_cfg"].get("layers"), list)
    count = len(model["neck"]["in_channels"])
    model["neck"]["in_channels"] = [8 * STEM, 16 * STEM] if wide else [WIDTH] * count
    model["num_queries"] = 20
    model["dn_cfg"]["num_queries"] = 10
    model["test_cfg"]["score_thr"] = 0.0  # as F-ViT's


#: Types of models whose heads are narrowed, too.
HEADS: dict[str, Callable[[Any, Any], None]] = {
    "CATSeg": _narrow_catseg,
    "FViT": _narrow_fvit,
    "OVDQUO": _narrow_ovdquo,
}
