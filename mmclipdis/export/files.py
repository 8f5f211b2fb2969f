"""The two formats: how a program becomes bytes, and how these are run again."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmclipdis.export.metadata import EXTRA_FILE, as_texts
from mmclipdis.export.packages import needed, quiet

#: Bytes that a file of protobuf can hold.
LARGEST = 2**31 - 2**20

Run = Callable[[Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Format:
    """A format: the packages that it needs, and who runs the file in the check."""

    packages: tuple[str, ...]
    runner: str

    def check_installed(self) -> None:
        """Before any model is built.

        Raises:
            ImportError: naming what is missing.
        """
        if self.packages:
            needed(*self.packages)


FORMATS = {
    "onnx": Format(("onnx", "onnxscript", "onnxruntime"), "onnxruntime"),
    "torch": Format((), "PyTorch"),
}


def file_of(
    format: str, program: Any, outputs: Sequence[str], metadata: Mapping[str, Any]
) -> bytes:
    """The bytes of the file.

    Raises:
        ValueError: it has an operation that ONNX lacks, or more weights than ONNX can hold.
    """
    if format == "torch":
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={EXTRA_FILE: json.dumps(dict(metadata))})
        return buffer.getvalue()
    weights = sum(w.numel() * w.element_size() for w in program.state_dict.values())
    if weights > LARGEST:
        raise ValueError(
            f"the model has {weights / 1e9:.1f} GB of weights, an ONNX file holds 2: use "
            "format='torch' (--format torch)"
        )
    try:
        with quiet():
            written: Any = torch.onnx.export(
                program,
                dynamo=True,
                input_names=["image"],
                output_names=list(outputs),
                verbose=False,
            )
    except Exception as error:  # of many kinds
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the model cannot be written as ONNX: {type(error).__name__}: {reason}; use "
            "format='torch' (--format torch)"
        ) from error
    written.model.metadata_props.update(as_texts(metadata))
    return bytes(written.model_proto.SerializeToString())


def runner_of(format: str, data: bytes, outputs: Sequence[str]) -> Run:
    """Run the file: images on the CPU, what it gives for them."""
    if format == "torch":
        with quiet():
            module = torch.export.load(io.BytesIO(data)).module()
        return lambda images: _as_tuple(module(images))
    session = needed("onnxruntime").InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, ...]:
        found = session.run(list(outputs), {"image": images.cpu().numpy()})
        return tuple(torch.from_numpy(values) for values in found)

    return run


def _as_tuple(found: Any) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else tuple(found)
