"""tools/dataset_converters/pseudo_boxes.py: from proposals to a file that a training reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torchvision.ops import box_iou

import mmclipdis  # noqa: F401  (registers)
from mmclipdis.apis.part_file import PartFile
from mmclipdis.apis.proposal_source import Detector, training_data
from mmclipdis.apis.pseudo_boxes import pseudo_boxes
from mmclipdis.apis.segment import build_model
from mmclipdis.datasets.detection.pseudo_boxes import read_pseudo_boxes
from mmclipdis.shapes.coco import Settings, write_dataset
from mmclipdis.shapes.world import NOVEL
from tests.faults.endings import ends_in
from tests.paths import ROOT

CONFIG = ROOT / "configs" / "shapes" / "fvit.py"
PHOTOS = 14
LIMITS = ["--min-area", "30", "--best", "0.5"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos with a detector whose weights are random, but for CLIP's, and given proposals."""
    folder = tmp_path_factory.mktemp("pseudo") / "shapes"
    write_dataset(folder, Settings(train=PHOTOS, val=1, seed=3))
    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(CONFIG).model)
    model.init_weights()
    torch.save({"state_dict": model.state_dict(), "meta": {}}, folder / "fvit.pth")
    rows = [
        {"image_id": number, "bbox": [5 * k, 8 * k, 30 + k, 20], "score": (7 * k % 10) / 10}
        for number in range(PHOTOS)
        for k in range(8)
    ]
    (folder / "given.json").write_text(json.dumps(rows))
    return folder


def words(shapes: Path, out: Path, *more: object, checkpoint: bool = True) -> list[str]:
    """The command line."""
    data = [f"{loader}_dataloader.dataset.data_root={shapes}/" for loader in ("train", "test")]
    given = [CONFIG, *([shapes / "fvit.pth"] if checkpoint else []), "--out", out, *LIMITS, *more]
    given += ["--workers", 0, "--device", "cpu", "--cfg-options", *data]
    return list(map(str, given))


def given(shapes: Path, out: Path, *more: object) -> list[str]:
    """The command line without a detector, whose proposals are in a file."""
    return words(shapes, out, "--proposals", shapes / "given.json", *more, checkpoint=False)


def content(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def notes(shapes: Path, novel: bool) -> list[dict[str, Any]]:
    """Annotations of novel classes, or of base ones."""
    found = content(shapes / "annotations" / "instances_train.json")
    names = {c["id"]: c["name"] for c in found["categories"]}  # type: ignore[call-overload]
    return [n for n in found["annotations"] if (names[n["category_id"]] in NOVEL) == novel]  # type: ignore[call-overload]


def corners(box: list[float]) -> list[float]:
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


@pytest.fixture(scope="module")
def made(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "pseudo.json"
    return pseudo_boxes(words(shapes, out))


def test_the_file_is_what_a_training_reads(shapes: Path, made: Path) -> None:
    ids, boxes, weights = read_pseudo_boxes(str(made))
    assert len(ids) > 5
    known: dict[int, list[list[float]]] = {}
    for note in notes(shapes, novel=False):
        known.setdefault(note["image_id"], []).append(corners(note["bbox"]))
    assert set(ids) <= set(known), "images without base boxes are in no training"
    for number, box in zip(ids, boxes):
        overlap = box_iou(torch.tensor(box[None]), torch.tensor(known[number]).double())
        assert float(overlap.max()) <= 0.3 + 1e-2  # written with two digits
        assert (box[2] - box[0]) * (box[3] - box[1]) >= 29
    assert 0 <= weights.min() < weights.max() <= 1
    data = Config.fromfile(CONFIG).train_dataloader.dataset
    data.update(data_root=str(shapes), pseudo_boxes=str(made))
    dataset = DATASETS.build(data)
    merged = [dataset.get_data_info(i)["instances"] for i in range(len(dataset))]
    assert sum(box["bbox_label"] < 0 for boxes in merged for box in boxes) == len(ids)
    assert not list(made.parent.glob("*.part"))


def test_batches_and_single_images_give_the_same(shapes: Path, made: Path, tmp_path: Path) -> None:
    alone = content(pseudo_boxes(words(shapes, tmp_path / "p.json", "--batch-size", 1)))
    found = content(made)
    assert [record["image_id"] for record in alone] == [record["image_id"] for record in found]
    for one, other in zip(alone, found):
        assert one["weight"] == pytest.approx(other["weight"], abs=1e-4)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.05)


@torch.no_grad()
def test_the_second_stage_moves_proposals(shapes: Path) -> None:
    config = Config.fromfile(CONFIG)
    config.train_dataloader.dataset.data_root = f"{shapes}/"
    dataset = training_data(config)
    photos = [dataset[place] for place in range(2)]
    for photo in photos:  # the input is twice the photo
        photo["data_samples"].set_metainfo({"scale_factor": (2.0, 2.0), "ori_shape": (80, 80)})
    still = Detector(config, str(shapes / "fvit.pth"), "cpu", True, False)
    moving = Detector(
        config, str(shapes / "fvit.pth"), "cpu", True, False, dataset.metainfo["classes"]
    )
    head = moving.model.roi_head.bbox_head
    torch.nn.init.normal_(head.fc_reg.weight, std=0.3)  # untrained it moves nothing
    deltas = []
    head.fc_reg.register_forward_hook(lambda module, given, out: deltas.append(out))
    before = still.look(pseudo_collate(photos))[0]
    after = moving.look(pseudo_collate(photos))[0]
    moves = torch.cat(deltas).split([len(boxes) for boxes, _ in before])
    for (boxes, scores), (moved, same), delta in zip(before, after, moves, strict=True):
        assert torch.equal(scores, same) and len(boxes) > 10
        x0, y0, x1, y1 = (2 * boxes).T  # pixels of the input
        dx, dy, dw, dh = (delta * torch.tensor([0.1, 0.1, 0.2, 0.2])).T
        x, y = (x0 + x1) / 2 + dx * (x1 - x0), (y0 + y1) / 2 + dy * (y1 - y0)
        width, height = (x1 - x0) * dw.exp(), (y1 - y0) * dh.exp()
        sides = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        expected = (torch.stack(sides, dim=1) / 2).clamp(0, 80)
        torch.testing.assert_close(moved, expected, rtol=0, atol=1e-3)
        assert (boxes - moved).abs().max() > 1


def test_refined_proposals_make_another_file(
    shapes: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    refined = Detector._refined

    def refine(self: Detector, *given: Any) -> Any:
        asked.append(len(given[1]))
        return refined(self, *given)

    monkeypatch.setattr(Detector, "_refined", refine)
    out = tmp_path / "p.json"
    pseudo_boxes(words(shapes, out, "--refine"))
    assert sum(asked) == len({note["image_id"] for note in notes(shapes, novel=False)})
    with pytest.raises(FileExistsError):
        pseudo_boxes(words(shapes, out))


def test_a_second_stage_with_boxes_for_each_class_moves_none(
    shapes: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*given: Any) -> Any:
        model = build_model(*given)
        model.roi_head.bbox_head.reg_class_agnostic = False
        return model

    monkeypatch.setattr("mmclipdis.apis.proposal_source.build_model", build)
    line = r"a second stage that knows no classes \(reg_class_agnostic=True\), which FViT has not"
    ends_in(line, pseudo_boxes, words(shapes, tmp_path / "p.json", "--refine"), capsys)


def test_a_broken_run_goes_on(
    shapes: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, part, seen = tmp_path / "p.json", tmp_path / "p.json.part", []
    look, add = Detector.look, PartFile.add

    def counting(self: Detector, data: Any, propose: bool = True) -> Any:
        seen.extend(sample.img_id for sample in data["data_samples"])
        return look(self, data, propose)

    def failing(self: PartFile, records: Any) -> None:
        add(self, records)
        if len(self.records) >= 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(Detector, "look", counting)
    with monkeypatch.context() as patch:
        patch.setattr(PartFile, "add", failing)
        with pytest.raises(KeyboardInterrupt):
            pseudo_boxes(words(shapes, out))
    assert not out.exists() and len(seen) == 8
    with part.open("ab") as file:
        file.write(b'{"image_id": 99, "box')  # as a kill leaves it
    pseudo_boxes(words(shapes, out))
    assert len(seen) == len(set(seen)), "an image was looked at twice"
    assert out.read_bytes() == made.read_bytes()
    assert not part.exists()


def test_files_that_are_there(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    first = pseudo_boxes(given(shapes, tmp_path / "a.json"))
    line = "a.json' exists and is left as it is; .* give --overwrite"
    ends_in(line, pseudo_boxes, given(shapes, first), capsys)
    out = tmp_path / "p.json"
    with monkeypatch.context() as patch:
        patch.setattr("mmclipdis.apis.pseudo_boxes.finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pseudo_boxes(given(shapes, out))
    line = r"p.json.part' holds what an earlier run finished with other options \(max_aspect\)"
    other = given(shapes, out, "--max-aspect", 1.7)
    ends_in(line, pseudo_boxes, other, capsys)
    pseudo_boxes([*other, "--overwrite"])
    assert content(out) != content(first)
    (tmp_path / "q.json.part").write_text("my diary\n")
    ends_in("q.json.part' holds", pseudo_boxes, given(shapes, tmp_path / "q.json"), capsys)
    assert (tmp_path / "q.json.part").read_text() == "my diary\n"


def test_given_proposals_and_boxes_that_nobody_may_know(
    shapes: Path, tmp_path: Path, capsys
) -> None:
    # All annotations as proposals: those of base classes are known, those of novel ones are not.
    novel, base = notes(shapes, novel=True), notes(shapes, novel=False)
    rows = [{"image_id": n["image_id"], "bbox": n["bbox"], "score": 1} for n in (*novel, *base)]
    rows.append({"image_id": 10_000, "bbox": [1, 2, 30, 40], "score": 1})
    (tmp_path / "given.json").write_text(json.dumps(rows))
    limits = ("--min-area", 1, "--max-aspect", 99, "--nms-iou", 1, "--best", 1)
    arguments = ("--proposals", tmp_path / "given.json", *limits)
    line = words(shapes, tmp_path / "p.json", *arguments, checkpoint=False)
    for option in ("novel_in_training=True", "pseudo_boxes=earlier.json"):  # which is not there
        line.append(f"train_dataloader.dataset.{option}")
    out = pseudo_boxes(line)
    in_training = {note["image_id"] for note in base}
    known = {
        number: torch.tensor([corners(n["bbox"]) for n in base if n["image_id"] == number])
        for number in in_training
    }
    expected = []
    for note in novel:
        box = torch.tensor([corners(note["bbox"])])
        if note["image_id"] in in_training and box_iou(box, known[note["image_id"]]).max() <= 0.3:
            expected.append((note["image_id"], note["bbox"]))
    found = [(record["image_id"], record["bbox"]) for record in content(out)]
    assert sorted(map(str, found)) == sorted(map(str, expected)) and len(found) > 3
    assert {record["weight"] for record in content(out)} == {1.0}
    printed = capsys.readouterr().out
    elsewhere = sum(note["image_id"] not in in_training for note in novel) + 1
    assert f"{elsewhere} proposals are of images that the data do not have" in printed
    assert "on a known box" in printed


def test_weights_by_density(shapes: Path, made: Path, tmp_path: Path, capsys) -> None:
    out = pseudo_boxes(words(shapes, tmp_path / "p.json", "--weight", "density"))
    places = [(record["image_id"], record["bbox"]) for record in content(out)]
    assert places == [(record["image_id"], record["bbox"]) for record in content(made)]
    weights = [record["weight"] for record in content(out)]
    assert 0 <= min(weights) < max(weights) <= 1
    assert weights != [record["weight"] for record in content(made)]
    assert "densities: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "checkpoint", "line"),
    [
        ((), False, "no CHECKPOINT: the detector's proposals are taken"),
        (("--proposals", "x.json", "--weight", "density"), False, "no CHECKPOINT"),
        (("--proposals", "x.json"), True, "CHECKPOINT is not read with --proposals"),
        (("--proposals", "x.json"), False, "no annotation file 'x.json'; name a file of prop"),
        (("--proposals", "x.json", "--refine"), False, "--refine moves a detector's proposals"),
        (("--device", "cuda:77"), True, "device 'cuda:77' cannot be used here"),
    ],
)
def test_options_that_do_not_go_together(
    shapes: Path, tmp_path: Path, capsys, more: Any, checkpoint: bool, line: str
) -> None:
    # Behind: the last one given counts.
    arguments = words(shapes, tmp_path / "p.json", checkpoint=checkpoint)
    place = arguments.index("--cfg-options")
    arguments[place:place] = map(str, more)
    ends_in(line, pseudo_boxes, arguments, capsys)
    assert not (tmp_path / "p.json").exists()


def test_no_proposal_is_left(shapes: Path, tmp_path: Path, capsys) -> None:
    line = r"no proposal is left of \d+ in 1\d images \(\d+ too small\): give other limits"
    out = tmp_path / "p.json"
    ends_in(line, pseudo_boxes, given(shapes, out, "--min-area", 1e9), capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--best", "0"), ("--best", "nan"), ("--per-image", "1.5"), ("--nms-iou", "30"),
     ("--max-aspect", "0.5"), ("--weight", "both")],
)  # fmt: skip
def test_options_out_of_range(
    shapes: Path, tmp_path: Path, capsys, option: str, value: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        pseudo_boxes(words(shapes, tmp_path / "p.json", option, value))
    assert stop.value.code == 2
    assert f"argument {option}: " in capsys.readouterr().err
