"""Published vision foundation models, and the loading of their official files."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmclipdis.clip.weights.dino_layout import dinov3_to_timm, fit_bias, hf_dinov3_to_timm
from mmclipdis.clip.weights.files import read_file
from mmclipdis.clip.weights.loading import load_strictly
from mmclipdis.clip.weights.tags import PACKAGED
from mmclipdis.utils.finite import check_weights
from mmclipdis.utils.statistics import CLIP, HALF, IMAGENET, NONE, Statistics


@dataclass(frozen=True)
class VFM:
    """A published teacher.

    Attributes:
        timm_name: Its name in timm.
        patch_size: Pixels a side of one feature: N features need images of ``patch_size * sqrt(N)``
            pixels a side.
        channels: Of the feature map.
        positions: Rule by which its official code resamples its table of positions, see
            :mod:`mmclipdis.clip.towers.positions`; it does nothing where there is no table.
        file: Name of its official checkpoint.
        kwargs: Arguments of the timm model, where it is none of timm's own.
        statistics: Mean and standard deviation, of pixels from 0 to 1, that it wants taken off.
    """

    timm_name: str
    patch_size: int
    channels: int
    positions: str
    file: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    statistics: Statistics = IMAGENET


def _of_timm(
    statistics: Statistics, patch_size: int, positions: str, models: Mapping[str, tuple[str, int]]
) -> dict[str, VFM]:
    """Models whose weights are taken in timm's layout: its name and channels, a name of ours."""
    return {
        name: VFM(
            *(timm_name, patch_size, channels, positions),
            *(f"model.safetensors of timm/{timm_name}", {}, statistics),
        )
        for name, (timm_name, channels) in models.items()
    }


#: Names here start with DeCLIP's of its teachers (its table 6); "dinov2" has four registers.
#: timm alone would resample all of them like DINOv2, which changes DINO's table by 9 %.
#: ``shapes-vfm`` is that of ShapeScenes: it has no positions at all, and ships with the package.
VFMS = {
    "dinov2-B": VFM(
        *("vit_base_patch14_reg4_dinov2.lvd142m", 14, 768),
        *("antialias", "dinov2_vitb14_reg4_pretrain.pth"),
    ),
    "dinov2-L": VFM(
        *("vit_large_patch14_reg4_dinov2.lvd142m", 14, 1024),
        *("antialias", "dinov2_vitl14_reg4_pretrain.pth"),
    ),
    "dino-B-8": VFM("vit_base_patch8_224.dino", 8, 768, "legacy", "dino_vitbase8_pretrain.pth"),
    "dino-B-16": VFM("vit_base_patch16_224.dino", 16, 768, "legacy", "dino_vitbase16_pretrain.pth"),
    "sam-B": VFM("samvit_base_patch16.sa1b", 16, 256, "size", "sam_vit_b_01ec64.pth"),
    "sam-L": VFM("samvit_large_patch16.sa1b", 16, 256, "size", "sam_vit_l_0b3195.pth"),
    "mae-B": VFM("vit_base_patch16_224.mae", 16, 768, "size", "mae_pretrain_vit_base.pth"),
    **_of_timm(
        IMAGENET,
        16,
        "antialias",
        {
            "dinov3-S": ("vit_small_patch16_dinov3.lvd1689m", 384),
            "dinov3-S+": ("vit_small_plus_patch16_dinov3.lvd1689m", 384),
            "dinov3-B": ("vit_base_patch16_dinov3.lvd1689m", 768),
            "dinov3-L": ("vit_large_patch16_dinov3.lvd1689m", 1024),
        },
    ),
    **_of_timm(HALF, 16, "bilinear", {"pe-spatial-B": ("vit_pe_spatial_base_patch16_512.fb", 768)}),
    **_of_timm(
        HALF, 14, "bilinear", {"pe-spatial-L": ("vit_pe_spatial_large_patch14_448.fb", 1024)}
    ),
    **_of_timm(
        NONE,
        14,
        "antialias",
        {
            "tipsv2-B": ("vit_base_patch14_reg1_tipsv2.webli", 768),
            "tipsv2-L": ("vit_large_patch14_reg1_tipsv2.webli", 1024),
        },
    ),
    **_of_timm(
        CLIP,
        16,
        "antialias",
        {
            "radio-v3-B": ("naflexvit_base_patch16_radio_v3.c_radio", 768),
            "radio-v3-L": ("naflexvit_large_patch16_radio_v3.c_radio", 1024),
            "radio-v3-H": ("naflexvit_huge_patch16_radio_v3.c_radio", 1280),
        },
    ),
    "shapes-vfm": VFM(
        *("vit_tiny_patch16_224", 8, 128, "antialias", "shapes-vfm.safetensors"),
        kwargs=dict(
            patch_size=8,
            img_size=160,
            embed_dim=128,
            depth=4,
            num_heads=4,
            class_token=False,
            global_pool="",
            pos_embed="none",
        ),
    ),
}


#: Name of a weight -> what renames the DINOv3 that has it.
_DINOV3 = {
    "storage_tokens": dinov3_to_timm,
    "embeddings.register_tokens": hf_dinov3_to_timm,
}


def load_vfm(model: Any, source: str | Path | Sequence[str], name: str) -> None:
    """Load an official checkpoint, or one in timm's layout, into a timm model, strictly.

    timm's converter does the renaming. It would also stretch patches and positions of another
    size to fit; such a file is of another model and is refused. A DINOv3 is renamed here, the
    official one and Hugging Face's: timm would drop the biases of q and v without a word.

    Args:
        model: The timm model, without classifier.
        source: The file, or ``'shapes'`` for that of ``shapes-vfm``.
        name: What the user calls the model, for messages.

    Raises:
        FileNotFoundError: if there is no such file; the message says where to get it.
        ValueError: if it is no checkpoint, that of another model, or not finite.
    """
    if not isinstance(source, (str, Path)):
        raise ValueError(f"checkpoint={list(source)!r} of {name!r}: a vision model has one file")
    path = PACKAGED.get((name, str(source))) or Path(source).expanduser()
    url = (model.pretrained_cfg or {}).get("url")
    official = (
        f"; the official file of {name!r} is {url or VFMS[name].file}" if name in VFMS else ""
    )
    if (name, "shapes") in PACKAGED:
        official = f"; the weights of {name!r} ship with the package: checkpoint='shapes'"
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {str(source)!r} of {name!r}{official}")
    raw, _ = read_file(path)
    if not isinstance(raw, Mapping):
        raise ValueError(f"{str(source)!r} holds a {type(raw).__name__}, expected a state dict")
    for wrapper in ("state_dict", "model"):
        if isinstance(raw.get(wrapper), Mapping):
            raw = raw[wrapper]
    tensors = {k.removeprefix("module."): v for k, v in raw.items() if isinstance(v, Tensor)}
    try:
        _check_sizes(tensors, model, str(source))
        check_weights(tensors, str(source))
        converted = _without_classifier(_converter(model, tensors)(dict(tensors), model), model)
        converted = fit_bias(converted, model.state_dict(), str(source))
        load_strictly(model, converted, f"vision model {name!r}", str(source))
    except (ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{error}{official}") from error


def _converter(
    model: nn.Module, tensors: Mapping[str, Tensor]
) -> Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]]:
    """timm's conversion of official files, which stands beside each model's class, or ours."""
    module = importlib.import_module(type(model).__module__)
    if module.__name__ == "timm.models.eva":
        for sign, convert in _DINOV3.items():
            if sign in tensors:
                return lambda state, _: convert(state)[0]
    return getattr(module, "checkpoint_filter_fn", lambda state, _: state)


def _without_classifier(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """``state`` without the weights of a classifier, which ``model`` was built without."""
    names = (model.pretrained_cfg or {}).get("classifier") or ()
    stems = tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
    own = model.state_dict()
    return {k: v for k, v in state.items() if k in own or not k.startswith(stems)}


def _check_sizes(tensors: Mapping[str, Tensor], model: Any, source: str) -> None:
    """Refuse patches and positions that the converter would stretch."""
    own = model.state_dict()
    for name in ("patch_embed.proj.weight", "pos_embed"):
        found = [v for k, v in tensors.items() if ("." + k).endswith("." + name)]
        if name not in own or not found:
            continue
        given, expected = tuple(found[0].shape), tuple(own[name].shape)
        # DINOv2's files have a CLS row that timm's table has not.
        with_cls = name == "pos_embed" and given == (1, expected[1] + 1, *expected[2:])
        if given != expected and not with_cls:
            raise ValueError(
                f"{source!r} is of another model: its {name} is {given}, expected {expected}; "
                "choose the model and model_kwargs that it was trained with"
            )
