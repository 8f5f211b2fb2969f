"""TorchScript archives for tests: of given weights, and hostile ones."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn


class Box(nn.Module):
    """Weights under the names of a state dict, and nothing that uses them."""

    def __init__(self, state: Mapping[str, Tensor], buffers: tuple[str, ...] = ()) -> None:
        super().__init__()
        parts: dict[str, dict[str, Tensor]] = {}
        for name, value in state.items():
            head, _, rest = name.partition(".")
            if rest:
                parts.setdefault(head, {})[rest] = value
            elif name in buffers or not value.is_floating_point():
                self.register_buffer(name, value)
            else:
                self.register_parameter(name, nn.Parameter(value))
        for head, part in parts.items():
            self.add_module(head, Box(part, buffers))

    def forward(self, x: Tensor) -> Tensor:
        return x


class WritesFile(nn.Module):
    """Loading it by ``torch.jit.load`` makes a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, str, bool]:
        return (self.w, self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, str, bool]) -> None:
        self.path = state[1]
        self.training = state[2]
        self.w = torch.from_file(self.path, True, 4)


class NeverEnds(nn.Module):
    """Loading it by ``torch.jit.load`` takes for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return (self.w, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        self.w = state[0]
        self.training = state[1]
        while bool(self.w.sum() > 0):
            pass


def scripted(path: Path, module: nn.Module) -> Path:
    """Write ``torch.jit.script`` of a module."""
    torch.jit.script(module).save(str(path))
    return path


def with_file(source: Path, target: Path, name: str, content: bytes) -> Path:
    """A copy of an archive in which one file has another content."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            data = content if info.filename.endswith("/" + name) else old.read(info)
            new.writestr(info.filename, data)
    return target
