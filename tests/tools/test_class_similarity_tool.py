"""The tool that compares classes: which classes and features, what it writes, and its errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmclipdis.apis import class_similarity as api
from mmclipdis.apis import cli
from mmclipdis.apis.class_similarity import class_similarity, read_classes
from mmclipdis.clip.text.encoder import build_text_tower
from mmclipdis.clip.weights.loading import load_text_transformer
from mmclipdis.compat.optional import HAS_MMSEG
from mmclipdis.models.projectors import Projectors
from mmclipdis.shapes.world import CLASSES
from tests.paths import REAL_DATA
from tools.analysis_tools import class_similarity as tool

LVIS = REAL_DATA / "lvis_val_100/lvis_val_100.json"
NAMES = ["apple", "banana", "red fish", "snow"]
needs_mmseg = pytest.mark.skipif(not HAS_MMSEG, reason="data sets need mmseg")


def clip_rows(pattern: str) -> Tensor:
    """Unit rows of the tiny CLIP, one prompt a class."""
    tower = build_text_tower("shapes-tiny").eval()
    load_text_transformer(tower.text, "shapes-tiny", "shapes")
    with torch.no_grad():
        return F.normalize(tower(tower.tokenize([pattern.format(name) for name in NAMES])), dim=1)


def check_report(report: dict[str, Any], rows: Tensor, negatives: Tensor) -> None:
    """Compare a report with cosines of pairs, one after the other."""
    pairs = {
        (i, j): F.cosine_similarity(rows[i].double(), rows[j].double(), dim=0).item()
        for i in range(len(rows))
        for j in range(i + 1, len(rows))
    }
    values = list(pairs.values())
    assert report["num_classes"] == 4
    assert report["mean_offdiag"] == pytest.approx(np.mean(values), abs=1e-6)
    assert report["std"] == pytest.approx(np.std(values), abs=1e-6)
    assert (report["min"], report["max"]) == pytest.approx((min(values), max(values)), abs=1e-6)
    assert report["percentiles"]["25"] == pytest.approx(np.percentile(values, 25), abs=1e-6)
    same = F.cosine_similarity(rows.double(), negatives.double(), dim=1).mean().item()
    assert report["mean_pos_neg"] == pytest.approx(same, abs=1e-6)
    ranked = sorted(pairs, key=lambda pair: -pairs[pair])
    assert [tuple(pair["indices"]) for pair in report["top_pairs"]] == ranked[:3]
    assert [pair["names"] for pair in report["top_pairs"]] == [
        [NAMES[i], NAMES[j]] for i, j in ranked[:3]
    ]
    found = [pair["cosine"] for pair in report["top_pairs"]]
    assert found == pytest.approx([pairs[pair] for pair in ranked[:3]], abs=1e-6)


@pytest.fixture
def projectors() -> Projectors:
    """Some that do not look like freshly initialised ones."""
    torch.manual_seed(0)
    made = Projectors(64, out_dim=16, arch="shapes-tiny").eval()
    torch.nn.init.normal_(made.text[1].bias, std=0.1)
    return made


def test_the_default_run_compares_classes_in_the_packaged_clip(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    found = class_similarity([",".join(NAMES), "--top", "3", "--out", str(out), "--device", "cpu"])
    assert found == out
    content = json.loads((out / "similarity.json").read_text())
    assert list(content) == ["clip", "settings"]
    rows = clip_rows("a photo of a {}")
    check_report(content["clip"], rows, clip_rows("Not a photo of a {}"))
    assert content["settings"] == {
        "classes": ",".join(NAMES),
        "class_names": NAMES,
        "arch": "shapes-tiny",
        "checkpoint": "shapes",
        "templates": ["a photo of a {}"],
        "negative_templates": ["Not a photo of a {}"],
        "projectors": None,
        "order": [0, 1, 2, 3],
    }
    picture = np.asarray(Image.open(out / "similarity.png").convert("L"))
    assert min(picture.shape) > 500 and picture.std() > 20


@pytest.mark.parametrize("kind", ["bare", "checkpoint"])
def test_projected_features_are_those_of_the_file(
    kind: str, projectors: Projectors, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = projectors.state_dict()
    if kind == "checkpoint":
        state = {"state_dict": {f"projectors.{key}": value for key, value in state.items()}}
    torch.save(state, tmp_path / "projectors.pth")
    prompts = ["--templates", "the {}", "--negative-template", "no {}"]
    options = ["--projectors", str(tmp_path / "projectors.pth"), "--top", "3", "--device", "cpu"]
    class_similarity([",".join(NAMES), *prompts, *options, "--out", str(tmp_path)])
    content = json.loads((tmp_path / "similarity.json").read_text())
    assert list(content) == ["clip", "projected", "settings"]
    rows, negatives = clip_rows("the {}"), clip_rows("no {}")
    check_report(content["clip"], rows, negatives)
    with torch.no_grad():
        check_report(content["projected"], projectors.text(rows), projectors.text(negatives))
    assert content["settings"]["projectors"] == str(tmp_path / "projectors.pth")
    mean = content["projected"]["mean_offdiag"]
    assert f"projected: mean cosine {mean:.3f}" in capsys.readouterr().out


def test_pictures_get_the_cosines_in_the_asked_order(
    projectors: Projectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(api, "draw_class_similarity", lambda *args: drawn.append(args))
    torch.save(projectors.state_dict(), tmp_path / "projectors.pth")
    options = ["--projectors", str(tmp_path / "projectors.pth"), "--order", "cluster"]
    class_similarity([",".join(NAMES), *options, "--out", str(tmp_path), "--device", "cpu"])
    matrices, names, path, order, top = drawn[0]
    rows = clip_rows("a photo of a {}")
    with torch.no_grad():
        projected = F.normalize(projectors.text(rows), dim=1)
    assert list(matrices) == ["CLIP", "projected"]
    np.testing.assert_allclose(matrices["CLIP"], rows @ rows.T, atol=1e-6)
    np.testing.assert_allclose(matrices["projected"], projected @ projected.T, atol=1e-6)
    assert list(names) == NAMES and path == tmp_path / "similarity.png" and top == 20
    assert (
        list(order) == json.loads((tmp_path / "similarity.json").read_text())["settings"]["order"]
    )
    assert list(order) == api.cluster_order(matrices["CLIP"])


def test_class_lists_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("tv,television\nhot_dog\n")
    categories = [{"id": 7, "name": "hot_dog"}, {"id": 2, "name": "tv"}]
    (tmp_path / "coco.json").write_text(json.dumps({"categories": categories}))
    (tmp_path / "list.json").write_text(json.dumps(categories))
    for given in (str(tmp_path / "two.txt"), str(tmp_path / "coco.json"), "tv, hot dog,",
                  str(tmp_path / "list.json")):  # fmt: skip
        assert read_classes(given).class_names == ("tv", "hot dog")
    assert read_classes("voc20").num_classes == 20
    assert read_classes("sclip_coco_object").num_classes == 81
    many = [f"name number {i} of a long list" for i in range(100)]
    assert read_classes(",".join(many)).class_names == tuple(many)  # longer than a path may be


@needs_mmseg
def test_a_data_set_names_its_classes() -> None:
    assert read_classes("ShapeScenesDataset").class_names == CLASSES
    assert read_classes("ADE20KDataset").num_classes == 150


@pytest.mark.skipif(not LVIS.is_file(), reason="needs the LVIS sample")
def test_the_categories_of_lvis_are_read_and_drawn(tmp_path: Path) -> None:
    class_similarity([str(LVIS), "--order", "cluster", "--out", str(tmp_path), "--device", "cpu"])
    content = json.loads((tmp_path / "similarity.json").read_text())
    count = content["clip"]["num_classes"]
    assert count > 1200 and sorted(content["settings"]["order"]) == list(range(count))
    assert "aerosol can" in content["settings"]["class_names"]
    assert len(content["clip"]["top_pairs"]) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dog"], "'dog' is neither a registered data set .* nor a class file"),
        (["none.txt"], "class file 'none.txt' does not exist"),
        (["none.json"], "no file of categories at 'none.json'"),
        (["bad.json"], r"'bad.json' has no categories as COCO and LVIS write them.*KeyError"),
        (["text.json"], "'text.json' has no categories .*JSONDecodeError"),
        (["cat,dog,Cat"], r"stands for two classes: 'Cat' \(classes 0 and 2\)"),
        (["hot dog,hot_dog"], "stands for two classes: 'hot dog'"),
        (["dog,"], "'dog,' has one class, at least two are needed"),
        (["dog,,cat"], "class 1 has an empty name"),
        ([" "], "CLASSES is empty: name a data set, a file"),
        (["dataset"], "'dataset' names no classes"),
        (["a,b", "--top", "-1"], "--top -1: expected 0 or more pairs"),
        (["a,b", "--templates", "imagenet"], "unknown templates 'imagenet'; choose one of"),
        (["a,b", "--negative-template", "no"], "unknown templates 'no'; choose one of"),
        (["a,b", "--arch", "ViT-B-16"], "--arch ViT-B-16 needs --checkpoint as well"),
        (["a,b", "--checkpoint", "openai"], "--checkpoint openai needs --arch as well"),
        (["a,b", "--arch", "ViT-X", "--checkpoint", "openai"], "unknown CLIP arch 'ViT-X'"),
        (["a,b", "--arch", "shapes-tiny", "--checkpoint", "shape"],
            "'shape' is neither a file nor weights known for 'shapes-tiny'"),
        (["a,b", "--projectors", "none.pth"], "no projectors at 'none.pth'"),
        (["a,b", "--projectors", "wide.pth"], "for a CLIP of 512 channels, the one in use has"),
        (["a,b", "--projectors", "other.pth"], "was trained on 'RN101-quickgelu', but the model"),
        (["a,b", "--out", "bad.json"], "cannot make the folder --out 'bad.json'"),
        (["a,b", "--out", "bad.json/x"], "cannot make the folder --out 'bad.json/x'"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text('{"images": []}')
    (tmp_path / "text.json").write_text("no json")
    if "--projectors" in arguments:
        torch.save(Projectors(512).state_dict(), "wide.pth")
        torch.save(Projectors(64, arch="RN101-quickgelu").state_dict(), "other.pth")
    with pytest.raises(SystemExit) as stopped:
        cli.run(tool.class_similarity, [*arguments, "--device", "cpu"])
    line = capsys.readouterr().err
    assert stopped.value.code == cli.EXIT_CODE
    assert line.count("\n") == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(line)
    assert not list(tmp_path.rglob("similarity.*"))


def test_a_folder_that_cannot_be_written_is_named_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    monkeypatch.setattr(api, "class_features", lambda *args: pytest.fail("worked in vain"))
    with pytest.raises(ValueError, match=f"cannot write into the folder --out '{tmp_path}'"):
        class_similarity(["a,b", "--out", str(tmp_path)])
