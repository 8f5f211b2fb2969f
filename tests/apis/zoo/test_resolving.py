"""A name becomes a config with weights that are on this machine, or one line says what to do."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmclipdis.apis.zoo import DEFAULTS, find, models, on_disk, resolve, resolving, sources
from mmclipdis.apis.zoo.sources import cache_folder, catalogue
from mmclipdis.clip.weights import fetching
from tests.paths import ROOT

STUDENT = "DeCLIP_evab_dinov2B_csa_560_0.25_seg.pt"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without checkpoints, an empty cache, and no tag that is asked for anywhere."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(on_disk, "fetch_weights", lambda arch, tag: Path("of", arch, tag))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("task", DEFAULTS)
def test_without_a_name_it_is_the_packaged_model(task: str) -> None:
    found = resolve(None, task)
    assert found.info == models(task)[0]
    assert (found.checkpoint is None) == (task != "detect")


@pytest.mark.parametrize(
    "name",
    [
        "clearclip-shapes",
        "shapes_clearclip",
        "Shapes-ClearCLIP.py",
        "shapes/clearclip.py",
        "mmclipdis::shapes/clearclip.py",
        str(ROOT / "configs/shapes/clearclip.py"),
    ],
)
def test_names_aliases_and_files_of_one_model(name: str) -> None:
    found = resolve(name, "segment")
    assert found.info.name == "clearclip-shapes"
    assert found.config.model.backbone.type == "ClearCLIPViT"


def test_a_config_of_ones_own_is_no_model_of_the_zoo(nowhere: Path) -> None:
    (nowhere / "mine.py").write_text("default_scope = 'mmseg'\nmodel = dict(type='A', b=1)\n")
    found = resolve("mine.py", "segment", cfg_options={"model.b": 2})
    assert found.info is None and found.checkpoint is None and found.config.model.b == 2
    with pytest.raises(ValueError, match=r"'mine\.py' segments photos and cannot detect"):
        resolve("mine.py", "detect")
    with pytest.raises(ValueError, match="cfg_options do not fit the config 'mine.py'"):
        resolve("mine.py", "segment", cfg_options={"model.b.c.d": 2})


def test_a_file_in_the_folder_of_downloads_does() -> None:
    place = cache_folder() / STUDENT
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    config = resolve("declip-vitb16", "segment").config
    assert config.model.backbone.init_cfg.checkpoint == str(place)
    assert cache_folder() == Path(torch.hub.get_dir()) / "checkpoints"


def test_a_file_where_the_config_says_comes_first(nowhere: Path) -> None:
    (nowhere / "checkpoints").mkdir()
    (nowhere / "checkpoints" / STUDENT).write_bytes(b"weights")
    config = resolve("declip-vitb16", "segment").config
    assert config.model.backbone.init_cfg.checkpoint == f"checkpoints/{STUDENT}"


def test_tags_are_fetched_once_and_after_files_that_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(on_disk, "fetch_weights", lambda *what: asked.append(what))
    resolve("clearclip-vitb16", "segment")
    assert asked == [("ViT-B-16-quickgelu", "openai")]
    with pytest.raises(FileNotFoundError, match="eva_vitb16_coco_clipself_proposals"):
        resolve("fvit-clipself-vitb16", "detect", weights=__file__)
    assert len(asked) == 1


def test_a_checkpoint_is_the_given_one_or_one_that_lies_under_the_name(nowhere: Path) -> None:
    given = nowhere / "a.pth"
    given.write_bytes(b"")
    assert resolve("fvit-shapes", "detect", given).checkpoint == str(given)
    assert resolve("fvit-shapes", "detect", "https://a.b/c.pth").checkpoint == "https://a.b/c.pth"
    cache_folder().mkdir(parents=True)
    for name in ("catseg-shapes", "shapes_infoclip"):
        (cache_folder() / f"{name}.pth").write_bytes(b"")
    assert resolve("catseg-shapes", "segment").checkpoint.endswith("catseg-shapes.pth")
    assert resolve("infoclip-shapes", "segment").checkpoint.endswith("shapes_infoclip.pth")


def test_a_file_alone_may_be_without_weights() -> None:
    """What loads it says so: the options of a config can bring weights in many ways."""
    assert resolve("shapes/catseg.py", "segment").checkpoint is None


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def address(nowhere: Path) -> Iterator[str]:
    (nowhere / "site").mkdir()
    (nowhere / "site" / STUDENT).write_bytes(b"weights")
    handler = partial(Quiet, directory=str(nowhere / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{STUDENT}"
        server.shutdown()


def test_what_has_an_address_is_downloaded_once_and_checked(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"url": address, "sha256": hashlib.sha256(b"weights").hexdigest()}
    entries = {**catalogue(), STUDENT: {**catalogue()[STUDENT], **known}}
    monkeypatch.setattr(sources, "catalogue", lambda: entries)
    place = cache_folder() / STUDENT
    for url in (address, "http://127.0.0.1:9/nobody"):
        known["url"] = url  # the second time nobody is asked
        entries[STUDENT] = {**entries[STUDENT], **known}
        config = resolve("declip-vitb16", "segment").config
        assert config.model.backbone.init_cfg.checkpoint == str(place)
    place.write_bytes(b"others")
    with pytest.raises(ValueError, match=f"{place} is not the file .*; delete it"):
        resolve("declip-vitb16", "segment")
    place.unlink()
    line = rf"cannot download .*refused.*; fetch it .*xiaomoguhz/DeCLIP\) and put it to {place}"
    with pytest.raises(FileNotFoundError, match=line):
        resolve("declip-vitb16", "segment")


def test_a_tag_is_taken_from_the_folder_of_open_clip(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "FOLDER", nowhere)
    config = {"hf_hub": "a/b/"}
    (nowhere / "EVA02-B-16-t.safetensors").write_bytes(b"")
    assert fetching.fetch_tag("EVA02-B-16", "t", config).parent == nowhere
    url = f"https://a.b/{hashlib.sha256(b'right').hexdigest()}/ViT.pt"
    (nowhere / "ViT.pt").write_bytes(b"right")
    assert fetching.fetch_tag("ViT", "openai", {"url": url}) == nowhere / "ViT.pt"
    (nowhere / "ViT.pt").write_bytes(b"wrong")  # is not taken, and nobody sends another
    monkeypatch.setattr(fetching, "download", lambda url, place, sha256: (url, place, sha256))
    assert fetching.fetch_tag("ViT", "openai", {"url": url})[2] in url


@pytest.mark.parametrize(
    "name", [info.name for info in models() if info.short and "shapes" not in info.name][::4]
)
def test_what_the_list_says_is_downloaded_is_what_the_config_names(name: str) -> None:
    for info in filter(None, {find(name, task) for task in DEFAULTS}):
        config = Config.fromfile(info.path)
        named = {str(node[key]) for node, key, _ in on_disk.weight_sources(config.model)}
        listed = {one.where for one in info.downloads if not one.where.startswith("python")}
        assert {Path(one).name for one in named} == {Path(one).name for one in listed}


def test_the_task_of_a_config_is_told_by_its_model() -> None:
    for name, task in {"dclip": "tag", "declip_distill": "distil", "regions": "regions"}.items():
        config = Config.fromfile(ROOT / f"configs/shapes/{name}.py")
        resolving.check_config_task(config, task, name)
        with pytest.raises(ValueError, match="and cannot segment"):
            resolving.check_config_task(config, "segment", name)
