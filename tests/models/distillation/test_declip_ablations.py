"""What a row of DeCLIP's tables varies reaches the model that is built (10 s).

``test_declip_configs.py`` trains every one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from tests.models.distillation.test_declip_configs import shrunk
from tests.paths import ROOT
from tests.words import config_of

FOLDER = ROOT / "configs" / "declip"
BASE = FOLDER / "distill_vitb16_eva_dinov2_coco.py"


def terms(model: Any) -> tuple[str, ...]:
    return tuple(model.student.readout.attention)


def tuned(config: Config) -> set[int]:
    """Blocks that the full-size student tunes."""
    with torch.device("meta"):
        student = MODELS.build({**config.model.student, "init_cfg": None})
    names = [name for name, p in student.named_parameters() if p.requires_grad]
    return {int(name.split("blocks.")[1].split(".")[0]) for name in names}


#: Name of a config -> what holds of its model, and not of the base's.
ROWS: dict[str, Callable[[Any], bool]] = {
    "table1_content_only": lambda m: m.context_loss is None and not len(m.vfms),
    "table1_one_feature": lambda m: m.context_from == "map" and terms(m) == ("qk",),
    "table7_k": lambda m: terms(m) == ("kk",) and m.student.readout.context == ("k",),
    "table7_q": lambda m: terms(m) == ("qq",) and m.student.readout.context == ("q",),
    "table11_context0.1": lambda m: m.context_loss.loss_weight == 0.1,
    "table11_context0.2": lambda m: m.context_loss.loss_weight == 0.2,
    "table11_context0.3": lambda m: m.context_loss.loss_weight == 0.3,
}


def build(path: Any, folder: Any) -> Any:
    config = shrunk(path, folder)
    config.model.region_classifier = None
    return MODELS.build(config.model)


@pytest.mark.parametrize("name", ROWS)
def test_what_a_row_varies_reaches_the_model(name: str, tmp_path: Any) -> None:
    assert not ROWS[name](build(BASE, tmp_path))
    assert ROWS[name](build(FOLDER / "ablations" / f"{name}.py", tmp_path))


def test_the_base_is_the_row_of_both_queries_and_keys_and_of_a_quarter(tmp_path: Any) -> None:
    model = build(FOLDER / "ablations" / "table7_qk.py", tmp_path)
    assert terms(model) == ("qq", "kk") and set(model.student.readout.context) == {"q", "k"}
    assert build(BASE, tmp_path).context_loss.loss_weight == 0.25


@pytest.mark.parametrize("count", [3, 6, 9, 12])
def test_table_8_tunes_as_many_blocks_as_it_says(count: int) -> None:
    path = BASE if count == 12 else FOLDER / "ablations" / f"table8_last{count}.py"
    assert tuned(Config.fromfile(path)) == set(range(12 - count, 12))


@pytest.mark.parametrize("name", ["dino-b8", "dino-b16", "dinov2-l", "sam-b", "sam-l"])
def test_table_6_has_the_teacher_of_its_name(name: str) -> None:
    config = Config.fromfile(FOLDER / "ablations" / f"table6_{name}.py")
    assert [vfm.model.lower() for vfm in config.model.vfms] == [
        {"dino-b8": "dino-b-8", "dino-b16": "dino-b-16"}.get(name, name)
    ]


def test_table_12_differs_by_the_clip_alone() -> None:
    ours, theirs = (
        Config.fromfile(FOLDER / f"distill_vitb16_{clip}_dinov2_coco.py")
        for clip in ("eva", "openai")
    )
    assert (ours.model.student.arch, theirs.model.student.arch) == (
        "EVA02-B-16",
        "ViT-B-16-quickgelu",
    )
    for config in (ours, theirs):
        for encoder in (config.model.student, config.model.region_classifier.text_encoder):
            for key in ("arch", "init_cfg"):
                encoder.pop(key)
        # OpenAI's attention is scaled and its tokens are of unit length in the released code
        assert config.model.student.readout.pop("scale") == ("none" if config is ours else "sqrt")
        config.model.student.pop("type")
    assert ours.model.to_dict() == theirs.model.to_dict()


#: Words for configs/shapes/declip_distill.py -> what holds of its model.
WORDS: dict[str, Callable[[Any], bool]] = {
    "model.context_loss=None model.vfms=[] "
    "train_dataloader.dataset.pipeline.1.proxy_sizes=()": lambda m: m.context_loss is None,
    "model.context_from=map": lambda m: m.context_from == "map",
    "model.context_loss.loss_weight=0.1": lambda m: m.context_loss.loss_weight == 0.1,
    "model.student.trainable=(blocks,3)": lambda m: (
        {name.split("blocks.")[1][0] for name, p in m.student.named_parameters() if p.requires_grad}
        == {"1", "2", "3"}
    ),
    "model.student.readout=qq": lambda m: terms(m) == ("qq",),
    "model.student.readout=kk": lambda m: terms(m) == ("kk",),
}


@pytest.mark.parametrize("words", WORDS)
def test_the_words_for_shape_scenes_reach_the_model(words: str) -> None:
    usual, varied = (
        MODELS.build({**config_of("shapes/declip_distill", w).model, "region_classifier": None})
        for w in ("", words)
    )
    assert WORDS[words](varied) and not WORDS[words](usual)
