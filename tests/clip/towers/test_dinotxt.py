"""dino.txt's image tower (encoders spec 3.6, 7). The file takes about 3 s."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.dinotxt import DinoTxtHead, DinoTxtViT, HeadBlock
from mmclipdis.clip.towers.pools import ClsMeanPool
from mmclipdis.clip.towers.readout import get_readout
from mmclipdis.clip.weights.loading import load_image_tower


def tiny_arch(trunk: str = "vit_large_patch16_dinov3", **head: Any) -> dict[str, Any]:
    vision = dict(
        timm_model_name=trunk,
        image_size=64,
        head=dict(blocks=2, heads=3) | head,
        timm_model_kwargs=dict(embed_dim=48, depth=3, num_heads=3),
    )
    return dict(embed_dim=96, vision_cfg=vision, text_cfg={})


def random_tower(**arch: Any) -> DinoTxtViT:
    tower = build_image_tower(tiny_arch(**arch)).double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in tower.parameters():
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = 0.2 * values
    assert isinstance(tower, DinoTxtViT)
    return tower


def filled_head() -> DinoTxtHead:
    """Rule F of the spec on two blocks of width 4, as its golden values are computed."""
    head = DinoTxtHead(4, blocks=0)
    head.blocks.extend(HeadBlock(4, 2, align=1, mlp_ratio=1.5) for _ in range(2))
    head.double()
    norms = {n for n, m in head.named_modules() if isinstance(m, nn.LayerNorm)}
    for j, (name, parameter) in enumerate(sorted(head.named_parameters())):
        n = torch.arange(parameter.numel(), dtype=torch.float64)
        fill = 0.5 * torch.sin(0.7 * n + 1.3 * j + 0.1)
        module, _, leaf = name.rpartition(".")
        fill = 1 + 0.2 * fill if module in norms and leaf == "weight" else fill
        parameter.data = fill.view_as(parameter)
    return head


def test_golden_head() -> None:
    """CLS, 4 registers and 3 patches through two blocks and the final norm."""
    i, c = torch.arange(8.0).double()[:, None], torch.arange(4.0).double()
    x = (0.3 * i - 0.2 * c + 0.05 * i * c)[None]
    head = filled_head()
    with torch.no_grad():
        for block in head.blocks:
            x = block(x)
        y = head.ln_final(x)[0]
    wanted = [
        [1.600159, -1.128220, 0.677837, -0.191767],
        [1.465058, -1.173532, 0.756321, -0.110196],
        [1.278716, -1.194045, 0.898673, -0.069926],
    ]
    torch.testing.assert_close(y[5:], torch.tensor(wanted).double(), rtol=0, atol=6e-7)
    embedding = torch.cat([y[0], y[5:].mean(dim=0)])
    wanted_embedding = torch.tensor(
        [1.987950, -0.890134, -0.074445, -0.008903, 1.447978, -1.165266, 0.777610, -0.123963]
    )
    torch.testing.assert_close(embedding, wanted_embedding.double(), rtol=0, atol=6e-7)


@pytest.mark.parametrize("trunk", ["dinov3", "dinov2"])
@pytest.mark.parametrize("grad", [True, False])
def test_the_tower_is_trunk_and_head_one_after_the_other(trunk: str, grad: bool) -> None:
    if trunk == "dinov2":  # patches of 14, of which 56 px are four
        arch = tiny_arch("vit_base_patch14_reg4_dinov2")
        arch["vision_cfg"]["image_size"] = 56
        tower = build_image_tower(arch).double().eval()
        images = torch.randn(2, 3, 56, 56, dtype=torch.float64)
    else:
        tower = random_tower()
        images = torch.randn(2, 3, 48, 80, dtype=torch.float64)
    with torch.set_grad_enabled(grad):
        features = tower.forward_dense(images, get_readout("vanilla"), with_cls=True)
        embedding = tower.encode_image(images)
        y = tower.visual.trunk.forward_features(images)
        for block in tower.visual.head.blocks:
            y = block(y)
        y = tower.visual.head.ln_final(y)
    wanted = torch.cat([y[:, 0], y[:, 5:].mean(dim=1)], dim=1)
    torch.testing.assert_close(embedding, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(features.cls, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(features.map.flatten(2).mT, y[:, 5:], rtol=0, atol=1e-12)
    width = tower.width
    mean = features.map.mean(dim=(2, 3))
    torch.testing.assert_close(embedding[:, width:], mean, rtol=0, atol=1e-12)


def test_blocks_without_scale_leave_the_norm_alone() -> None:
    tower = random_tower()
    for block in tower.visual.head.blocks:
        block.gamma_1.data.zero_()
        block.gamma_2.data.zero_()
    images = torch.randn(1, 3, 48, 80, dtype=torch.float64)
    with torch.no_grad():
        found = tower.forward_dense(images, get_readout("vanilla")).map.flatten(2).mT
        tokens: Tensor = tower.visual.head.ln_final(tower.visual.trunk.forward_features(images))
    torch.testing.assert_close(found, tokens[:, 5:], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("width", "hidden"), [(64, 192), (384, 1024), (768, 2048), (1024, 2752)])
def test_hidden_widths(width: int, hidden: int) -> None:
    with torch.device("meta"):
        assert HeadBlock(width, 1).mlp.fc2.in_features == hidden


def test_intermediates_of_the_trunk_are_behind_its_blocks() -> None:
    """The last block of the trunk is followed by the trunk's norm, the others are not."""
    tower = random_tower()
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        found = tower.forward_blocks(images, (1, 2))
        _, raw = tower.visual.trunk.forward_intermediates(images, indices=[1], norm=False)
    torch.testing.assert_close(found[0], raw[0], rtol=0, atol=1e-12)
    normed = tower.visual.trunk.forward_features(images)[:, 5:].mT.unflatten(2, (4, 4))
    torch.testing.assert_close(found[1], normed, rtol=0, atol=1e-12)


def test_other_readouts_act_on_the_last_block_of_the_head() -> None:
    tower = random_tower()
    assert isinstance(tower.pool, ClsMeanPool)
    assert tower.depth == 5
    images = torch.randn(1, 3, 48, 80, dtype=torch.float64)
    with torch.no_grad():
        x = tower.visual.trunk.forward_features(images)
        x = tower.visual.head.blocks[0](x)
        block = tower.visual.head.blocks[1]
        value = block.attn.qkv(block.norm1(x))[..., -48:]
        a = x + block.gamma_1 * block.attn.proj(value)
        a = a + block.gamma_2 * block.mlp(block.norm2(a))
        wanted = tower.visual.head.ln_final(a)[:, 5:]
        found = tower.forward_dense(images, get_readout("maskclip")).map.flatten(2).mT
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("head", [dict(blocks=0), dict(heads=2.0), dict(depth=2)])
def test_other_fields_of_the_head_are_refused(head: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give blocks and heads, numbers above 0"):
        build_image_tower(tiny_arch(**head))


def test_the_published_files_of_backbone_and_head_make_the_tower(tmp_path: Path) -> None:
    tower = random_tower()
    new = dict(gamma_1="ls1.gamma", gamma_2="ls2.gamma", fc1_g="w1", fc1_x="w2")
    new["reg_token"] = "storage_tokens"
    files: dict[str, dict[str, Tensor]] = {"backbone": {}, "head": {}}
    for key, value in tower.state_dict().items():
        in_head = key.startswith("visual.head.")
        for own, theirs in (new | (dict(fc2="w3") if in_head else {})).items():
            key = key.replace(own, theirs)
        key = key.replace("visual.head.", "visual_model.head.").removeprefix("visual.trunk.")
        files["head" if in_head else "backbone"][key] = value
    paths = [str(tmp_path / f"{name}.pth") for name in files]
    for path, state in zip(paths, files.values(), strict=True):
        torch.save(state, path)
    loaded = build_image_tower(tiny_arch()).double()
    load_image_tower(loaded, tiny_arch(), paths)
    for mine, theirs in zip(loaded.parameters(), tower.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(ValueError, match="give the file of its head, too"):
        load_image_tower(loaded, tiny_arch(), paths[0])
