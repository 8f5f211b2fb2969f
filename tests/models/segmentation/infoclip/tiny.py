"""A tiny InfoCLIP, a batch for it, and what a loss of it reaches."""

from __future__ import annotations

import torch
from mmseg.registry import MODELS

import mmclipdis  # noqa: F401
from mmclipdis.engine.random_weights import take_as_meant
from tests.models.segmentation.catseg.test_segmentor import AGGREGATOR, ARCH, NAMES, QV, sample

ENCODER_PARTS = ("segmentor.image_encoder", "segmentor.text_encoder")


def catseg(**options):
    config = {
        "type": "CATSeg",
        "image_encoder": {"type": "CLIPViT", "arch": ARCH, "readout": "catseg", "trainable": QV},
        "text_encoder": {
            "type": "OpenCLIPTextEncoder",
            "arch": ARCH,
            "trainable": QV,
            "cache_dir": False,
        },
        "decode_head": {"type": "CATSegHead", "guidance_dims": (8, 4), "aggregator": AGGREGATOR},
        "vocabulary": list(NAMES),
        "clip_size": (48, 48),
        "guidance_indices": (0, 1),
        "test_cfg": {"mode": "whole"},
    }
    return {**config, **options}


def build(segmentor=None, **options):
    torch.manual_seed(0)
    model = MODELS.build({"type": "InfoCLIP", "segmentor": segmentor or catseg(), **options})
    take_as_meant(model)
    model.init_weights()
    return model


def batch(count=2, dtype=torch.float32):
    torch.manual_seed(1)
    return torch.randn(count, 3, 48, 48, dtype=dtype), [sample(48, 48) for _ in range(count)]


def drift(model):
    """As if the student had trained: off its start, where mse and kl have no gradient."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.segmentor.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    return model


def reached(model, loss):
    """Names of the parts that get a gradient from ``loss``."""
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    names = [n for n, g in zip(named, found, strict=True) if g is not None and bool(g.any())]
    return {".".join(n.split(".")[:2]) if n.startswith("seg") else "lpam" for n in names}
