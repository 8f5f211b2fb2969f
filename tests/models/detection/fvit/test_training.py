"""F-ViT in training as a user runs it: what stays, what resumes, precision, the tools' options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.paths import ROOT

pytest.importorskip("mmdet")

from mmengine.config import Config

from mmclipdis.apis.cli import UserInputError
from mmclipdis.apis.run import test as run_test
from mmclipdis.apis.run import train as run_train
from mmclipdis.engine.checkpoint_io import read_checkpoint
from mmclipdis.shapes.coco import Settings, write_dataset
from mmclipdis.shapes.weights import load_towers
from tests.models.detection.fvit import tiny as tiny_fvit
from tests.models.detection.fvit.test_parts import real_config, total
from tests.models.detection.fvit.tiny import batch

CONFIG = ROOT / "configs/shapes/fvit.py"
VIEWS = """
tta_model = dict(
    type="DetTTAModel", tta_cfg=dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=20)
)
tta_pipeline = [
    dict(type="LoadReadableImage"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale=(160, 160), keep_ratio=True)],
            [dict(type="RandomFlip", prob=1.0), dict(type="RandomFlip", prob=0.0)],
            [
                dict(
                    type="PackDetInputs",
                    meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor",
                               "flip", "flip_direction"),
                )
            ],
        ],
    ),
]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Three iterations of two pictures, a checkpoint after each; the folder and the runner."""
    folder = tmp_path_factory.mktemp("fvit")
    write_dataset(folder / "shapes", Settings(train=8, val=3))
    notes = folder / "shapes/annotations/instances_val.json"
    config = Config.fromfile(CONFIG)
    loaders = [config[f"{name}_dataloader"] for name in ("train", "val", "test")]
    for loader in loaders:
        loader.dataset.data_root = str(folder / "shapes")
    config.val_evaluator.ann_file = config.test_evaluator.ann_file = str(notes)
    config.train_dataloader.batch_size = 2
    config.train_cfg.update(max_iters=3, val_interval=2)  # a validation in the middle, too
    config.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=-1)
    config.log_level = "ERROR"
    config.dump(folder / "fvit.py")
    return folder, run_train([str(folder / "fvit.py"), "--work-dir", str(folder / "work")])


def test_frozen_parts_stay_to_the_bit_and_all_others_move(run):
    runner = run[1]
    image, text = (tower.state_dict() for tower in load_towers()[:2])
    tower = runner.model.backbone.encoder.tower.state_dict()
    assert tower and all(torch.equal(value, image[name]) for name, value in tower.items())
    kept = dict(runner.model.roi_head.bbox_head.text.encoder.named_parameters())
    kept = {name.removeprefix("tower."): value for name, value in kept.items()}
    assert kept and all(torch.equal(value, text[name]) for name, value in kept.items())
    first, last = (read_checkpoint(str(run[0] / f"work/iter_{n}.pth")) for n in (1, 3))
    first, last = first["state_dict"], last["state_dict"]
    trained = [name for name, p in runner.model.named_parameters() if p.requires_grad]
    still = [name for name in trained if torch.equal(first[name], last[name])]
    assert len(trained) > 30 and still == []


def test_a_resumed_run_equals_an_uninterrupted_one(run, tmp_path):
    folder = run[0]
    start = str(folder / "work/iter_1.pth")
    words = ["--resume", start, "--work-dir", str(tmp_path)]
    run_train([str(folder / "fvit.py"), *words])
    whole, resumed = (read_checkpoint(str(f / "iter_3.pth")) for f in (folder / "work", tmp_path))
    assert whole["state_dict"].keys() == resumed["state_dict"].keys()
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    first, second = (kept["optimizer"]["state"] for kept in (whole, resumed))
    for key, state in first.items():
        for name, value in state.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(second[key][name])), name


def test_novel_columns_have_no_gradient_with_the_real_backbone():
    model = tiny_fvit.build(real_config()).train()
    kept = []
    head = model.roi_head.bbox_head
    classify = head.classify

    def watched(embeddings):
        kept.append(classify(embeddings))
        kept[-1].retain_grad()
        return kept[-1]

    head.classify = watched
    total(model(**batch(model, True), mode="loss")).backward()
    novel = torch.tensor([*head.novel, False])
    assert novel.tolist() == [False, True, False, True, False]
    assert (kept[0].grad[:, novel] == 0).all() and (kept[0].grad[:, ~novel] != 0).any(0).all()


def test_a_bfloat16_step_is_finite_and_near_fp32():
    steps = []
    for half in (False, True):
        model = tiny_fvit.build(real_config()).train()
        torch.manual_seed(3)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            found = model(**batch(model, True), mode="loss")
        total(found).backward()
        grads = [p.grad for p in model.parameters() if p.requires_grad]
        assert all(grad is not None and grad.isfinite().all() for grad in grads)
        assert all(grad.dtype == torch.float32 for grad in grads)
        steps.append(float(total(found).detach()))
    assert steps[1] != steps[0]  # autocast did something
    assert steps[1] == pytest.approx(steps[0], rel=0.1)


def measure(run: tuple[Path, Any], out: Path, *words: str, config: str = "fvit.py") -> Any:
    folder = run[0]
    start = [str(folder / config), str(folder / "work/iter_3.pth"), "--work-dir", str(out)]
    return run_test([*start, *words])


def test_pictures_have_the_names_of_the_classes(run, tmp_path, monkeypatch):
    from mmdet.visualization import DetLocalVisualizer

    texts: list[str] = []
    draw = DetLocalVisualizer.draw_texts

    def watched(self, words, *args, **kwargs):
        texts.extend([words] if isinstance(words, str) else words)
        return draw(self, words, *args, **kwargs)

    monkeypatch.setattr(DetLocalVisualizer, "draw_texts", watched)
    show = tmp_path / "show"
    option = ["--cfg-options", "default_hooks.visualization.score_thr=0.0"]
    measure(run, tmp_path, "--show-dir", str(show), *option)
    names = sorted(path.name for path in show.iterdir())
    assert names == sorted(p.name for p in (run[0] / "shapes/images/val").iterdir())
    classes = Config.fromfile(CONFIG).metainfo.classes
    predicted = [text.split(":")[0] for text in texts if ":" in text]
    assert predicted and set(predicted) <= set(classes)
    image = cv2.imread(str(show / names[0]))
    photo = cv2.imread(str(run[0] / "shapes/images/val" / names[0]))
    assert image.shape == (photo.shape[0], 2 * photo.shape[1], 3)  # truth, prediction
    assert np.abs(image[:, photo.shape[1] :].astype(int) - photo).max() > 50


def test_predictions_are_kept_in_cocos_format(run, tmp_path):
    measure(run, tmp_path / "work", "--out", str(tmp_path / "out"))
    found = json.loads((tmp_path / "out/predictions.bbox.json").read_text())
    notes = json.loads((run[0] / "shapes/annotations/instances_val.json").read_text())
    assert found and set(found[0]) == {"image_id", "bbox", "score", "category_id"}
    listed = {category["id"] for category in notes["categories"]}
    assert {item["category_id"] for item in found} <= listed
    assert {item["image_id"] for item in found} <= {image["id"] for image in notes["images"]}
    assert not list((tmp_path / "out").glob("*.pkl"))


def test_out_is_refused_for_a_metric_that_writes_nothing(run, tmp_path):
    option = ["--cfg-options", "test_evaluator.type=VOCMetric"]
    with pytest.raises(UserInputError, match="VOCMetric writes no predictions"):
        measure(run, tmp_path, "--out", str(tmp_path), *option)


def test_views_need_a_model_that_joins_them(run, tmp_path):
    with pytest.raises(UserInputError, match="tta_model.*DetTTAModel"):
        measure(run, tmp_path, "--tta")
    (run[0] / "views.py").write_text((run[0] / "fvit.py").read_text() + VIEWS)
    both = measure(run, tmp_path, "--tta", config="views.py")
    assert {"coco/base_ap50", "coco/novel_ap50"} <= set(both)


def test_features_cannot_be_cached(run, tmp_path):
    words = ["--work-dir", str(tmp_path), "--cache-features", str(tmp_path / "features")]
    with pytest.raises(UserInputError, match="FViT has no frozen features"):
        run_train([str(run[0] / "fvit.py"), *words])
