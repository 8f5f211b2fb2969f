"""The tiny vision foundation model (VFM) of ShapeScenes: a timm ViT, pretrained without labels.

Its patch features are alike within an object or ground and unlike across them, which is what
DeCLIP's context distillation asks of a teacher. :mod:`mmclipdis.shapes.vfm_pretrain` makes it,
:mod:`mmclipdis.shapes.vfm_eval` measures it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors.torch import save
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from mmclipdis.clip.weights.files import read_file
from mmclipdis.clip.weights.tags import PACKAGED
from mmclipdis.clip.weights.vfm import VFMS
from mmclipdis.engine.checkpoint_io import read_checkpoint
from mmclipdis.utils.finite import check_weights, check_writable
from mmclipdis.utils.whole_files import write_bytes

# Without a position embedding a patch is known by its looks and by what else is in the picture;
# with one the pretraining ends in telling places apart, also those of one ground.
MODEL = VFMS["shapes-vfm"]
MODEL_KWARGS: dict[str, Any] = dict(MODEL.kwargs, num_classes=0, dynamic_img_size=True)
PATCH = MODEL.patch_size  # pixels
WEIGHTS_PATH = PACKAGED["shapes-vfm", "shapes"]


def build_vfm() -> VisionTransformer:
    """The ViT with random weights."""
    return cast(VisionTransformer, timm.create_model(MODEL.timm_name, **MODEL_KWARGS))


def normalise(images: Tensor) -> Tensor:
    """``(B, 3, h, w)`` RGB in 0-1 -> the same with ImageNet's mean and deviation."""
    mean, std = (
        images.new_tensor(x).view(3, 1, 1) for x in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    return (images - mean) / std


def patch_features(model: VisionTransformer, images: Tensor) -> Tensor:
    """Patch tokens after the final norm: normalised ``(B, 3, H, W)`` to ``(B, C, h, w)``."""
    maps: Any = model.forward_intermediates(
        images, indices=1, norm=True, intermediates_only=True, output_fmt="NCHW"
    )
    return maps[-1]  # type: ignore[no-any-return]


def export_vfm(checkpoint: Path, path: Path) -> None:
    """Turns the checkpoint of a pretraining run into the shipped form, float16 safetensors.

    The header holds the timm model that the weights are for. Raises FileNotFoundError without a
    checkpoint.
    """
    run = read_checkpoint(checkpoint)
    state = {name: value.to(torch.float16).contiguous() for name, value in run["model"].items()}
    metadata = {
        "model_name": MODEL.timm_name,
        "model_kwargs": json.dumps(MODEL_KWARGS),
        "recipe": run["recipe"],
        "steps": str(run["step"]),
        "data": "ShapeScenes pictures, unlabelled (mmclipdis/shapes/vfm.py)",
        "made_by": "tools/pretrain_shapes_vfm.py",
    }
    check_writable(state.items(), path)
    write_bytes(path, save(state, metadata=metadata))


def load_vfm(weights: Path | str = WEIGHTS_PATH) -> VisionTransformer:
    """The ViT with the weights of an exported file, in eval mode and float32.

    Raises FileNotFoundError or ValueError when there is no such file or it is damaged.
    """
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; tools/pretrain_shapes_vfm.py makes them")
    state, _ = read_file(path)
    check_weights(state, str(path))
    model = build_vfm()
    model.load_state_dict({name: value.float() for name, value in state.items()})
    return model.eval()
