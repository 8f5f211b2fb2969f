"""What a cell lacks is said with what gets it, once for all cells, before anything is run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mmclipdis.apis.reproduction import plan
from mmclipdis.apis.reproduction.cells import Cell, Training
from mmclipdis.apis.reproduction.needs import Look, Needs
from mmclipdis.apis.reproduction.places import GUIDE, SOURCES, Places
from mmclipdis.apis.reproduction.plan import plan_lines, select_cells
from mmclipdis.apis.zoo import on_disk
from mmclipdis.shapes.coco import Settings, write_dataset
from tests.apis.reproduction.cells import cell, table
from tests.paths import ROOT


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing lies here, or in the folder of downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)


def of(model: str, **more: object) -> Cell:
    return Cell("toy/one", "a row", "a column", model, {}, {}, **more)  # type: ignore[arg-type]


def test_data_that_is_missing_is_named_with_what_gets_it() -> None:
    needs = Look(Places(data=Path("/elsewhere"))).needs(of("clearclip_vitb16_voc20"))
    (line,) = needs.missing
    assert line.startswith(
        "/elsewhere/VOCdevkit/VOC2012/JPEGImages, /elsewhere/VOCdevkit/VOC2012/S"
    )
    assert line.endswith("unpack VOC 2012 trainval in data (docs/datasets.md#pas-20-and-pas-20b-"
                         "and-voc-21)")  # fmt: skip
    (download,) = needs.downloads
    assert download.startswith("openai of ViT-B-16-quickgelu (open_clip fetches it")


@pytest.mark.parametrize("model", ["dclip_rn50_voc2007", "fvit_openai_vitb16_ov-coco"])
def test_data_sets_of_other_kinds_are_missing_too(model: str) -> None:
    look = Look(Places(data=Path("/elsewhere")), deep=False)
    assert all(line.startswith("/elsewhere/") for line in look.data(of(model)))
    assert look.data(of(model))


def test_what_is_there_is_not_missing_and_packaged_weights_are_no_download() -> None:
    write_dataset(Path("data/shapes"), Settings(train=1, val=2, seed=3))
    assert Look(Places()).needs(of("shapes_clearclip")) == Needs(())
    shutil.move("data", "elsewhere")
    assert Look(Places(data=Path("elsewhere"))).needs(of("shapes_clearclip")) == Needs(())
    (Path("elsewhere/shapes/images/val")).rename("elsewhere/gone")
    (line,) = Look(Places(data=Path("elsewhere"))).needs(of("shapes_clearclip")).missing
    assert line.startswith("elsewhere/shapes/images/val: see docs/datasets.md")


def test_weights_in_a_folder_are_found_by_name() -> None:
    places = Places(weights=Path("given"))
    look = Look(places, deep=False)
    needs = look.needs(of("declip_vitb16_voc20"))
    assert any("DeCLIP_evab" in line and "get it from https://github.com/" in line
               for line in needs.missing)  # fmt: skip
    Path("given").mkdir()
    name = "DeCLIP_evab_dinov2B_csa_560_0.25_seg.pt"
    Path("given", name).write_bytes(b"weights")
    needs = Look(places, deep=False).needs(of("declip_vitb16_voc20"))
    assert not any("DeCLIP_evab" in line for line in needs.missing)


def test_a_trained_model_needs_its_checkpoint_or_its_training() -> None:
    look = Look(Places(), deep=False)
    needs = look.needs(of("catseg_vitb16_a150"))
    assert any("must be trained" in line for line in needs.missing) and not needs.trains
    training = Training("catseg_vitb16_coco-stuff")
    needs = look.needs(of("catseg_vitb16_a150", training=training, checkpoint=True))
    assert needs.trains and needs.checkpoint is None
    assert any("coco_stuff164k/annotations/train2017" in line for line in needs.missing)
    Path("checkpoints").mkdir()
    Path("checkpoints/catseg_vitb16_coco-stuff.pth").write_bytes(b"weights")
    needs = Look(Places(), deep=False).needs(
        of("catseg_vitb16_a150", training=training, checkpoint=True)
    )
    assert needs.checkpoint == "checkpoints/catseg_vitb16_coco-stuff.pth" and not needs.trains
    assert not any("train2017" in line for line in needs.missing) and not needs.downloads


def test_the_plan_groups_cells_that_lack_the_same() -> None:
    cells = [cell(row, "VOC20") for row in ("one", "two", "three")]
    lacking = {one.name: Needs(("VOC 2012: unpack it",)) for one in cells}
    text = list(plan_lines(table(*cells), cells, lacking))
    assert text[1:] == [
        "can be run: 0 of 3 cells",
        "missing:",
        "  VOC 2012: unpack it; for one | VOC20; two | VOC20 and 1 more",
    ]
    ready = {**lacking, cells[0].name: Needs((), ("weights",), None, True)}
    trained = [cell("one", "VOC20", training=Training("a", ("b=1",))), *cells[1:]]
    text = list(plan_lines(table(*trained), trained, ready))
    assert text[1:6] == ["can be run: 1 of 3 cells", "downloaded before:", "  weights",
                         "trained before:", "  a with b=1"]  # fmt: skip


def test_rows_and_columns_are_chosen_by_patterns() -> None:
    cells = [cell(row, column) for row in ("CLIP, B", "ours, B") for column in ("VOC", "ADE")]
    one = table(*cells)
    assert select_cells(one, ()) == cells
    assert select_cells(one, ("ours*",)) == cells[2:]
    assert select_cells(one, ("ours* | ADE", "VOC")) == [cells[0], cells[2], cells[3]]
    with pytest.raises(
        ValueError, match=r"--only 'COCO' fits no cell .*rows: CLIP, B; ours, B; col"
    ):
        select_cells(one, ("COCO",))


def test_every_source_is_in_the_guide() -> None:
    guide = (ROOT / GUIDE).read_text("utf-8")
    slugs = {
        "".join(c for c in line.lstrip("# ").lower().replace(" ", "-") if c.isalnum() or c in "-_")
        for line in guide.splitlines()
        if line.startswith("#")
    }
    for name, source in SOURCES.items():
        assert source.section in slugs, name
        assert f"data/{name}" in guide, name
        tools = [word for word in source.how.split() if word.startswith("tools/")]
        assert all(tool in guide and (ROOT / tool).is_file() for tool in tools), name


def test_paths_of_configs_are_put_where_data_and_weights_lie() -> None:
    places = Places(Path("/d"), Path("w"))
    given = {"a": ["data/x", ("checkpoints/y", "database")], "b": "data", "c": 1}
    assert places.put(given) == {"a": ["/d/x", ("w/y", "database")], "b": "/d", "c": 1}


def test_all_our_tables_are_listed_with_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    known = plan.tables()
    some = [one for one in known if one.name in ("clearclip/without-background", "fvit/transfer")]
    monkeypatch.setattr(plan, "tables", lambda: some)
    line, _ = plan.list_lines(Places())
    assert line == (
        "clearclip/without-background (clearclip/table2): Segmentation without a background class, "
        "ViT-B/16 and ViT-L/14 (ClearCLIP (ECCV 2024)): 45 cells; no data for VOC20, Context59, "
        "Stuff, Cityscapes, ADE20K"
    )


def test_looking_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(on_disk, "fetch_weights", refused)
    monkeypatch.setattr(on_disk, "downloaded_to", refused)
    Look(Places(), deep=False).needs(of("clearclip_vitl14_voc20"))
