"""Towers of a few thousand parameters of the same family, and random weights for them in files.

A tiny tower keeps what configs and readouts count on: blocks, patch, prefix, kind of positions and
of pooling, activation, statistics. Its width, its native grid and the text tower behind it shrink.
It depends on the name of the arch alone and its weights on the arch and their source, so that what
one config trains fits what another one tests.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch

from mmclipdis.clip.text.tokenizer_files import family_of
from mmclipdis.clip.towers.build import build_image_tower, build_text_transformer
from mmclipdis.clip.towers.resnet import build_resnet_tower
from mmclipdis.clip.towers.vision_model import create, patch_size_of
from mmclipdis.clip.weights.loading import is_resnet, model_config
from mmclipdis.clip.weights.statistics import statistics_of
from mmclipdis.clip.weights.vfm import VFMS
from mmclipdis.models.projectors import Projectors
from mmclipdis.utils.whole_files import whole_file, write_text

#: Sides in whole patches are divided by this.
SHRINK = 8
#: Width of blocks, of the joint space where there is a projection, and of a ResNet's first stage.
WIDTH, JOINT, STEM = 32, 16, 4
_HEADS = 2
#: Pixels of a token of a CLIP ResNet's attention pool.
_RESNET_PATCH = 32
#: A vocabulary of single characters; whatever else a text holds is unknown.
_CHARACTERS = tuple(map(chr, range(33, 127)))


@dataclass(frozen=True)
class Scale:
    """How sides in pixels become those of a miniature: whole patches, some of them.

    Attributes:
        patch: Pixels a side of a patch.
        by: The number of patches a side is divided by this and rounded.
    """

    patch: int
    by: int = SHRINK

    def side(self, given: float, least: int = 1) -> int:
        """A side in pixels, of ``least`` patches or more."""
        return max(least, round(given / self.patch / self.by)) * self.patch

    def sides(self, given: Any, least: int = 1) -> Any:
        """The same of a list or tuple of sides, or of lists of them."""
        if isinstance(given, (list, tuple)):
            return type(given)(self.sides(side, least) for side in given)
        return self.side(given, least)


@contextmanager
def seeded(*words: Any) -> Iterator[None]:
    """Random numbers of torch that depend on these words alone; the caller's stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(repr(words).encode()))
        yield


@lru_cache(maxsize=64)
def patch_of(arch: str) -> int:
    """Pixels a side of a token of the image tower.

    Raises:
        ValueError: for an unknown arch.
    """
    config = model_config(arch)
    if is_resnet(config):
        return _RESNET_PATCH
    vision = config["vision_cfg"]
    if "timm_model_name" not in vision:
        return int(vision["patch_size"])
    name = vision["timm_model_name"]
    return patch_size_of(timm.create_model(name, **_tiny_trunk(name)))[0]


def tiny_arch(arch: str, source: Any = None) -> dict[str, Any]:
    """The config of a tiny CLIP of the same family, with the statistics that ``arch`` has.

    Args:
        arch: open_clip's config name.
        source: Tag or file of its weights, which may tell the statistics.

    Raises:
        ValueError: for an unknown arch.
    """
    config = json.loads(json.dumps(model_config(arch)))  # open_clip hands out its own
    vision, text = config["vision_cfg"], config["text_cfg"]
    patch, resnet = patch_of(arch), is_resnet(config)
    side = Scale(patch).side(vision["image_size"], least=2)
    vision["image_size"] = side
    config["embed_dim"] = JOINT
    if resnet:
        vision.update(layers=[1, 1, 1, 1], width=STEM)
    elif "timm_model_name" in vision:
        vision["timm_model_kwargs"] = _tiny_trunk(vision["timm_model_name"])
        if "head" not in vision:  # of dino.txt, whose builder takes it from image_size
            vision["timm_model_kwargs"]["img_size"] = side
        if "_pe_" in vision["timm_model_name"]:
            vision["timm_model_kwargs"]["ref_feat_shape"] = (side // patch, side // patch)
        if vision.get("timm_proj") == "none":
            config["embed_dim"] = WIDTH
    else:
        vision.update(width=WIDTH, head_width=WIDTH // _HEADS)
    if "head" in vision:  # dino.txt: CLS beside the mean of the patches
        vision["head"] = {**vision["head"], "heads": _HEADS}
        config["embed_dim"], text["dense_channels"] = 2 * WIDTH, WIDTH
    text.update(width=WIDTH, heads=_HEADS, layers=2)
    if text.get("hf_tokenizer_name"):
        text["vocab_size"] = len(_words(text["hf_tokenizer_name"]))
    known = statistics_of(arch, source if isinstance(source, str) else None)
    config["preprocess_cfg"] = dict(mean=list(known.mean), std=list(known.std))
    return config


def write_clip(arch: str, source: Any, folder: Path) -> Path:
    """A file of both towers of :func:`tiny_arch` in open_clip's layout, with random weights.

    Args:
        arch: open_clip's config name.
        source: What the config has as ``checkpoint``; a list of files becomes one.
        folder: Where the file goes.

    Returns:
        Its path; the name tells arch and source.
    """
    words = source if isinstance(source, (list, tuple)) else [source]
    stem = "+".join(Path(str(word)).stem for word in words)
    path = folder / f"{arch}_{stem}.pt"
    if path.is_file():
        return path
    tiny = tiny_arch(arch, source)
    with seeded(arch, stem):
        image = build_resnet_tower(tiny) if is_resnet(tiny) else build_image_tower(tiny)
        state = {**image.state_dict(), **build_text_transformer(tiny).state_dict()}
    state["logit_scale"] = torch.tensor(2.0)
    if "init_logit_bias" in tiny:
        state["logit_bias"] = torch.tensor(-1.0)
    return _save(state, path)


def write_tokenizer(arch: str, folder: Path) -> Path:
    """A ``tokenizer.json`` of characters with the special tokens of the family of ``arch``."""
    name = model_config(arch)["text_cfg"]["hf_tokenizer_name"]
    words = _words(name)
    model = dict(type="WordLevel", vocab={w: i for i, w in enumerate(words)}, unk_token="<unk>")
    cut = dict(type="Split", pattern=dict(Regex="."), behavior="Isolated", invert=False)
    empty: dict[str, Any] = dict.fromkeys(
        ("truncation", "padding", "normalizer", "post_processor", "decoder")
    )
    content = dict(version="1.0", added_tokens=[], pre_tokenizer=cut, model=model, **empty)
    path = folder / f"{Path(name).name}_tokenizer.json"
    write_text(path, json.dumps(content))
    return path


def tiny_vision_model(name: str) -> dict[str, Any]:
    """``model_kwargs`` that make a model of timm, or of ``VFMS``, tiny.

    Raises:
        ValueError: the model is not at hand for miniatures.
    """
    known = VFMS.get(name)
    timm_name = known.timm_name if known else name
    found = timm.get_pretrained_cfg(timm_name)
    if found is None or not timm_name.startswith(("vit_", "samvit_")):
        raise ValueError(f"no miniature of the vision model {name!r}; known are ViTs and SAM's")
    patch = known.patch_size if known else 16
    return _tiny_trunk(timm_name) | dict(img_size=Scale(patch).side(found.input_size[-1], least=2))


def write_vision_model(name: str, source: str, folder: Path) -> Path:
    """A file of :func:`tiny_vision_model` in timm's layout, with random weights."""
    path = folder / f"{name}_{Path(source).stem}.pt"
    if path.is_file():
        return path
    with seeded(name, Path(source).stem):
        state = create(name, VFMS.get(name), tiny_vision_model(name)).state_dict()
    return _save(state, path)


def write_projectors(arch: Mapping[str, Any], path: Path) -> Path:
    """A file of DCLIP's projectors with random weights for a tiny arch."""
    if not path.is_file():
        with seeded(path.name):
            state = Projectors(arch["embed_dim"], arch=dict(arch)).state_dict()
        _save(state, path)
    return path


def write_region_prompt(arch: Mapping[str, Any], path: Path) -> Path:
    """A file of CORA's prompt ``(C, S, S)`` with random values for a tiny ResNet."""
    channels, bins = 32 * STEM, arch["vision_cfg"]["image_size"] // _RESNET_PATCH
    with seeded(path.name):
        return _save({"prompt": 0.1 * torch.randn(channels, bins, bins)}, path)


def _tiny_trunk(timm_name: str) -> dict[str, Any]:
    """Arguments of a ViT of timm; MobileCLIP's stem has the width of its blocks, which stays."""
    if timm_name.startswith("vit_base_mci"):
        return dict(depth=1)
    return dict(embed_dim=WIDTH, num_heads=_HEADS)


def _words(name: str) -> list[str]:
    """The vocabulary of a family: its special tokens where they belong, then characters."""
    family = family_of(name)
    special = dict(family.ids) if family else {}
    size = max([*special.values(), family.pad if family else 0]) + 1
    at = {place: word for word, place in special.items()}
    first = [at.get(place, f"<{place}>") for place in range(size)]
    return [*first, "<unk>", *_CHARACTERS]


def _save(state: Mapping[str, Any], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        torch.save(dict(state), file)
    return path
