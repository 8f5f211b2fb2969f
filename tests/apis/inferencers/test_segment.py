"""Free-text segmentation from Python: names in, labels and a picture with a legend out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from PIL import Image

from mmclipdis.apis import OpenVocabSegInferencer, segment
from mmclipdis.apis.segment import Segmentation
from mmclipdis.engine.downloads import place_of
from mmclipdis.visualization import class_palette
from tests.models.segmentation.fakes import head_cfg, make_segmentor
from tests.paths import ROOT

# The fake segmentor names the strongest colour of each 4 x 4 patch, in the order of its classes.
NAMES = ["red", "green", "blue", "ground"]
SHAPES = ROOT / "configs" / "shapes"


def photo(height: int = 8, width: int = 12) -> np.ndarray:
    """Left half red, right half blue, RGB."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[:, : width // 2, 0] = 255
    picture[:, width // 2 :, 2] = 255
    return picture


def make_config() -> Config:
    """A config as the benchmarks have it: labels loaded, photos resized, BGR to RGB."""
    return Config(
        {
            "default_scope": "mmseg",
            "model": {
                "type": "OpenVocabSegmentor",
                "backbone": {"type": "PatchMeanBackbone"},
                "decode_head": head_cfg(vocabulary="dataset", embeddings=torch.eye(4)),
                "data_preprocessor": {
                    "type": "MixedSizeSegDataPreProcessor",
                    "mean": [0, 0, 0],
                    "std": [255, 255, 255],
                    "bgr_to_rgb": True,
                },
                "test_cfg": {"mode": "whole"},
            },
            "test_dataloader": {
                "dataset": {
                    "type": "BaseSegDataset",
                    "metainfo": {"classes": tuple(NAMES)},
                    "pipeline": [
                        {"type": "LoadReadableImage"},
                        {"type": "Resize", "scale": (2048, 16), "keep_ratio": True},
                        {"type": "LoadReadableAnnotations"},
                        {"type": "PackSegInputs"},
                    ],
                }
            },
        }
    )


@pytest.fixture(scope="module")
def inferencer() -> OpenVocabSegInferencer:
    return OpenVocabSegInferencer(make_config(), device="cpu")


def test_labels_are_named_and_at_the_size_of_the_photo(inferencer) -> None:
    (result,) = inferencer(photo(), NAMES)
    assert result.labels.shape == (8, 12)
    assert result.names[result.labels[4, 0]] == "red"
    assert result.names[result.labels[4, 11]] == "blue"
    shares = result.shares()
    assert {"red", "blue"} <= set(shares)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_files_arrays_and_pillow_images_give_the_same(inferencer, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(photo()).save(path)
    results = inferencer([path, str(path), photo(), Image.fromarray(photo())], NAMES)
    for result in results:
        assert np.array_equal(result.labels, results[0].labels)
        assert np.array_equal(result.photo, photo())
    assert results[0].path == path
    assert results[2].path is None


def test_photo_turned_by_its_exif_tag_fits_its_labels(inferencer, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    Image.fromarray(photo()).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    (result,) = inferencer(tmp_path / "turned.jpg", NAMES)
    assert result.labels.shape == result.photo.shape[:2] == (12, 8)


def test_names_may_be_typed_with_commas_or_have_synonyms(inferencer) -> None:
    (typed,) = inferencer(photo(), "red, green, blue , ground")
    assert typed.names == tuple(NAMES)
    (grouped,) = inferencer(photo(), [["red", "green"], "blue", "ground"])
    assert grouped.names == ("red", "blue", "ground")
    assert grouped.names[grouped.labels[4, 0]] == "red"
    assert grouped.names[grouped.labels[4, 11]] == "blue"


def test_without_names_the_classes_of_the_data_set_are_used() -> None:
    (result,) = OpenVocabSegInferencer(make_config(), device="cpu")(photo())
    assert result.names == tuple(NAMES)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_photos_of_several_sizes_in_one_batch(inferencer, batch_size: int) -> None:
    photos = [photo(8, 12), photo(20, 8), photo(9, 31)]
    results = inferencer(photos, NAMES, batch_size=batch_size)
    for picture, result in zip(photos, results, strict=True):
        (alone,) = inferencer(picture, NAMES)
        assert np.array_equal(result.labels, alone.labels)


def test_built_models_and_stock_segmentors_work(tmp_path: Path) -> None:
    ours = make_segmentor(mode="whole").float()
    with DefaultScope.overwrite_default_scope("mmseg"):
        stock = EncoderDecoder(
            backbone={"type": "PatchMeanBackbone"},
            decode_head=head_cfg(num_classes=4),
            data_preprocessor={"type": "SegDataPreProcessor", "bgr_to_rgb": True},
            test_cfg=Config({"mode": "whole"}),
        )
    ours.data_preprocessor = stock.data_preprocessor
    (a, b), (c, d) = (
        OpenVocabSegInferencer(model, device="cpu")([photo(), photo(16, 8)], NAMES, batch_size=2)
        for model in (ours, stock)
    )
    assert np.array_equal(a.labels, c.labels)
    assert np.array_equal(b.labels, d.labels)
    assert set(a.shares()) == {"red", "blue"}


def test_segment_is_the_short_form_and_saves_a_picture(inferencer, tmp_path: Path) -> None:
    result = segment(photo(), NAMES, inferencer)
    assert np.array_equal(result.labels, inferencer(photo(), NAMES)[0].labels)
    path = result.save(tmp_path / "new" / "out.png")
    with Image.open(path) as sheet:
        assert sheet.width > 3 * 360
    inferencer(photo(), NAMES, out_dir=tmp_path / "all")
    assert [p.name for p in (tmp_path / "all").iterdir()] == ["0000_photo.png"]


def test_class_255_of_a_large_vocabulary_gets_its_colour(tmp_path: Path) -> None:
    names = tuple(f"name {i}" for i in range(300))
    labels = np.full((40, 40), 255)
    path = Segmentation(labels, names, np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "a.png")
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet)
    colour = np.array(class_palette(300)[255])
    assert (pixels == colour).all(axis=-1).sum() > 360 * 360  # label map and legend
    assert (pixels == (colour * 0.6).round()).all(axis=-1).sum() == 360 * 360  # overlay on black


def test_checkpoint_is_loaded_over_the_first_weights(tmp_path: Path) -> None:
    model = make_segmentor(mode="whole").float()
    model.backbone.gain.data = torch.tensor([1.0, 1.0, 0.0])
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.pth")
    inferencer = OpenVocabSegInferencer(make_config(), tmp_path / "a.pth", device="cpu")
    (result,) = inferencer(photo(), NAMES)
    assert set(result.shares()) == {"red", "ground"}


def test_checkpoint_may_be_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_segmentor(mode="whole").float()
    model.backbone.gain.data = torch.tensor([1.0, 1.0, 0.0])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    address = "https://nowhere.invalid/a.pth"
    place_of(address).parent.mkdir(parents=True)  # as if downloaded before
    torch.save({"state_dict": model.state_dict()}, place_of(address))
    inferencer = OpenVocabSegInferencer(make_config(), address, "cpu")
    assert set(inferencer(photo(), NAMES)[0].shares()) == {"red", "ground"}


def test_options_leave_the_config_of_the_caller_alone() -> None:
    config = make_config()
    options = {"model.decode_head.prob_thd": 0.5}
    changed = OpenVocabSegInferencer(config, device="cpu", cfg_options=options)
    assert changed.model.decode_head.prob_thd == 0.5
    assert "prob_thd" not in config.model.decode_head


def test_options_for_what_is_built_already_are_refused(inferencer, tmp_path: Path) -> None:
    model = make_segmentor(mode="whole").float()
    for options in ({"checkpoint": tmp_path / "a.pth"}, {"cfg_options": {"model.a": 1}}):
        with pytest.raises(ValueError, match="built already"):
            OpenVocabSegInferencer(model, **options)
    with pytest.raises(ValueError, match=r"built already: it takes no \['device'\]"):
        segment(photo(), NAMES, inferencer, device="cpu")


def test_bad_input_is_named(inferencer, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ValueError, match=r"cannot read .*text\.jpg"):
        inferencer(tmp_path / "text.jpg", NAMES)
    with pytest.raises(FileNotFoundError, match=r"absent\.jpg"):
        inferencer(tmp_path / "absent.jpg", NAMES)
    with pytest.raises(ValueError, match="RGB uint8"):
        inferencer(photo().astype(np.float32), NAMES)
    with pytest.raises(ValueError, match="without pixels"):
        inferencer(photo()[:0], NAMES)
    with pytest.raises(ValueError, match="at least one class name"):
        inferencer(photo(), "")
    with pytest.raises(FileNotFoundError, match=r"no\.pth"):
        OpenVocabSegInferencer(make_config(), tmp_path / "no.pth")
    with pytest.raises(FileNotFoundError, match=r"no\.py"):
        OpenVocabSegInferencer(tmp_path / "no.py")
    with pytest.raises(ValueError, match="fixed classes"):
        OpenVocabSegInferencer(torch.nn.Identity())


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    config = Config.fromfile(SHAPES / "infoclip.py")
    with pytest.raises(ValueError, match=r"no weights for segmentor\.decode_head"):
        OpenVocabSegInferencer(config, device="cpu")
    plain = MODELS.build(config.model.segmentor).state_dict()
    whole = {f"segmentor.{name}": value for name, value in plain.items()}
    torch.save({"state_dict": whole}, tmp_path / "infoclip.pth")
    fits = OpenVocabSegInferencer(config, tmp_path / "infoclip.pth", device="cpu")
    heat = fits(photo(64, 64), ["apple", "sand"])[0].heatmap("fish")  # of the CAT-Seg inside
    assert heat.kind == "probability" and heat.values.shape == (64, 64)
    assert 0 <= heat.values.min() < heat.values.max() <= 1
    lost = whole.popitem()[0]
    torch.save({"state_dict": whole}, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=f"1 of the model's are missing .{lost}"):
        OpenVocabSegInferencer(config, tmp_path / "part.pth", device="cpu")


def test_names_are_read_as_configs_read_them(inferencer, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("red, green\nblue\nground\n", encoding="utf-8")
    (expected,) = inferencer(photo(), [["red", "green"], "blue", "ground"])
    forms: list[Any] = [
        {"red": ["green"], "blue": None, "ground": []},
        "[red, green], blue, ground",
        "red, green\nblue\nground",
        tmp_path / "names.txt",
        str(tmp_path / "names.txt"),
        {"file": str(tmp_path / "names.txt")},
    ]
    for names in forms:
        (found,) = inferencer(photo(), names)
        assert found.names == expected.names == ("red", "blue", "ground")
        assert np.array_equal(found.labels, expected.labels)


@pytest.mark.filterwarnings("ignore:prob_thd")
def test_words_without_a_background_leave_doubtful_pixels_unnamed(tmp_path: Path) -> None:
    config = make_config()
    config.model.decode_head.update(prob_thd=0.9, background_index=3)  # of the data set: ground
    doubtful = OpenVocabSegInferencer(config, device="cpu")
    (own,) = doubtful(photo())
    assert set(own.shares()) == {"ground"}
    (typed,) = doubtful(photo(), ["red", "green", "blue", "sky"])
    assert set(typed.shares()) == {"none"} and typed.nothing == 255
    assert (typed.labels == 255).all()
    with Image.open(typed.save(tmp_path / "a.png", opacity=1.0)) as sheet:
        pixels = np.asarray(sheet)
    # left and middle show the photo
    assert (pixels == (255, 0, 0)).all(-1).sum() == 2 * (pixels[:, :500] == (255, 0, 0)).all(
        -1
    ).sum()


def test_a_line_of_pixels_is_segmented_and_drawn(inferencer, tmp_path: Path) -> None:
    for size in ((1, 3000), (3000, 1)):
        (result,) = inferencer(np.zeros((*size, 3), np.uint8), NAMES)
        assert result.labels.shape == size
        with Image.open(result.save(tmp_path / "a.png")) as sheet:
            assert sheet.width * sheet.height < 5e6
