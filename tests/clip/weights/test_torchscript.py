"""TorchScript archives give the weights that PyTorch gives, and run nothing."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor, nn

from mmclipdis.clip.weights.files import read_file
from mmclipdis.clip.weights.torchscript import is_torchscript, read_torchscript
from tests.clip.weights.archives import Box, NeverEnds, WritesFile, scripted, with_file
from tests.tiny import tiny_arch

MARKS = ("input_resolution", "context_length", "vocab_size")


def openai_state() -> dict[str, Tensor]:
    """Names of OpenAI's files, in half precision where theirs are; every value another."""
    torch.manual_seed(0)
    state = dict(open_clip.CLIP(**tiny_arch()).state_dict())
    state = {k: v if "ln_" in k else v.half() for k, v in state.items() if k != "attn_mask"}
    return state | {name: torch.tensor(7) for name in MARKS}


class Odd(nn.Module):
    """All kinds of attributes: shared, transposed, empty, not persistent, plain and none."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2))
        self.again = nn.Parameter(self.weight.data)
        self.turned = nn.Parameter(torch.randn(4, 6)[:, 1:4].t())
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("kept", torch.arange(3), persistent=False)
        self.register_buffer("mask", torch.tensor([True, False]))
        self.layers = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2)])
        self.plain = torch.ones(2)
        self.number, self.names, self.table = 3, ["a", "b"], {"a": 1.0}
        self.nothing = None

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.plain * self.number


def assert_same(path: Path) -> None:
    expected = dict(torch.jit.load(str(path), map_location="cpu").state_dict())
    found = read_torchscript(path)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].stride() == value.stride(), name
        assert torch.equal(found[name], value), name
        assert not found[name].requires_grad


@pytest.mark.parametrize("how", ["script", "trace"])
def test_openais_names_are_read_as_pytorch_reads_them(tmp_path: Path, how: str):
    state = openai_state()
    box = Box(state)
    x = torch.ones(2)
    archive = torch.jit.script(box) if how == "script" else torch.jit.trace(box, x)
    archive.save(str(tmp_path / "clip.pt"))
    assert is_torchscript(tmp_path / "clip.pt")
    assert_same(tmp_path / "clip.pt")
    assert set(read_torchscript(tmp_path / "clip.pt")) == set(state)


@pytest.mark.parametrize("how", ["script", "trace"])
def test_every_kind_of_attribute_is_read_as_pytorch_reads_it(tmp_path: Path, how: str):
    x = torch.ones(4, 3)
    archive = torch.jit.script(Odd()) if how == "script" else torch.jit.trace(Odd(), x)
    archive.save(str(tmp_path / "odd.pt"))
    assert_same(tmp_path / "odd.pt")


def test_tied_weights_stay_one_memory(tmp_path: Path):
    state = read_torchscript(scripted(tmp_path / "odd.pt", Odd()))
    assert state["weight"].data_ptr() == state["again"].data_ptr()


def test_storages_of_a_gpu_come_to_the_cpu_from_the_old_layout(tmp_path: Path):
    """As OpenAI's: of "cuda:0", no list of buffers in the code, no byteorder."""
    source = scripted(tmp_path / "clip.pt", Box(openai_state()))
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "gpu.pt", "w") as new:
        for info in old.infolist():
            name, data = info.filename.replace("clip/", "archive/"), old.read(info)
            if name.endswith("/data.pkl"):
                short, long = (struct.pack("<I", len(d)) + d for d in (b"cpu", b"cuda:0"))
                assert short in data
                data = data.replace(b"X" + short, b"X" + long)
            if name.endswith(".py"):
                lines = data.decode().splitlines(keepends=True)
                data = "".join(x for x in lines if "__buffers__" not in x).encode()
            if not name.endswith("/byteorder"):
                new.writestr(name, data)
    expected, found = read_torchscript(source), read_torchscript(tmp_path / "gpu.pt")
    assert set(found) == set(expected)
    assert all(torch.equal(found[k], v) and not found[k].is_cuda for k, v in expected.items())


def test_setstate_is_not_run(tmp_path: Path):
    path = scripted(tmp_path / "a.pt", WritesFile(str(tmp_path / "written")))
    (tmp_path / "written").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"WritesFile is stored by a __setstate__ of its own"):
        read_file(path)
    assert not (tmp_path / "written").exists()
    torch.jit.load(str(path))
    assert (tmp_path / "written").exists(), "the archive of this test is harmless"


def test_setstate_that_never_ends_is_refused(tmp_path: Path):
    path = scripted(tmp_path / "a.pt", NeverEnds())
    with pytest.raises(ValueError, match=r"a\.pt' is not read: its .*NeverEnds is stored by a"):
        read_file(path)


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["data.pkl", "constants.pkl"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickled_calls_are_refused_by_name(tmp_path: Path, name: str, protocol: int):
    source = scripted(tmp_path / "a.pt", Box({"w": torch.ones(2)}))
    bomb = pickle.dumps({"w": Harmful(tmp_path / "broken_in")}, protocol=protocol)
    path = with_file(source, tmp_path / "b.pt", name, bomb)
    with pytest.raises(ValueError, match=r"b\.pt' is not read: it asks for (posix|nt)\.mkdir"):
        read_file(path)
    assert not (tmp_path / "broken_in").exists()


GLOBAL = b"c__torch__\nM\n"
MODULE = GLOBAL + b")\x81"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.", "builtins.eval", id="eval"),
        pytest.param(b"ctorch.serialization\nload\n.", "torch.serialization.load", id="load"),
        pytest.param(
            b"ccollections\nOrderedDict\n}b.", "gives a state to a type", id="class state"
        ),
        pytest.param(MODULE + b"Nb.", "__setstate__ of its own", id="no dict"),
        pytest.param(b"].", "holds a list, not a module", id="no module"),
        pytest.param(MODULE + b"}X\x01\x00\x00\x00wK\x01Qsb.", "is no storage", id="storage"),
        pytest.param(b"\x80\x02(.", "", id="damaged"),
        pytest.param(b"", "", id="empty"),
        pytest.param(
            GLOBAL + b")\x81q\x00}X\x01\x00\x00\x00mh\x00sb.",
            "too deep or are too many",
            id="cycle",
        ),
    ],
)
def test_whatever_else_is_in_the_pickle_is_one_error(tmp_path: Path, data: bytes, message: str):
    source = scripted(tmp_path / "a.pt", Box({"w": torch.ones(2)}))
    path = with_file(source, tmp_path / "b.pt", "data.pkl", data)
    with pytest.raises(ValueError, match=rf"b\.pt' is not read: .*{message}") as caught:
        read_file(path)
    assert "\n" not in str(caught.value)


def test_modules_within_modules_without_end_are_refused_at_once(tmp_path: Path):
    """40 modules, each twice in the next: 2^40 places of one weight."""
    data = MODULE + b"}b" + b"q\x00"
    for _ in range(40):
        data += b"0" + MODULE + b"}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00ub" + b"q\x00"
    source = scripted(tmp_path / "a.pt", Box({"w": torch.ones(2)}))
    with pytest.raises(ValueError, match="too deep or are too many"):
        read_file(with_file(source, tmp_path / "b.pt", "data.pkl", data + b"."))


def test_a_storage_shorter_than_its_tensor_is_refused(tmp_path: Path):
    source = scripted(tmp_path / "a.pt", Box({"w": torch.ones(8)}))
    path = with_file(source, tmp_path / "b.pt", "data/0", b"\x00" * 16)
    with pytest.raises(ValueError, match="data/0 holds 4 numbers, not 8"):
        read_file(path)


def test_large_compressed_files_are_refused(tmp_path: Path):
    source = scripted(tmp_path / "a.pt", Box({"w": torch.ones(2)}))
    bomb = tmp_path / "b.pt"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            large = info.filename.endswith("/data/0")
            new.writestr(info.filename, bytes(2**25) if large else old.read(info))
    assert bomb.stat().st_size < 2**17
    with pytest.raises(ValueError, match="data/0 is compressed and unpacks to 33,554,432 bytes"):
        read_file(bomb)


def test_an_archive_in_memory_is_read_like_its_file(tmp_path: Path):
    path = scripted(tmp_path / "a.pt", Box({"w": torch.arange(3.0)}))
    assert torch.equal(read_torchscript(io.BytesIO(path.read_bytes()))["w"], torch.arange(3.0))


@pytest.mark.parametrize(
    "kind", [torch.complex64, torch.float8_e4m3fn, torch.uint16, torch.bfloat16]
)
def test_rare_kinds_of_numbers_are_read(tmp_path: Path, kind: torch.dtype) -> None:
    module = nn.Linear(2, 2)
    module.register_buffer("rare", torch.ones(3).to(kind))
    found = read_torchscript(scripted(tmp_path / "a.pt", module))
    assert torch.equal(found["rare"].view(torch.uint8), module.rare.view(torch.uint8))


def test_quantised_and_sparse_tensors_are_refused_as_such(tmp_path: Path) -> None:
    quantised = torch.quantize_per_tensor(torch.rand(4), 0.1, 0, torch.qint8)
    for value in (quantised, torch.eye(3).to_sparse()):
        module = nn.Linear(2, 2)
        module.register_buffer("special", value)
        with pytest.raises(ValueError, match="it has quantised, sparse or other special tensors"):
            read_torchscript(scripted(tmp_path / "a.pt", module))


def test_a_frozen_archive_has_no_weights_to_give(tmp_path: Path) -> None:
    torch.jit.freeze(torch.jit.script(nn.Linear(2, 2).eval())).save(str(tmp_path / "a.pt"))
    with pytest.raises(ValueError, match=r"has no parameters: torch\.jit\.freeze"):
        read_torchscript(tmp_path / "a.pt")
