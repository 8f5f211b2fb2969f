"""Checkpoints are read without running what they contain."""

from __future__ import annotations

import argparse
import functools
import io
import os
import pickle
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import checkpoint as stock
from mmengine.runner.checkpoint import _load_checkpoint
from safetensors.torch import save_file

from mmclipdis.engine import UnsafeCheckpointError, read_checkpoint
from tests.clip.weights.archives import Box, WritesFile, scripted


class Harmful:
    """Pickles into a call; loading it unsafely would create the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_stock_mmengine_checkpoints_are_read_safely(tmp_path: Path) -> None:
    hub = MessageHub("stock")
    hub.update_scalar("train/loss", 2.5)
    hub.update_info("score", np.float64(0.25))
    torch.save({"state_dict": {"w": torch.ones(2)}, "message_hub": hub.state_dict()},
               tmp_path / "iter.pth")  # fmt: skip
    methods = dict(HistoryBuffer._statistics_methods)
    checkpoint = read_checkpoint(tmp_path / "iter.pth")
    history = checkpoint["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(history, HistoryBuffer) and history.data[0].tolist() == [2.5]
    assert checkpoint["message_hub"]["runtime_info"]["score"] == 0.25
    assert HistoryBuffer._statistics_methods == methods
    MessageHub("other").load_state_dict(checkpoint["message_hub"])


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "harmful.pth"
    torch.save({"state_dict": Harmful(tmp_path / "broken_in")}, path)
    with pytest.raises(UnsafeCheckpointError, match="could run code.*re-save its weights") as error:
        read_checkpoint(path)
    assert "mkdir" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "broken_in").exists()


def test_the_error_names_foreign_classes(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=1)}, tmp_path / "foreign.pth")
    with pytest.raises(UnsafeCheckpointError, match=r"\(argparse\.Namespace\)"):
        read_checkpoint(tmp_path / "foreign.pth")


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file({"w": torch.arange(3.0)}, tmp_path / "weights.safetensors")
    state = read_checkpoint(tmp_path / "weights.safetensors")["state_dict"]
    assert torch.equal(state["w"], torch.arange(3.0))


def test_a_cut_file_is_one_clear_error(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.ones(1000)}}, tmp_path / "cut.pth")
    data = (tmp_path / "cut.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnsafeCheckpointError, match="cannot be read.*cut short"):
        read_checkpoint(tmp_path / "cut.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing.pth' does not exist"):
        read_checkpoint(tmp_path / "nothing.pth")


def test_mmengine_loads_through_the_safe_reader(tmp_path: Path) -> None:
    torch.save({"state_dict": Harmful(tmp_path / "broken_in")}, tmp_path / "harmful.pth")
    with pytest.raises(UnsafeCheckpointError):
        _load_checkpoint(str(tmp_path / "harmful.pth"))


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server of the files in ``tmp_path``; downloads go to ``tmp_path/hub``."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def name_the_models(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for table in ("get_torchvision_models", "get_external_models", "get_mmcls_models"):
        monkeypatch.setattr(stock, table, lambda: {"net": url})


ADDRESSES = ["{url}", "torchvision://net", "modelzoo://net", "open-mmlab://net", "openmmlab://net",
             "mmcls://net"]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_code_in_a_downloaded_checkpoint_is_refused_and_not_run(
    tmp_path: Path, site: str, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    torch.save({"state_dict": Harmful(tmp_path / "broken_in")}, tmp_path / "harmful.pth")
    name_the_models(monkeypatch, f"{site}/harmful.pth")
    with pytest.raises(UnsafeCheckpointError, match="could run code"):
        _load_checkpoint(address.format(url=f"{site}/harmful.pth"))
    assert not (tmp_path / "broken_in").exists()


@pytest.mark.parametrize("address", ADDRESSES)
def test_weights_are_downloaded_once(
    tmp_path: Path, site: str, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    torch.save({"state_dict": {"backbone.w": torch.arange(3.0)}}, tmp_path / "good.pth")
    name_the_models(monkeypatch, f"{site}/good.pth")
    for _ in range(2):
        state = _load_checkpoint(address.format(url=f"{site}/good.pth"))["state_dict"]
        key = "w" if address.startswith("mmcls") else "backbone.w"
        assert torch.equal(state[key], torch.arange(3.0))
        (tmp_path / "good.pth").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=r"cannot download .*/absent\.pth"):
        _load_checkpoint(f"{site}/absent.pth")


def test_names_without_a_model_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    name_the_models(monkeypatch, "http://nowhere")
    with pytest.raises(ValueError, match="no model 'nett'; did you mean net"):
        _load_checkpoint("torchvision://nett")


def test_code_in_a_checkpoint_of_an_object_store_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": Harmful(tmp_path / "broken_in")}, buffer)
    store = SimpleNamespace(get=lambda _: buffer.getvalue())
    monkeypatch.setattr(stock, "get_file_backend", lambda *_, **__: store)
    with pytest.raises(UnsafeCheckpointError, match="s3://bucket/harmful.pth' holds .*mkdir"):
        _load_checkpoint("s3://bucket/harmful.pth")
    assert not (tmp_path / "broken_in").exists()


def test_a_checkpoint_of_an_object_store_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"w": torch.arange(3.0)}}, buffer)
    store = SimpleNamespace(get=lambda _: buffer.getvalue())
    monkeypatch.setattr(stock, "get_file_backend", lambda *_, **__: store)
    for address in ("s3://bucket/a.pth", "petrel://bucket/a.pth", "open:s3://bucket/a.pth"):
        assert torch.equal(_load_checkpoint(address)["state_dict"]["w"], torch.arange(3.0))


def test_no_loader_of_mmengine_is_left() -> None:
    """Theirs unpickle what they get, in a fork even after a refusal."""
    for prefix, loader in stock.CheckpointLoader._schemes.items():
        assert loader.__module__.startswith("mmclipdis."), prefix


def test_torchscript_archives_are_read_as_data(tmp_path: Path) -> None:
    box = Box({"a.w": torch.arange(3.0), "b": torch.ones(1)})
    state = _load_checkpoint(str(scripted(tmp_path / "a.pt", box)))["state_dict"]
    assert torch.equal(state["a.w"], torch.arange(3.0)) and set(state) == {"a.w", "b"}
    scripted(tmp_path / "b.pt", WritesFile(str(tmp_path / "written")))
    with pytest.raises(UnsafeCheckpointError, match="b.pt' is not read: .*__setstate__"):
        _load_checkpoint(str(tmp_path / "b.pt"))
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    "place", ["state_dict", "ema_state_dict", "model", None, "safetensors", "script"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, place: str, value: float) -> None:
    state = {"fine": torch.ones(2), "head.w": torch.tensor([[1.0, value], [value, 2.0]])}
    path = tmp_path / ("a.safetensors" if place == "safetensors" else "a.pth")
    if place == "safetensors":
        save_file(state, path)
    elif place == "script":
        scripted(path, Box(state))
    else:
        torch.save({place: state} if place else state, path)
    with pytest.raises(ValueError, match=r"a\.\w+': head\.w \(2 of 4 values\) is NaN"):
        read_checkpoint(path)


def test_masks_may_hold_minus_infinity_but_not_nan(tmp_path: Path) -> None:
    mask = torch.full((2, 2), float("-inf"))
    torch.save({"state_dict": {"text.attn_mask": mask}}, tmp_path / "a.pth")
    assert torch.equal(read_checkpoint(tmp_path / "a.pth")["state_dict"]["text.attn_mask"], mask)
    torch.save({"text.attn_mask": mask * 0}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"text.attn_mask \(4 of 4 values\) is NaN"):
        read_checkpoint(tmp_path / "b.pth")


def test_advice_to_read_unsafely_is_not_repeated(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "old.pth", "w") as file:  # torch before 0.1.10
        for name in ("storages", "tensors", "pickle", "sys_info"):
            (tmp_path / name).write_bytes(pickle.dumps({}))
            file.add(tmp_path / name, name)
    pickled = {"old.pkl": pickle.dumps(Path("x")), "empty.pth": b"", "text.pth": b"no weights"}
    for name, content in pickled.items():
        (tmp_path / name).write_bytes(content)
    for name in ("old.pth", *pickled):
        with pytest.raises(UnsafeCheckpointError, match="cannot be read") as caught:
            read_checkpoint(tmp_path / name)
        assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)
