from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from safetensors.torch import save_file

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.models.text_encoder import (
    OpenCLIPTextEncoder,
    build_vocabulary,
    dataset_classes,
)
from tests.tiny import tiny_arch


def words_arch() -> dict[str, Any]:
    """The tiny CLIP with a token table that fits the real tokenizer."""
    arch = tiny_arch()
    arch["text_cfg"]["vocab_size"] = 49408
    return arch


def build(**options: Any) -> OpenCLIPTextEncoder:
    cfg = dict(type="OpenCLIPTextEncoder", arch=words_arch(), cache_dir=False, progress=False)
    return MODELS.build({**cfg, **options})


def test_is_built_from_the_root_registry_and_frozen_by_default() -> None:
    encoder = build()
    assert isinstance(encoder, OpenCLIPTextEncoder)
    assert (encoder.embed_dim, encoder.context_length) == (32, 16)
    assert not any(p.requires_grad for p in encoder.parameters())


def test_embeds_a_vocabulary_and_encodes_tokens() -> None:
    encoder = build()
    vocabulary = Vocabulary.from_names([["cat", "kitty"], "dog"], "single")
    out = encoder.embed(vocabulary)
    tokens = encoder.tokenize([p[0] for p in vocabulary.prompts()])
    plain = torch.nn.functional.normalize(encoder(tokens), dim=1)
    assert out.shape == (3, 32)
    torch.testing.assert_close(out, plain)
    torch.testing.assert_close(encoder.encode(tokens), encoder(tokens))


def test_options_reach_the_cache_and_the_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # bars are for terminals
    build(cache_dir=str(tmp_path), progress=True, batch_size=1).embed(
        Vocabulary.from_names(["cat", "dog"], "single")
    )
    assert len(list(tmp_path.iterdir())) == 1
    assert "text embeddings" in capsys.readouterr().err


def test_only_q_and_v_matrices_are_trained_when_asked() -> None:
    encoder = build(trainable=["q", "v"])
    trained = [n for n, p in encoder.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 2  # two blocks
    assert all(n.endswith(("q_proj_weight", "v_proj_weight")) for n in trained)
    encoder(encoder.tokenize(["a cat"])).sum().backward()
    assert all(dict(encoder.named_parameters())[n].grad.abs().sum() > 0 for n in trained)
    with pytest.raises(ValueError, match="trainable"):
        build(trainable=["bias"])


@pytest.mark.parametrize("trainable", [(), ("q", "v")])
def test_weights_come_from_init_cfg_and_not_in_the_constructor(
    tmp_path: Path, trainable: tuple[str, ...]
) -> None:
    source = build()
    path = tmp_path / "clip.safetensors"
    save_file(source.tower.text.state_dict(), path)
    init_cfg = dict(type="Pretrained", checkpoint=str(path))
    encoder = build(init_cfg=init_cfg, trainable=trainable)
    tokens = encoder.tokenize(["a cat"])
    own, stored = (part.tower.text.token_embedding.weight for part in (encoder, source))
    assert not torch.equal(own, stored)
    encoder.init_weights()
    assert torch.equal(own, stored)
    torch.testing.assert_close(encoder(tokens), source(tokens))
    build(init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "missing.pt")))  # no read
    with pytest.raises(FileNotFoundError, match=r"missing\.pt"):
        build(
            init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "missing.pt"))
        ).init_weights()


def test_init_weights_loads_once_and_leaves_random_weights_alone(tmp_path: Path) -> None:
    encoder = build()
    before = encoder.tower.text.positional_embedding.clone()
    encoder.init_weights()
    assert torch.equal(encoder.tower.text.positional_embedding, before)
    with pytest.raises(ValueError, match="type='Pretrained'"):
        build(init_cfg=dict(type="Normal", layer="Linear")).init_weights()


# build_vocabulary


@pytest.mark.parametrize("cfg", [None, "dataset"])
def test_none_and_dataset_mean_follow_the_data(cfg: Any) -> None:
    assert build_vocabulary(cfg) is None


def test_every_source_gives_its_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("cat, kitty\ndog\n")
    ready = Vocabulary.from_names(["cat"], "single")
    assert build_vocabulary(ready, "catseg") is ready
    assert build_vocabulary(["cat", ["dog", "puppy"]]).names == (("cat",), ("dog", "puppy"))
    assert build_vocabulary(str(path)).names == (("cat", "kitty"), ("dog",))
    assert build_vocabulary(path).num_classes == 2
    assert build_vocabulary("voc21").background_index == 0
    assert build_vocabulary(dict(file=path, separator=None)).queries == ("cat, kitty", "dog")
    assert build_vocabulary(dict(names=["a, b"], separator=", ", first_only=True)).queries == ("a",)
    assert build_vocabulary(ConfigDict(bundled="voc20")).num_classes == 20


@pytest.mark.parametrize("name", ["ADE20KDataset", "mmseg.ADE20KDataset"])
def test_a_registered_data_set_gives_its_own_names(name: str) -> None:
    pytest.importorskip("mmseg")
    vocabulary = build_vocabulary(name)
    assert vocabulary == build_vocabulary(dict(dataset=name))
    assert vocabulary.num_classes == 150 and "crt screen" in vocabulary.queries


def test_a_detection_data_set_gives_its_names_too() -> None:
    pytest.importorskip("mmdet")
    assert build_vocabulary("CocoDataset").num_classes == 80


def test_templates_of_the_config_win_over_the_default() -> None:
    assert build_vocabulary(["cat"], "catseg").templates.name == "catseg"
    own = build_vocabulary(dict(names=["cat"], templates="vild63"), "catseg")
    assert own.templates.name == "vild63"


def test_background_options_are_passed_on() -> None:
    vocabulary = build_vocabulary(
        dict(names=["background", "cat"], background_index=0, background_names=["sky", "wall"])
    )
    assert vocabulary.names == (("sky", "wall"), ("cat",)) and vocabulary.background_index == 0


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (3, "expected 'dataset'"),
        ({}, "0 sources"),
        (dict(names=["a"], file="b"), "2 sources"),
        (dict(names=["a"], tempaltes="single"), r"unknown keys \['tempaltes'\].*templates"),
        (dict(names=["a"], templates="imagenet"), "unknown templates 'imagenet'"),
        ("NoSuchDataset", "neither a registered data set.*voc21"),
        (dict(dataset="BaseSegDataset"), "names no classes"),
        ([], "empty vocabulary"),
    ],
)
def test_bad_vocabularies_are_refused(cfg: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_vocabulary(cfg)


@pytest.mark.parametrize("path", ["no/where", "nowhere.txt"])
def test_a_missing_class_file_is_named(path: str) -> None:
    with pytest.raises(FileNotFoundError, match=path):
        build_vocabulary(path)


def test_a_data_set_of_mmengine_and_no_module_of_that_name():
    assert dataset_classes("VOCMultiLabelDataset")[-1] == "tvmonitor"
    for name in ("json", ""):  # a module, and nothing
        with pytest.raises(ValueError, match="neither a registered data set"):
            dataset_classes(name)
