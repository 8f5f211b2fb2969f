"""Talk2DINO from its official files: a DINOv2, a CLIP and the map between. Takes three seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from mmclipdis.clip.weights.activation_mark import check_activation
from mmclipdis.models import CLIPViT, OpenCLIPTextEncoder, OpenVocabSegmentor

DINO = "vit_base_patch14_reg4_dinov2"
SIZES = dict(embed_dim=48, depth=3, num_heads=3, img_size=56)
TEXT = dict(context_length=24, vocab_size=49408, width=16, heads=2, layers=2)
ARCH: dict[str, Any] = dict(
    embed_dim=48,
    quick_gelu=True,
    vision_cfg=dict(timm_model_name=DINO, timm_pool="", timm_proj="none", timm_model_kwargs=SIZES),
    text_cfg=dict(TEXT, house_model="talk2dino", clip_embed_dim=8),
)
PROMPTS = ["a {}.", "itap of a {}.", "a photo of the large {}."]
NAMES = ["cat", "a long dog", "sky"]


def randomised(module: Any, seed: int) -> Any:
    generator = torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module.eval().requires_grad_(False)


def clip() -> Any:
    """The CLIP, whose image tower Talk2DINO leaves out."""
    vision = open_clip.CLIPVisionCfg(layers=1, width=32, head_width=16, patch_size=8, image_size=32)
    return randomised(open_clip.CLIP(8, vision, open_clip.CLIPTextCfg(**TEXT), quick_gelu=True), 1)


def official_dino() -> dict[str, Tensor]:
    """Weights under the names of DINOv2, whose table has a row for CLS."""
    state = randomised(CLIPViT(arch=ARCH, init_cfg=None).tower.visual.trunk, 2).state_dict()
    row = torch.full((1, 1, 48), 0.1)
    state["cls_token"] = state["cls_token"] - row
    state["pos_embed"] = torch.cat([row, state["pos_embed"]], dim=1)
    state["register_tokens"] = state.pop("reg_token")
    return {**state, "mask_token": torch.zeros(1, 48)}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    learned = {"linear_layer": torch.nn.Linear(8, 48), "hidden_layers.0": torch.nn.Linear(48, 48)}
    content = {
        "dino": official_dino(),
        # the last three only OpenAI's archives have, which were trained with QuickGELU
        "clip": clip().state_dict()
        | dict.fromkeys(("input_resolution", "context_length", "vocab_size"), torch.tensor(1)),
        "map": {
            f"{name}.{leaf}": value
            for name, layer in learned.items()
            for leaf, value in randomised(layer, 3).state_dict().items()
        },
    }
    for name, state in content.items():
        torch.save(state, tmp_path / f"{name}.pth")
    return {name: str(tmp_path / f"{name}.pth") for name in content}


def source(files: dict[str, str], *names: str) -> dict[str, Any]:
    return dict(type="Pretrained", checkpoint=[files[name] for name in names])


def test_the_text_is_clips_mean_mapped_to_dinos_space(files: dict[str, str]) -> None:
    encoder = OpenCLIPTextEncoder(ARCH, init_cfg=source(files, "clip", "map"), cache_dir=False)
    encoder.init_weights()
    theirs, psi = clip(), torch.load(files["map"])
    ids = open_clip.tokenizer.SimpleTokenizer()([p.format("cat") for p in PROMPTS], 24)
    t = theirs.encode_text(ids).mean(0)
    t = torch.tanh(psi["linear_layer.weight"] @ t + psi["linear_layer.bias"])
    t = psi["hidden_layers.0.weight"] @ t + psi["hidden_layers.0.bias"]
    head = MODELS.build(
        dict(type="CosineSegHead", text_encoder=encoder, vocabulary=NAMES, templates=PROMPTS)
    )
    torch.testing.assert_close(head.embeddings()[0], F.normalize(t, dim=0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("together", [True, False])
def test_official_files_segment(files: dict[str, str], together: bool) -> None:
    """One list of all three for both encoders, or to each its own."""
    every = source(files, "dino", "clip", "map")
    image = every if together else source(files, "dino")
    text = every if together else source(files, "clip", "map")
    backbone = dict(type="CLIPViT", arch=ARCH, init_cfg=image)
    encoder = dict(type="OpenCLIPTextEncoder", arch=ARCH, init_cfg=text, cache_dir=False)
    model = OpenVocabSegmentor(
        backbone=backbone,
        decode_head=dict(
            type="CosineSegHead", text_encoder=encoder, vocabulary=NAMES, templates=PROMPTS
        ),
        test_cfg=dict(mode="whole"),
    ).eval()
    photo = torch.randn(1, 3, 56, 56, generator=torch.manual_seed(0))
    (result,) = model.predict(photo)
    trunk: Any = randomised(CLIPViT(arch=ARCH, init_cfg=None).tower.visual.trunk, 2)
    patches = trunk.forward_features(photo)[0, 5:]
    features = model.backbone(photo)[0]
    torch.testing.assert_close(features[0].flatten(1).T, patches, atol=1e-4, rtol=1e-4)
    naive = F.normalize(patches, dim=1) @ model.decode_head.embeddings().T
    scores = model.decode_head.scores(features)[0].flatten(1).T / model.decode_head.logit_scale
    torch.testing.assert_close(scores, naive, atol=1e-5, rtol=0)
    assert result.pred_sem_seg.data.shape == (1, 56, 56)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["clip"],
            r"missing: hidden_layers.*; give the file of Talk2DINO's map from CLIP, too: ch",
        ),
        (["map"], r"does not fit .*; give the file of CLIP, too: checkpoint=\[CLIP, MAP\]"),
        (["dino"], "holds no text tower; give the file of the text tower"),
        (["dino", "map"], "give the file of CLIP, too"),
    ],
)
def test_the_file_that_is_missing_is_named(
    files: dict[str, str], names: list[str], message: str
) -> None:
    encoder = OpenCLIPTextEncoder(ARCH, init_cfg=source(files, *names))
    with pytest.raises(ValueError, match=message) as error:
        encoder.init_weights()
    assert "\n" not in str(error.value)


def test_maps_without_a_dino_are_refused(files: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="holds no image tower; give the file of the image tower"):
        CLIPViT(arch=ARCH, init_cfg=source(files, "clip", "map")).init_weights()


def test_a_clip_of_another_activation_is_no_clip_of_talk2dino() -> None:
    """There is no other arch to point to."""
    message = "w.pt was trained with GELU, but 'Talk2DINO-B-14' .* give weights trained with QuickG"
    with pytest.raises(ValueError, match=message):
        check_activation(False, True, "Talk2DINO-B-14", "w.pt")
