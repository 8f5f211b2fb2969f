"""The figure tool: which models it builds, what they see, and one line for every mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmclipdis.apis import cli
from mmclipdis.apis import feature_maps as api
from mmclipdis.apis.feature_maps import feature_maps, models_of
from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.readout import READOUTS
from mmclipdis.clip.weights.loading import load_image_tower
from mmclipdis.visualization.feature_maps import clip_maps
from tests.faults.endings import ends_in
from tools.analysis_tools import feature_maps as tool

CONFIG = """
clip = dict(arch="shapes-tiny", init_cfg=dict(type="Pretrained", checkpoint="shapes"))
small = dict(img_size=32, patch_size=16, embed_dim=32, depth=1, num_heads=2)
model = dict(
    type="DeCLIP",
    student=dict(type="DeCLIPViT", **clip),
    vfms=[dict(type="TimmVFM", model="vit_tiny_patch16_224", model_kwargs=small, weight=0.9)],
)
"""


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Keeps what would be drawn."""
    kept: dict[str, Any] = {}

    def keep(photo: Any, anchors: Any, models: Any, path: Any, smooth: bool) -> Path:
        kept.update(photo=photo, anchors=anchors, models=models, smooth=smooth)
        return Path(path)

    monkeypatch.setattr(api, "draw_feature_maps", keep)
    return kept


def test_the_default_run_draws_the_packaged_clip(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "maps.png"
    assert feature_maps([str(photo), "--readout", "vanilla", "declip", "--out", str(out)]) == out
    picture = np.asarray(Image.open(out).convert("RGB")).astype(int)
    assert min(picture.shape[:2]) > 1000
    colourful = (picture.max(axis=2) - picture.min(axis=2)) > 40
    assert colourful.mean() > 0.2


def test_maps_are_those_of_the_tower_at_the_asked_size(photo: Path, drawn: dict[str, Any]) -> None:
    options = ["--anchor", "80,10", "--anchor", "0,49", "--size", "100", "--layers", "1", "-1"]
    feature_maps([str(photo), *options, "--readout", "declip", "--smooth", "--device", "cpu"])
    assert drawn["anchors"] == [(80, 10), (0, 49)]
    assert drawn["smooth"] is True
    (name,) = drawn["models"]
    assert name == "shapes-tiny\ndeclip"
    tower = build_image_tower("shapes-tiny", "size").eval()
    load_image_tower(tower, "shapes-tiny", "shapes")
    # 100 px short side: 12 x 22 patches of 8 px (12.5 and 22.5 are rounded to even).
    resized = Image.open(photo).resize((22 * 8, 12 * 8), Image.Resampling.BICUBIC)
    pixels = (np.asarray(resized) - (122.771, 116.746, 104.094)) / (68.501, 66.632, 70.323)
    image = torch.from_numpy(pixels).float().permute(2, 0, 1)[None]
    patches = [(2, 19), (11, 0)]
    tower.positions = "legacy"  # CLIPViT's own rule
    expected = clip_maps(tower, image, patches, [1, 3], READOUTS["declip"])
    found = drawn["models"][name]
    assert [(m.group, m.title, m.anchor) for m in found] == [
        (m.group, m.title, m.anchor) for m in expected
    ]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.values.shape == (12, 22)
        np.testing.assert_allclose(ours.values, theirs.values, rtol=1e-3, atol=1e-4)


def test_a_declip_config_brings_its_teachers_on_the_same_grid(
    photo: Path, tmp_path: Path, drawn: dict[str, Any]
) -> None:
    (tmp_path / "declip.py").write_text(CONFIG)
    feature_maps([str(photo), "--config", str(tmp_path / "declip.py"), "--show", "features"])
    student, teacher = drawn["models"].values()
    assert list(drawn["models"]) == ["declip", "vit_tiny_patch16_224"]
    assert drawn["anchors"] == [(45, 25)]
    assert [m.title for m in student] == ["q", "k", "v", "dense map"]
    assert [m.title for m in teacher] == ["dense map"]
    # Twice the native 80 px, though the teacher's patches are twice as large.
    assert {m.values.shape for m in [*student, *teacher]} == {(20, 36)}


def test_a_teacher_with_a_size_of_its_own_keeps_its_grid(
    photo: Path, tmp_path: Path, drawn: dict[str, Any]
) -> None:
    sized = CONFIG.replace("weight=0.9", "input_size=(48, 80)")
    (tmp_path / "declip.py").write_text(sized)
    options = ["--anchor", "89,0", "--show", "features"]  # (0, 35) of the student's 20 x 36
    feature_maps([str(photo), "--config", str(tmp_path / "declip.py"), *options])
    student, (teacher,) = drawn["models"].values()
    assert {m.values.shape for m in student} == {(20, 36)}
    assert teacher.values.shape == (3, 5)
    assert teacher.values[0, 4] == pytest.approx(1)  # the cosine of the anchor with itself


def test_lists_are_paired_and_single_entries_repeated() -> None:
    models = models_of([], ["a", "b"], ["x", "y"], ["declip"])
    assert [m.config for m in models] == [
        dict(
            type="CLIPViT",
            arch=arch,
            init_cfg=dict(type="Pretrained", checkpoint=checkpoint),
            readout="declip",
        )
        for arch, checkpoint in (("a", "x"), ("b", "y"))
    ]
    assert [m.config["readout"] for m in models_of([], [], [], ["qq", "kk"])] == ["qq", "kk"]
    (default,) = models_of([], [], [], [])
    assert default.config["init_cfg"]["checkpoint"] == "shapes"


def test_a_checkpoint_replaces_that_of_the_config(tmp_path: Path) -> None:
    (tmp_path / "declip.py").write_text(CONFIG)
    student, teacher = models_of([str(tmp_path / "declip.py")], [], ["mine.pth"], [])
    assert student.config["init_cfg"]["checkpoint"] == "mine.pth"
    assert "weight" not in teacher.config and "init_cfg" not in teacher.config


def test_models_of_one_name_keep_their_rows(photo: Path, drawn: dict[str, Any]) -> None:
    options = ["--arch", "shapes-tiny", "shapes-tiny", "--checkpoint", "shapes"]
    feature_maps([str(photo), *options, "--show", "cls"])
    assert list(drawn["models"]) == ["shapes-tiny", "shapes-tiny #2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--anchor", "90,0"], "anchor 90,0 is outside the picture of 90 x 50 px"),
        (["--layers", "4"], r"layers \[4\] do not exist: the tower has the blocks 0 to 3"),
        (["--show", "keys"], r"unknown maps \['keys'\]; known: attention, cls"),
        (["--readout", "declop"], "unknown readout 'declop'"),
        (["--arch", "ViT-B-16", "--readout", "qq"], "--arch ViT-B-16 needs weights"),
        (["--arch", "a", "b", "--checkpoint", "x", "y", "z"], "--arch has 2 entries for 3 models"),
        (["--vfm", "dinov2-B"], "--vfm dinov2-B: expected NAME=FILE"),
        (["--vfm", "dino-B-61=none.pth"], "unknown vision model 'dino-B-61'"),
        (["--config", "none.py"], "no config at none.py"),
        (["--size", "3"], "--size 3 is smaller than a patch of 8 px"),
        (["--out", "maps.doc"], "cannot write 'maps.doc'"),
    ],
)
def test_mistakes_are_one_line(
    options: list[str], message: str, photo: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.run(tool.feature_maps, [str(photo), *options])
    line = capsys.readouterr().err
    assert stopped.value.code == cli.EXIT_CODE
    assert line.count("\n") == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(line)


def test_a_missing_or_broken_photo_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    for name, message in (("none.png", "error: no image at"), ("text.png", "error: cannot read")):
        with pytest.raises(SystemExit):
            cli.run(tool.feature_maps, [str(tmp_path / name)])
        line = capsys.readouterr().err
        assert line.startswith(message) and name in line and line.count("\n") == 1


def test_a_config_without_clip_is_named(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none.py").write_text("model = dict(type='X')\n")
    with pytest.raises(SystemExit):
        cli.run(tool.feature_maps, [str(photo), "--config", str(tmp_path / "none.py")])
    assert "has no CLIP image encoder" in capsys.readouterr().err


def test_an_anchor_that_is_no_pixel_is_refused(
    photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        feature_maps([str(photo), "--anchor", "12"])
    assert "'12' is no pixel x,y such as 120,80" in capsys.readouterr().err


def test_a_guided_config_shows_its_dense_map(
    photo: Path, tmp_path: Path, drawn: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The photo is seen at a size that is whole patches of CLIP and of the vision model."""
    other = "dict(small, img_size=36, patch_size=12)"
    vfm = f"dict(type='TimmVFM', model='vit_tiny_patch16_224', model_kwargs={other})"
    config = CONFIG.split("model = ")[0]
    config += f"model = dict(backbone=dict(type='CLIPViT', readout='vfm', vfm={vfm}, **clip))\n"
    path = tmp_path / "guided.py"
    path.write_text(config, encoding="utf-8")
    asked = [str(photo), "--config", str(path), "--out", str(tmp_path / "maps.png")]
    feature_maps([*asked, "--show", "features", "cls"])
    (maps,) = drawn["models"].values()
    grids = {found.title: found.values.shape for found in maps if found.group == "features"}
    assert [8 * side for side in grids["q"]] == [12 * side for side in grids["dense map"]]
    assert any(found.group == "cls" for found in maps)
    ends_in("leave the group 'attention' out", feature_maps, asked, capsys)
