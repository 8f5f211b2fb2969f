"""mmengine finds our configs and models by name: its hub, ``_base_``, inferencers of any scope."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.hub import get_config, get_model
from mmengine.infer import BaseInferencer
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import Runner
from mmseg.apis import MMSegInferencer

from mmclipdis.compat.hub import MIM, install_hub, name_package
from mmclipdis.shapes.coco import Settings, write_dataset
from tests.distributions import Install
from tests.paths import ROOT

pytestmark = [  # of mmengine, and of mmseg about a model that has its weights from its config
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
    pytest.mark.filterwarnings("ignore:(Checkpoint is not loaded|weights is None):UserWarning"),
    pytest.mark.filterwarnings("ignore:Failed to add:UserWarning"),
]


@pytest.fixture(scope="module")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_dataset(folder, Settings(train=2, val=1))
    return folder


def test_the_package_has_configs_tools_and_index_where_mm_looks() -> None:
    assert (MIM / "configs" / "shapes" / "clearclip.py").is_file()
    assert (MIM / "tools" / "train.py").is_file() and (MIM / "tools" / "test.py").is_file()
    assert (MIM / "model-index.yml").read_text() == (ROOT / "model-index.yml").read_text()


def test_the_hub_reads_a_config_by_name() -> None:
    config = get_config("mmclipdis::clearclip/clearclip_vitb16_ade20k.py")
    assert config.model.backbone.type == "ClearCLIPViT" and config.default_scope == "mmseg"
    assert get_config("mmclipdis::declip/ablations/table11_context0.1.py").model.type == "DeCLIP"


@pytest.mark.parametrize(
    ("name", "kind", "part"),
    [
        ("clearclip", "OpenVocabSegmentor", "decode_head"),
        ("fvit", "FViT", "neck"),  # mmseg has an FPN as well
        ("declip_distill", "DeCLIP", "student"),
    ],
)
def test_the_hub_builds_models_of_each_scope(name: str, kind: str, part: str) -> None:
    before = DefaultScope.get_current_instance()
    model = get_model(f"mmclipdis::shapes/{name}.py")
    assert type(model).__name__ == kind
    if name == "fvit":
        assert type(model.neck).__module__.startswith("mmdet.")
    assert hasattr(model, part)
    assert DefaultScope.get_current_instance() is before or before is None


@pytest.mark.parametrize("name", ["mmclipdis::shapes/clearclip.py", "mmclipdis::shapes/fvit.py"])
def test_a_config_of_the_user_builds_on_one_of_ours(
    tmp_path: Path, name: str, shapes_root: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        f"_base_ = {name!r}\n"
        f"test_dataloader = dict(dataset=dict(data_root={str(shapes_root)!r}))\n"
        f"work_dir = {str(tmp_path / 'work')!r}\n"
    )
    config = Config.fromfile(path)
    config.pop("train_dataloader")  # for CAT-Seg; nothing here is trained
    config.train_cfg = config.optim_wrapper = config.param_scheduler = None
    runner = Runner.from_cfg(config)
    own = Config.fromfile(ROOT / "configs" / name.partition("::")[2])
    assert type(runner.model) is type(MODELS.build({**own.model, "_scope_": own.default_scope}))
    dataset = runner.build_dataloader(config.test_dataloader).dataset
    assert len(dataset) and dataset[0]["inputs"].shape[0] == 3


def test_the_scope_in_use_is_asked_first_for_what_both_libraries_have() -> None:
    for scope in ("mmseg", "mmdet"):
        DefaultScope.get_instance(f"before {scope}", scope_name=scope)
        with DATASETS.switch_scope_and_registry("mmclipdis") as registry:
            assert registry.get("CityscapesDataset").__module__.startswith(f"{scope}.")
        assert DefaultScope.get_current_instance().scope_name == scope


def test_a_type_that_nobody_has_is_named() -> None:
    with (
        DefaultScope.overwrite_default_scope("mmclipdis"),
        pytest.raises(KeyError, match="Clearclip is not in the mmclipdis"),
    ):
        MODELS.build(dict(type="Clearclip"))


def test_models_are_listed_behind_those_of_their_library_and_all_in_our_own_scope() -> None:
    ours = BaseInferencer.list_models("mmclipdis")
    segmentors = [name for name in BaseInferencer.list_models("mmseg") if name in ours]
    detectors = [name for name in BaseInferencer.list_models("mmdet") if name in ours]
    assert BaseInferencer.list_models("mmseg")[-len(segmentors) :] == segmentors
    assert "clearclip_vitb16_voc20" in segmentors and "clearclip-vitb16" in segmentors
    assert "shapes_catseg_declip" in segmentors
    assert "fvit_declip_vitb16_ov-coco" in detectors and not {*segmentors} & {*detectors}
    # no inferencer takes what recognises images or distils
    assert {"shapes_dclip", "shapes_declip_distill"} <= {*ours} - {*segmentors, *detectors}


def test_a_detector_is_no_model_of_mmseg() -> None:
    with pytest.raises(ValueError, match="Cannot find model: shapes_fvit in mmseg"):
        MMSegInferencer("shapes_fvit", device="cpu")


@pytest.mark.parametrize("scope", ["mmseg", "mmclipdis"])
def test_mmseg_builds_a_model_by_name(scope: str) -> None:
    inferencer = MMSegInferencer("shapes_clearclip", scope=scope, device="cpu")
    assert type(inferencer.model).__name__ == "OpenVocabSegmentor"
    assert inferencer.cfg.filename.endswith("configs/shapes/clearclip.py")


def test_mmdet_finds_a_model_by_name() -> None:
    inferencer = DetInferencer.__new__(DetInferencer)
    for inferencer.scope in ("mmdet", "mmclipdis"):
        for name in ("Shapes_FViT", "fvit-shapes"):
            config, weights = inferencer._load_model_from_metafile(name)
            assert config.model.type == "FViT" and Path(weights).is_file()  # it ships
        config, weights = inferencer._load_model_from_metafile("fvit-openai-vitb16")
        assert config.model.type == "FViT" and weights is None


def test_other_packages_and_their_weights_are_as_they_were() -> None:
    inferencer = MMSegInferencer.__new__(MMSegInferencer)
    inferencer.scope = "mmseg"
    config, weights = inferencer._load_model_from_metafile(
        "fcn_r50-d8_4xb2-40k_cityscapes-512x1024"
    )
    assert config.model.type == "EncoderDecoder" and weights.startswith("https://")
    assert get_config("mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py").model == config.model


def test_mmseg_of_the_fork_is_found_by_name(only: Install) -> None:
    known = SimpleNamespace(MODULE2PACKAGE={"mmseg": "mmsegmentation"})
    only({"onedl-mmsegmentation": "1.4.2"})
    name_package(known)
    assert known.MODULE2PACKAGE == {"mmseg": "mmseg", "mmclipdis": "mmclipdis.version"}
    only({"mmsegmentation": "1.2.2"})  # it and the fork: as mmengine has it
    known.MODULE2PACKAGE["mmseg"] = "mmsegmentation"
    name_package(known)
    assert known.MODULE2PACKAGE["mmseg"] == "mmsegmentation"


def test_installing_twice_lists_each_model_once() -> None:
    once = BaseInferencer.list_models("mmclipdis")
    install_hub()
    install_hub()
    names = BaseInferencer.list_models("mmclipdis")
    assert names == once  # an alias may stand for a segmentor and a tagger
    assert all(names.count(name) == 1 for name in names if "_" in name)
