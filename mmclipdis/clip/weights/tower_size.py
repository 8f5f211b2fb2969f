"""What the names and shapes of an image tower's weights tell: its family, its size, its arch."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import open_clip
from torch import Tensor

_TRUNK = "visual.trunk."
#: Names that every tower of a kind has, and names that none has, tried in this order: what timm's
#: towers share comes last. A name that ends in ``.`` stands for all that start with it.
_SIGNS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("CoCa", ("visual.conv1.weight", "visual.attn_pool."), ()),
    ("CLIPA", ("visual.conv1.weight", "visual.ln_post.weight"), ("visual.ln_pre.weight",)),
    ("OpenAI-style", ("visual.conv1.weight",), ()),
    ("dino.txt", (_TRUNK, "visual.head.ln_final.weight"), ()),
    ("PE", (_TRUNK + "attn_pool.latent", _TRUNK + "norm_pre.weight"), ()),
    ("SigLIP", (_TRUNK + "attn_pool.latent",), ()),
    ("EVA-CLIP", (_TRUNK + "blocks.0.attn.q_proj.weight",), ()),
    ("EVA-CLIP", (_TRUNK + "blocks.0.attn.q_bias",), (_TRUNK + "reg_token",)),
    ("DINOv3", (_TRUNK + "reg_token",), (_TRUNK + "pos_embed",)),
    ("DINO of timm", (_TRUNK + "reg_token",), ()),
    ("ViTamin", (_TRUNK + "patch_embed.backbone.stem.conv1.weight",), ()),
    ("MobileCLIP", (_TRUNK + "patch_embed.backbone.0.conv.weight",), ()),
    ("MobileCLIP", (_TRUNK + "final_conv.",), ()),
    ("ConvNeXt", (_TRUNK + "stages.0.blocks.0.conv_dw.weight",), ()),
    ("timm CLIP", (_TRUNK + "norm_pre.weight", _TRUNK + "blocks.0.attn.qkv."), ()),
    ("timm", (_TRUNK + "blocks.0.attn.qkv.",), ()),
    ("EVA-CLIP", (_TRUNK + "patch_embed.proj.weight",), ()),
)
#: A tower with registers is TIPS with one of them, and DINOv2 with four.
_BY_REGISTERS = {1: "TIPS", 4: "DINOv2"}
#: Kinds that may be pyramids of convolutions, without transformer blocks.
_STAGED = ("ConvNeXt", "MobileCLIP")
#: Stems of several convolutions.
_HYBRID_PATCH = 16

#: Start of a trunk's name in timm -> kind of its tower.
_TRUNKS = (
    (r"eva(01|02)?_", "EVA-CLIP"),
    (r"(naflex)?vit_\w*siglip", "SigLIP"),
    (r"vit_pe_core", "PE"),
    (r"fastvit_mci|vit_base_mci", "MobileCLIP"),
    (r"convnext", "ConvNeXt"),
    (r"vitamin", "ViTamin"),
    (r"vit_\w*tips", "TIPS"),
    (r"vit_\w*dinov3", "DINOv3"),
    (r"vit_\w*dinov2", "DINOv2"),
    (r"vit_\w*_clip_", "timm CLIP"),
)

#: The same of a ResNet: its position table, last convolution of its stem, a weight of each block.
_RESNET_TABLE, _RESNET_STEM = "visual.attnpool.positional_embedding", "visual.conv3.weight"
_RESNET_BLOCK = re.compile(r"visual\.layer\d\.\d+\.conv1\.weight")

#: (kind, width, blocks, patch, grid) -> the arch of that size.
_KNOWN = {
    ("EVA-CLIP", 768, 12, 16, 14): "EVA02-B-16",
    ("EVA-CLIP", 1024, 24, 14, 16): "EVA02-L-14",
    ("EVA-CLIP", 1024, 24, 14, 24): "EVA02-L-14-336",
    ("OpenAI-style", 768, 12, 16, 14): "ViT-B-16-quickgelu",
    ("OpenAI-style", 768, 12, 32, 7): "ViT-B-32-quickgelu",
    ("OpenAI-style", 1024, 24, 14, 16): "ViT-L-14-quickgelu",
    ("OpenAI-style", 1024, 24, 14, 24): "ViT-L-14-336-quickgelu",
    ("ResNet", 64, 16, 32, 7): "RN50-quickgelu",
    ("ResNet", 64, 33, 32, 7): "RN101-quickgelu",
    ("ResNet", 80, 26, 32, 9): "RN50x4-quickgelu",
    ("ResNet", 96, 40, 32, 12): "RN50x16-quickgelu",
    ("ResNet", 128, 64, 32, 14): "RN50x64-quickgelu",
    ("SigLIP", 768, 12, 16, 14): "ViT-B-16-SigLIP2",
    ("SigLIP", 768, 12, 16, 16): "ViT-B-16-SigLIP2-256",
    ("SigLIP", 768, 12, 16, 24): "ViT-B-16-SigLIP2-384",
    ("SigLIP", 768, 12, 16, 32): "ViT-B-16-SigLIP2-512",
    ("SigLIP", 768, 12, 32, 8): "ViT-B-32-SigLIP2-256",
    ("SigLIP", 1024, 24, 16, 16): "ViT-L-16-SigLIP2-256",
    ("SigLIP", 1024, 24, 16, 24): "ViT-L-16-SigLIP2-384",
    ("SigLIP", 1024, 24, 16, 32): "ViT-L-16-SigLIP2-512",
    ("SigLIP", 1152, 27, 14, 16): "ViT-SO400M-14-SigLIP2",
    ("SigLIP", 1152, 27, 14, 27): "ViT-SO400M-14-SigLIP2-378",
    ("SigLIP", 1152, 27, 16, 16): "ViT-SO400M-16-SigLIP2-256",
    ("SigLIP", 1152, 27, 16, 24): "ViT-SO400M-16-SigLIP2-384",
    ("SigLIP", 1152, 27, 16, 32): "ViT-SO400M-16-SigLIP2-512",
    ("SigLIP", 1536, 40, 16, 16): "ViT-gopt-16-SigLIP2-256",
    ("SigLIP", 1536, 40, 16, 24): "ViT-gopt-16-SigLIP2-384",
    ("PE", 192, 12, 16, 24): "PE-Core-T-16-384",
    ("PE", 384, 12, 16, 24): "PE-Core-S-16-384",
    ("PE", 768, 12, 16, 14): "PE-Core-B-16",
    ("PE", 1024, 24, 14, 24): "PE-Core-L-14-336",
    ("PE", 1536, 50, 14, 32): "PE-Core-bigG-14-448",
    ("MobileCLIP", 768, 12, 16, 14): "MobileCLIP-B",
    ("timm CLIP", 1024, 24, 14, 16): "MobileCLIP2-L-14",
    ("CLIPA", 1024, 24, 14, 16): "ViT-L-14-CLIPA",
    ("CLIPA", 1024, 24, 14, 24): "ViT-L-14-CLIPA-336",
    ("CLIPA", 1280, 32, 14, 16): "ViT-H-14-CLIPA",
    ("CLIPA", 1280, 32, 14, 24): "ViT-H-14-CLIPA-336",
    ("TIPS", 768, 12, 14, 32): "TIPSv2-B-14",
    ("TIPS", 1024, 24, 14, 32): "TIPSv2-L-14",
    ("TIPS", 1152, 27, 14, 32): "TIPSv2-SO400M-14",
    ("TIPS", 1536, 40, 14, 32): "TIPSv2-g-14",
    ("dino.txt", 1024, 24, 14, 37): "dinotxt-v2-L-14",
    ("dino.txt", 1024, 24, 16, 0): "dinotxt-v3-L-16",
    ("DINOv2", 768, 12, 14, 37): "Talk2DINO-B-14",
    ("DINOv2", 1024, 24, 14, 37): "Talk2DINO-L-14",
}
#: Kinds that begin with a vowel as they are spoken.
_AN = ("EVA-CLIP", "OpenAI-style")


class TowerSize(NamedTuple):
    """What the shapes of an image tower's weights tell of it.

    Attributes:
        kind: Its family: ``'OpenAI-style'``, ``'ResNet'``, ``'EVA-CLIP'``, ``'SigLIP'``, ``'PE'``,
            ``'MobileCLIP'``, ``'TIPS'``, ``'dino.txt'``, ``'DINOv2'``, ``'DINOv3'``,
            ``'ConvNeXt'``, ``'ViTamin'``, ``'CLIPA'``, ``'CoCa'``,
            ``'timm CLIP'`` or another tower of ``'timm'``.
        width: Channels of the blocks; of a ResNet's stem; of a pyramid's last stage.
        blocks: Number of blocks; of a ResNet or a pyramid in all stages.
        patch: Side of a patch (of a pyramid's location) in pixels.
        grid: Side of the position table in patches; 0 where there is none.
    """

    kind: str
    width: int
    blocks: int
    patch: int
    grid: int

    @property
    def arch(self) -> str | None:
        """The best known arch of that size."""
        return _KNOWN.get((self.kind, self.width, self.blocks, self.patch, self.grid))

    def __str__(self) -> str:
        article = "an" if self.kind in _AN else "a"
        table = f"{self.grid} x {self.grid} positions" if self.grid else "no table of positions"
        if self.kind == "ResNet":
            text = f"a CLIP ResNet of width {self.width} with {self.blocks} blocks and {table}"
        elif self.kind in _STAGED and not self.grid:
            text = f"{article} {self.kind} of width {self.width} with {self.blocks} blocks"
        else:
            text = (
                f"{article} {self.kind} ViT of width {self.width} with {self.blocks} blocks, "
                f"patches of {self.patch} px and {table}"
            )
        return f"{text} (as {self.arch})" if self.arch else text


def tower_size(state: Mapping[str, Tensor]) -> TowerSize | None:
    """Size of the image tower in a state dict of open_clip's layout; None if there is none."""
    if _RESNET_TABLE in state and _RESNET_STEM in state:
        width = len(state[_RESNET_STEM])
        count = sum(_RESNET_BLOCK.fullmatch(key) is not None for key in state)
        return TowerSize("ResNet", width, count, 32, _grid(state[_RESNET_TABLE], 1))
    kind = _kind_of(state)
    if kind is None:
        return None
    if not any(key.startswith((_TRUNK + "blocks.", "visual.transformer.")) for key in state):
        return _stages(kind, state) if kind in _STAGED else None
    return _vit(kind, state)


def kind_of_arch(config: Mapping[str, Any]) -> str:
    """Kind of the image tower of a model config, as :class:`TowerSize` names it.

    Args:
        config: As of :func:`mmclipdis.clip.weights.loading.model_config`.
    """
    vision = config["vision_cfg"]
    if isinstance(vision.get("layers"), (list, tuple)):
        return "ResNet"
    name = vision.get("timm_model_name")
    if name is None:
        if vision.get("attentional_pool"):
            return "CoCa"
        return "CLIPA" if vision.get("no_ln_pre") else "OpenAI-style"
    if vision.get("head"):
        return "dino.txt"
    return next((kind for start, kind in _TRUNKS if re.match(start, name)), "timm")


def remedy(size: TowerSize) -> str:
    """What to do with a file that holds a tower of ``size``."""
    own = f"arch={size.arch!r}" if size.arch else "the arch that it was trained with"
    if size.arch and (other := _OTHERS.get(size.kind, _no_other)(size.arch)):
        own += f" ({other})"
    return f"choose {own}, or a file of this arch"


def _no_other(_: str) -> str:
    return ""


def _siglip_1(arch: str) -> str:
    first = arch.replace("SigLIP2", "SigLIP")
    return f"{first!r} for weights of SigLIP 1" if first in open_clip.list_models() else ""


#: Kind -> archs of the same size for other weights, in words.
_OTHERS: dict[str, Callable[[str], str]] = {
    "OpenAI-style": lambda arch: f"{arch.removesuffix('-quickgelu')!r} for weights of LAION",
    "SigLIP": _siglip_1,
    "MobileCLIP": lambda arch: f"{arch.replace('CLIP', 'CLIP2')!r} for weights of MobileCLIP 2",
}


def _kind_of(state: Mapping[str, Tensor]) -> str | None:
    kind = next((kind for kind, *signs in _SIGNS if _agrees(state, *signs)), None)
    if kind == "DINO of timm":
        return _BY_REGISTERS.get(state[_TRUNK + "reg_token"].shape[1], "timm")
    return kind


def _agrees(names: Collection[str], present: Collection[str], absent: Collection[str]) -> bool:
    return all(_has(names, one) for one in present) and not any(_has(names, one) for one in absent)


def _has(names: Collection[str], name: str) -> bool:
    return any(key.startswith(name) for key in names) if name.endswith(".") else name in names


def _vit(kind: str, state: Mapping[str, Tensor]) -> TowerSize | None:
    """Size of a tower of transformer blocks."""
    own = "visual.conv1.weight" in state
    stem = state.get("visual.conv1.weight" if own else _TRUNK + "patch_embed.proj.weight")
    table = state.get("visual.positional_embedding" if own else _TRUNK + "pos_embed")
    if table is None and kind in ("OpenAI-style", "EVA-CLIP"):
        return None
    if stem is not None and stem.ndim != 4:
        return None
    start = "visual.transformer.resblocks." if own else _TRUNK + "blocks."
    count = len({key.removeprefix(start).split(".")[0] for key in state if key.startswith(start)})
    if stem is not None and stem.shape[1] == 3:
        width, patch = stem.shape[0], stem.shape[2]
    elif table is not None:
        width, patch = table.shape[-1], _HYBRID_PATCH
    else:
        return None
    prefix = 1 if own or _TRUNK + "cls_token" in state else 0
    return TowerSize(kind, width, count, patch, 0 if table is None else _grid(table, prefix))


def _stages(kind: str, state: Mapping[str, Tensor]) -> TowerSize | None:
    """Size of a pyramid of convolutions."""
    start = _TRUNK + "stages."
    numbers = {
        tuple(key.split(".")[3:6:2]) for key in state if key.startswith(start) and ".blocks." in key
    }
    head = state.get(_TRUNK + "head.fc.weight", state.get(_TRUNK + "head.norm.weight"))
    if not numbers or head is None:
        return None
    return TowerSize(kind, head.shape[-1], len(numbers), 32, 0)


def _grid(table: Tensor, prefix: int) -> int:
    """Side of a square grid from its position table.

    Its first row may be no location; a tower with a class token may have a table without one.
    """
    rows = table.shape[-2]
    sides = [round((rows - out) ** 0.5) for out in (prefix, 0)]
    exact = [side for side, out in zip(sides, (prefix, 0), strict=True) if side**2 == rows - out]
    return int((exact or sides)[0])
