"""Every family is told by its weights, as by its config (6 s, most of them timm's building)."""

from __future__ import annotations

import re
from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip.model import _build_vision_tower

from mmclipdis.clip.weights.loading import model_config
from mmclipdis.clip.weights.tower_size import _KNOWN, TowerSize, kind_of_arch, remedy, tower_size

SIZES = {
    "ViT-B-16-SigLIP2-512": ("SigLIP", 768, 12, 16, 32),
    "ViT-SO400M-14-SigLIP-384": ("SigLIP", 1152, 27, 14, 27),
    "ViT-B-32-SigLIP2-256": ("SigLIP", 768, 12, 32, 8),
    "PE-Core-T-16-384": ("PE", 192, 12, 16, 24),
    "PE-Core-bigG-14-448": ("PE", 1536, 50, 14, 32),
    "MobileCLIP-B": ("MobileCLIP", 768, 12, 16, 14),
    "MobileCLIP-S1": ("MobileCLIP", 1024, 40, 32, 0),
    "MobileCLIP2-L-14": ("timm CLIP", 1024, 24, 14, 16),
    "ViTamin-S": ("ViTamin", 384, 14, 16, 14),
    "convnext_tiny": ("ConvNeXt", 768, 18, 32, 0),
    "ViT-L-14-CLIPA-336": ("CLIPA", 1024, 24, 14, 24),
    "coca_ViT-B-32": ("CoCa", 768, 12, 32, 7),
    "EVA02-B-16": ("EVA-CLIP", 768, 12, 16, 14),
    "EVA01-g-14": ("EVA-CLIP", 1408, 40, 14, 16),
    "vit_medium_patch16_gap_256": ("timm", 512, 12, 16, 16),
    "ViT-B-16": ("OpenAI-style", 768, 12, 16, 14),
}
TRUNKS = {
    "vit_base_patch14_reg1_tipsv2": ("TIPS", 768, 12, 14, 32),
    "vit_base_patch14_reg4_dinov2": ("DINOv2", 768, 12, 14, 37),
    "vit_base_patch16_dinov3": ("DINOv3", 768, 12, 16, 0),
    "vit_base_patch16_dinov3_qkvb": ("DINOv3", 768, 12, 16, 0),
}


def on_meta(arch: str) -> dict[str, Any]:
    config = model_config(arch)
    with torch.device("meta"):
        cfg = open_clip.CLIPVisionCfg(**config["vision_cfg"])
        tower = _build_vision_tower(config["embed_dim"], cfg, False)
    return {"visual." + key: value for key, value in tower.state_dict().items()}


@pytest.mark.parametrize("arch", sorted(SIZES))
def test_the_family_is_told_by_the_weights_and_by_the_config(arch: str) -> None:
    size = tower_size(on_meta(arch))
    assert size == SIZES[arch]
    assert kind_of_arch(model_config(arch)) == SIZES[arch][0]


@pytest.mark.parametrize("name", sorted(TRUNKS))
@pytest.mark.parametrize("head", [False, True])
def test_the_family_of_a_dino_is_told_by_its_registers_and_head(name: str, head: bool) -> None:
    with torch.device("meta"):
        trunk = timm.create_model(name, num_classes=0)
    state = {"visual.trunk." + key: value for key, value in trunk.state_dict().items()}
    state |= {"visual.head.ln_final.weight": torch.ones(768)} if head else {}
    kind, *rest = TRUNKS[name]
    assert tower_size(state) == ("dino.txt" if head else kind, *rest)
    config = {"vision_cfg": {"timm_model_name": name, **({"head": {"blocks": 2}} if head else {})}}
    assert kind_of_arch(config) == ("dino.txt" if head else kind)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (("SigLIP", 768, 12, 16, 24), "a SigLIP ViT .* 24 x 24 .*as ViT-B-16-SigLIP2-384"),
        (("PE", 768, 12, 16, 14), "a PE ViT of width 768 .*as PE-Core-B-16"),
        (("DINOv3", 768, 12, 16, 0), "patches of 16 px and no table of positions$"),
        (("MobileCLIP", 1024, 40, 32, 0), "^a MobileCLIP of width 1024 with 40 blocks$"),
        (("EVA-CLIP", 9, 3, 4, 4), "^an EVA-CLIP ViT of width 9 with 3 blocks, patches of 4 px"),
    ],
)
def test_a_size_says_what_it_is(size: tuple[Any, ...], text: str) -> None:
    assert re.search(text, str(TowerSize(*size)))


def test_the_arch_to_choose_is_one_of_open_clip_or_the_house() -> None:
    house = ("TIPSv2-", "dinotxt-", "Talk2DINO-")
    assert all(a in open_clip.list_models() or a.startswith(house) for a in _KNOWN.values())
    assert remedy(TowerSize("SigLIP", 768, 12, 16, 24)) == (
        "choose arch='ViT-B-16-SigLIP2-384' ('ViT-B-16-SigLIP-384' for weights of SigLIP 1), or a "
        "file of this arch"
    )
    assert "SigLIP 1" not in remedy(TowerSize("SigLIP", 768, 12, 32, 8))
