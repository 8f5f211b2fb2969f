"""The configs of CAT-Seg at a size that a test can run."""

from __future__ import annotations

from mmengine.config import ConfigDict


def shrink_model(model: ConfigDict, patch: int) -> None:
    """Give a CATSeg config a tiny CLIP of this patch size, and a narrow aggregator."""
    depth = max(model.guidance_indices) + 2
    arch = {
        "embed_dim": 12,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 2 * patch,
            "layers": depth,
            "width": 16,
            "head_width": 8,
            "patch_size": patch,
        },
        "text_cfg": {
            "context_length": 20,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
        },
    }
    if model.image_encoder.arch.startswith("EVA02"):
        trunk = dict(img_size=2 * patch, patch_size=patch, embed_dim=16, depth=depth, num_heads=2)
        arch["vision_cfg"] = {
            "timm_model_name": "eva02_base_patch16_clip_224",
            "timm_pool": "token",
            "timm_proj": None,
            "timm_model_kwargs": trunk,
        }
    for encoder in ("image_encoder", "text_encoder"):
        model[encoder].pop("init_cfg")
        model[encoder].pop("arch")
        model[encoder].arch = arch
    narrow = {
        "hidden_dim": 16,
        "num_heads": 2,
        "guidance_proj_dims": (4, 4),
        "decoder_dims": (16, 8),
        "pad_len": 200,
    }
    model.decode_head.aggregator.update(narrow)
    model.decode_head.guidance_dims = (8, 4)
    model.clip_size = (4 * patch, 4 * patch)
    model.data_preprocessor.size = (64, 64)
    model.test_cfg.update(size=(80, 80), crop_size=(64, 64), stride=(16, 16))


def shrink_data(config, root):
    """Let a config of training and testing read images of about 100 pixels under ``root``."""
    sizes = {"ResizeShortestEdgePIL": {"scale": 64}, "RandomCrop": {"crop_size": (64, 64)}}
    sizes["Pad"] = {"size": (64, 64)}
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(root)
        for transform in loader.dataset.pipeline:
            transform.update(sizes.get(transform.type, {}))
