"""The shipped weight file of the tiny CLIP: half precision, compact token embeddings."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save

from mmclipdis.clip.text.encoder import TextTower, build_text_tower
from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.image_tower import ImageTower
from mmclipdis.clip.weights.loading import (
    load_image_tower,
    load_text_transformer,
    model_config,
)
from mmclipdis.clip.weights.tags import MODEL_CONFIGS
from mmclipdis.engine.checkpoint_io import read_checkpoint
from mmclipdis.utils.finite import check_writable
from mmclipdis.utils.whole_files import write_bytes

ARCH = "shapes-tiny"
WEIGHTS_PATH = MODEL_CONFIGS / f"{ARCH}.safetensors"


def export_run(checkpoint: Path, path: Path) -> None:
    """Turns the checkpoint of a pretraining run into the shipped form, float16 safetensors.

    The names are open_clip's. ``token_embedding.weight`` ``(V, W)`` becomes
    ``token_embedding.ids`` ``(V,)`` int64, the ids of its rows in the standard vocabulary, and
    ``token_embedding.rows`` ``(V, W)``. The header tells the recipe and the activation.
    Raises FileNotFoundError without a checkpoint.
    """
    run = read_checkpoint(checkpoint)
    state = {name: value.to(torch.float16).contiguous() for name, value in run["model"].items()}
    state["token_embedding.rows"] = state.pop("token_embedding.weight")
    state["token_embedding.ids"] = run["ids"].to(torch.int64)
    metadata = {
        "arch": ARCH,
        "quick_gelu": str(bool(model_config(ARCH)["quick_gelu"])).lower(),
        "recipe": run["recipe"],
        "steps": str(run["step"]),
        "data": "ShapeScenes image-caption pairs (mmclipdis/shapes/pairs.py)",
        "made_by": "tools/pretrain_shapes_clip.py",
    }
    check_writable(state.items(), path)
    write_bytes(path, save(state, metadata=metadata))


def load_towers(weights: Path = WEIGHTS_PATH) -> tuple[ImageTower, TextTower]:
    """Image and text tower of the tiny CLIP, in eval mode and float32.

    Raises FileNotFoundError or ValueError as
    :func:`mmclipdis.clip.weights.loading.read_clip_checkpoint`.
    """
    image, text = build_image_tower(ARCH), build_text_tower(ARCH)
    load_image_tower(image, ARCH, weights)
    load_text_transformer(text.text, ARCH, weights)
    return image.eval(), text.eval()
