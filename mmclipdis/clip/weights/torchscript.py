"""Weights of TorchScript archives, such as OpenAI's, read as data.

``torch.jit.load`` compiles the code of an archive and runs each ``__setstate__`` in it, which may
write files or never end. Here only the table of attributes (``data.pkl``) and the storages are
read. Modules become boxes of attributes, which are flattened to the names of a state dict.

Source: PyTorch, ``torch/csrc/jit/serialization`` (pickler, unpickler and the archive's folders).
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, ClassVar

import torch
from torch import Tensor

#: Type of a storage to the numbers in it. Their device is never asked for: all come to the CPU.
_STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UInt16Storage": torch.uint16,
    "UInt32Storage": torch.uint32,
    "UInt64Storage": torch.uint64,
    "Float8_e4m3fnStorage": torch.float8_e4m3fn,
    "Float8_e5m2Storage": torch.float8_e5m2,
}
#: Most modules; a few bytes could name modules within modules 2^100 times.
_MOST_MODULES = 100_000
#: Most bytes that the compressed files of a zip may unpack to.
_MOST_UNPACKED = 16 * 2**20


def is_torchscript(file: Path | BinaryIO) -> bool:
    """Whether a file is an archive of ``torch.jit.save``."""
    if not zipfile.is_zipfile(file):
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def check_unpacked(file: Path | BinaryIO) -> None:
    """Refuse a checkpoint in a zip that unpacks to much more than it is, or has a part twice.

    PyTorch stores tensors as they are; a small file of compressed ones could fill the memory. Of
    two parts under one name readers take this or that.

    Raises:
        ValueError: naming the first such part; also for a damaged zip.
    """
    if not zipfile.is_zipfile(file):
        return
    unpacked, seen = 0, set()
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = info.filename.partition("/")[2]
            if info.filename in seen:
                raise ValueError(f"it has two parts named {name}, as PyTorch never writes it")
            seen.add(info.filename)
            if info.compress_type != zipfile.ZIP_STORED:
                unpacked += info.file_size
            if unpacked > _MOST_UNPACKED:
                raise ValueError(
                    f"its {name} is compressed and unpacks to {info.file_size:,} bytes, as PyTorch "
                    "never writes it"
                )


def read_torchscript(file: Path | BinaryIO) -> dict[str, Tensor]:
    """Parameters and buffers of a TorchScript archive, on the CPU.

    The same as ``dict(torch.jit.load(file).state_dict())``, buffers that are not persistent
    included (an archive does not know them from others). No code of the archive is run: what is
    no module, tensor, number, text or container of these is refused.

    Raises:
        ValueError: naming what the archive asks for, or what is damaged.
    """
    check_unpacked(file)
    with zipfile.ZipFile(file) as zipped:
        archive = _Archive(zipped)
        archive.check_constants()
        top = archive.unpickle("data.pkl", "data")
        if not isinstance(top, _Module):
            raise ValueError(f"its data.pkl holds a {type(top).__name__}, not a module")
        weights = dict(archive.entries(top))
    if not weights:
        raise ValueError(
            "it has no parameters: torch.jit.freeze and optimize_for_inference put them into code, "
            "which is not run; take the archive from before"
        )
    return weights


class _Module:
    """A module, or another object of the archive's code: its attributes, and no behaviour."""

    kind = ""  # "__torch__.torch.nn.modules.linear.Linear"
    attributes: Mapping[str, Any] = MappingProxyType({})


class _Archive:
    """The files of an archive, by their names below its folder."""

    def __init__(self, zipped: zipfile.ZipFile) -> None:
        self.zipped = zipped
        self.files = {i.filename.partition("/")[2]: i for i in zipped.infolist()}
        self._names: dict[str, tuple[list[str], list[str]] | None] = {}
        self._modules = 0
        if self.files.get("byteorder") and self.read("byteorder").strip() != b"little":
            raise ValueError("its numbers are big-endian; save it again on another machine")

    def read(self, name: str) -> bytes:
        """Content of a file; raises ValueError if there is none."""
        info = self.files.get(name)
        if info is None:
            raise ValueError(f"it has no {name}")
        return self.zipped.read(info)

    def check_constants(self) -> None:
        """Refuse constants of the code that are more than data; nothing here needs them."""
        self.unpickle("constants.pkl", "constants")

    def unpickle(self, name: str, folder: str) -> Any:
        """Content of a pickle whose tensors lie in ``folder``."""
        return _Unpickler(io.BytesIO(self.read(name)), _storages(self, folder)).load()

    def entries(
        self, module: _Module, prefix: str = "", depth: int = 0
    ) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors below a module in the order of ``state_dict()``."""
        self._modules += 1
        if self._modules > _MOST_MODULES or depth > 100:
            raise ValueError(f"its modules lie too deep or are too many at {prefix[:60]!r}")
        attributes = module.attributes
        tensors = [key for key, value in attributes.items() if isinstance(value, Tensor)]
        listed = self._listed(module.kind)
        if listed is not None:
            tensors = [key for part in listed for key in tensors if key in part]
        for key in tensors:
            yield prefix + key, attributes[key]
        for key, value in attributes.items():
            if isinstance(value, _Module):
                yield from self.entries(value, f"{prefix}{key}.", depth + 1)

    def _listed(self, kind: str) -> tuple[list[str], list[str]] | None:
        """Names of parameters and buffers, by the head of the class in the archive's code.

        Other attributes may be tensors, too. None for archives of before PyTorch listed both.
        """
        if kind not in self._names:
            module, _, name = kind.rpartition(".")
            file = f"code/{module.replace('.', '/')}.py"
            code = self.read(file).decode(errors="replace") if file in self.files else ""
            head = re.search(
                rf"^class {re.escape(name)}\(Module\):\n"
                r"  __parameters__ = \[([^\]\n]*)\]\n  __buffers__ = \[([^\]\n]*)\]",
                code,
                re.MULTILINE,
            )
            parts = [re.findall(r'"([^"]*)"', part) for part in head.groups()] if head else []
            self._names[kind] = (parts[0], parts[1]) if parts else None
        return self._names[kind]


def _storages(archive: _Archive, folder: str) -> Callable[[Any], Tensor]:
    """Looks up a storage by what the pickle calls it: a flat tensor, one for each file."""
    known: dict[str, Tensor] = {}

    def look_up(name: Any) -> Tensor:
        if not (isinstance(name, tuple) and len(name) in (5, 6) and name[0] == "storage"):
            raise ValueError("it refers to something that is no storage")
        _, dtype, key, _, count, *_ = name
        if not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise ValueError("it has a storage of no known kind")
        if key not in known:
            data = bytearray(archive.read(f"{folder}/{key}"))
            known[key] = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0)
        stored = known[key].view(dtype) if known[key].numel() else torch.empty(0, dtype=dtype)
        if stored.numel() != count:
            raise ValueError(f"its {folder}/{key} holds {stored.numel()} numbers, not {count}")
        return stored

    return look_up


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """Stands in for ``torch._utils._rebuild_tensor_v2``; keeps within the storage."""
    if not isinstance(storage, Tensor):
        raise ValueError("it has a tensor without a storage")
    tensor = storage.as_strided(size, stride, offset)  # refuses what the storage does not hold
    if tensor.numel() > storage.numel():
        raise ValueError(f"it has a tensor of {tensor.numel()} numbers, {storage.numel()} stored")
    return tensor


def _same(value: Any, *_: Any) -> Any:
    """Stands in for marks of types, which say of what a list is."""
    return value


#: What a pickle of TorchScript may call, under harmless stand-ins.
_CALLED: dict[str, Any] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "collections.OrderedDict": OrderedDict,
    **{
        f"torch.jit._pickle.{name}": _same
        for name in (
            *("restore_type_tag", "build_intlist", "build_tensorlist", "build_doublelist"),
            "build_boollist",
        )
    },
    "torch.device": _same,
}


class _Unpickler(pickle._Unpickler):  # the one in Python: its opcodes can be restricted
    """Makes modules of :class:`_Module`, tensors of given storages, and plain values."""

    dispatch: ClassVar[dict[int, Callable[..., Any]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: Any, storages: Callable[[Any], Tensor]) -> None:
        super().__init__(file)
        self._storages = storages
        self._kinds: dict[str, type[_Module]] = {}

    def persistent_load(self, pid: Any) -> Tensor:
        """The storage of this name."""
        return self._storages(pid)

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for what the pickle asks for; raises ValueError for anything not known."""
        full = f"{module}.{name}"
        if full.startswith("__torch__."):
            return self._kinds.setdefault(full, type(name, (_Module,), {"kind": full}))
        if full in _CALLED:
            return _CALLED[full]
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if re.fullmatch(r"torch\._utils\._rebuild_\w*tensor\w*", full):
            raise ValueError(
                f"it has quantised, sparse or other special tensors ({full}), of which none is read"
            )
        raise ValueError(f"it asks for {full}, which is no data, and loading that can run code")

    def load_build(self) -> None:
        """Give a module its attributes; nothing else has a state here."""
        stack: list[Any] = self.stack  # type: ignore[attr-defined]
        state, module = stack.pop(), stack[-1]
        if not isinstance(module, _Module):
            raise ValueError(f"it gives a state to a {type(module).__name__}")
        if not isinstance(state, dict):
            raise ValueError(
                f"its {module.kind} is stored by a __setstate__ of its own, which is code to run"
            )
        module.attributes = state

    dispatch[pickle.BUILD[0]] = load_build
