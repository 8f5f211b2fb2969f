"""tools/model_converters/text_embeddings.py: writes what models read, compares with a tower."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mmclipdis.clip.text.embeddings_file import read_embeddings
from mmclipdis.models import OpenCLIPTextEncoder, build_vocabulary
from mmclipdis.models.class_text import ClassText
from tools.model_converters.text_embeddings import main

CLIP = ["--arch", "shapes-tiny", "--checkpoint", "shapes"]
NAMES = ["red circle", "square", "sky-other"]


@pytest.fixture
def classes(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCLIPDIS_CACHE", str(tmp_path / "cache"))
    categories = [dict(id=7 * i, name=name, isthing=1) for i, name in enumerate(NAMES)]
    path = tmp_path / "panoptic.json"
    path.write_text(json.dumps({"categories": categories[::-1]}))
    return ["--vocabulary", str(path)]


@pytest.fixture
def other(tmp_path):
    """Weights of another CLIP of the same arch."""
    torch.manual_seed(1)
    state = OpenCLIPTextEncoder("shapes-tiny").tower.text.state_dict()
    torch.save(state, tmp_path / "other.pt")
    return [*CLIP[:2], "--checkpoint", str(tmp_path / "other.pt")]


def expected(templates="vild63"):
    init_cfg = dict(type="Pretrained", checkpoint="shapes")
    encoder = OpenCLIPTextEncoder("shapes-tiny", cache_dir=False, init_cfg=init_cfg)
    encoder.init_weights()
    return encoder.embed(build_vocabulary(NAMES, templates=templates)), encoder


@pytest.mark.parametrize("suffix", ["safetensors", "npy"])
def test_a_model_reads_what_is_written_in_the_order_of_the_ids(tmp_path, classes, suffix, capsys):
    path = str(tmp_path / "out" / f"text.{suffix}")
    main([path, *CLIP, *classes])
    want, encoder = expected()
    assert f"3 x {encoder.embed_dim} embeddings" in capsys.readouterr().out
    text = ClassText(text_embeddings=path, vocabulary=NAMES, embed_dim=encoder.embed_dim)
    torch.testing.assert_close(text.embeddings(), want, rtol=0, atol=1e-6)
    read_embeddings(path, encoder.embed_dim, NAMES, encoder.tower.fingerprint())
    assert len(list((tmp_path / "out").iterdir())) == 1
    if suffix == "safetensors":
        with pytest.raises(ValueError, match="another order: row 0 is 'red circle'"):
            ClassText(text_embeddings=path, vocabulary=NAMES[::-1])


@pytest.mark.parametrize("suffix", ["safetensors", "npy"])
def test_a_file_of_another_text_tower_is_found_out(tmp_path, classes, other, suffix, capsys):
    path = str(tmp_path / f"text.{suffix}")
    main([path, *other, *classes])
    main([path, *other, *classes, "--compare"])
    assert "is of this text tower: lowest cosine of 3 rows 1.0000" in capsys.readouterr().out
    message = "computed with another text tower" if suffix == "safetensors" else "of another CLIP"
    with pytest.raises(SystemExit, match=message):
        main([path, *CLIP, *classes, "--compare"])
    with pytest.raises(SystemExit, match="exists and is left as it is; .*give --overwrite"):
        main([path, *CLIP, *classes])
    main([path, *CLIP, *classes, "--overwrite"])
    main([path, *CLIP, *classes, "--compare"])


def test_official_arrays_in_half_precision_agree_and_another_order_does_not(tmp_path, classes):
    path = tmp_path / "official.npy"
    np.save(path, expected()[0].half().numpy())
    main([str(path), *CLIP, *classes, "--compare"])
    np.save(path, expected()[0][[0, 2, 1]].half().numpy())
    with pytest.raises(SystemExit, match=r"row \d .*has the cosine .* another order of the cl"):
        main([str(path), *CLIP, *classes, "--compare"])


def test_other_templates_and_sources(tmp_path, classes):
    path = tmp_path / "text.npy"
    (tmp_path / "classes.txt").write_text("red circle,disc\nsquare\nsky-other\n")
    source = ["--vocabulary", str(tmp_path / "classes.txt"), "--first-only"]
    main([str(path), *CLIP, *source, "--templates", "a {}.", "the {}."])
    want = expected(("a {}.", "the {}."))[0]
    torch.testing.assert_close(torch.from_numpy(np.load(path)), want, rtol=0, atol=1e-6)


def test_clear_errors(tmp_path, classes):
    (tmp_path / "images.json").write_text(json.dumps({"images": []}))
    for vocabulary, message in (
        ("absent.json", "'absent.json' does not exist"),
        (str(tmp_path / "images.json"), "lists no categories with id and name"),
        ("dataset", "'dataset' names no classes"),
    ):
        with pytest.raises(SystemExit, match=message):
            main([str(tmp_path / "x.npy"), *CLIP, "--vocabulary", vocabulary])
    with pytest.raises(SystemExit, match=r"go to a .safetensors"):
        main([str(tmp_path / "x.pt"), *CLIP, *classes])
    with pytest.raises(SystemExit, match="no file of text embeddings at .*x.npy"):
        main([str(tmp_path / "x.npy"), *CLIP, *classes, "--compare"])
    assert not list(tmp_path.glob("x.*"))


def test_tokenizers_and_dense_halves_are_options(tmp_path, classes, capsys):
    with pytest.raises(SystemExit, match="arch 'ViT-B-16-SigLIP2' needs the tokenizer"):
        main([str(tmp_path / "x.npy"), "--arch", "ViT-B-16-SigLIP2", *CLIP[2:], *classes])
    with pytest.raises(SystemExit, match="has CLIP's own tokenizer"):
        main([str(tmp_path / "x.npy"), *CLIP, *classes, "--tokenizer", "tokenizer.json"])
    main([str(tmp_path / "x.npy"), *CLIP, *classes, "--dense"])
    assert "3 x 64 embeddings" in capsys.readouterr().out  # of CLIP: all of them
