"""What a file says of itself: its classes, how photos are prepared, where it comes from.

Every entry is JSON. In ONNX the entries are ``metadata_props``; a program of torch.export has them
all in the extra file :data:`EXTRA_FILE`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmclipdis.engine.pixel_statistics import given_statistics
from mmclipdis.export.packages import needed

#: In the ``extra_files`` of a program of torch.export.
EXTRA_FILE = "mmclipdis.json"


def load_metadata(path: str | Path) -> dict[str, Any]:
    """What an exported file says of itself; see docs/export.md for the entries.

    No program is run. ONNX is read whole, of a program of torch.export this entry alone.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: onnx is not installed.
        ValueError: the file was not written by ``mmclipdis export``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    found = _of_program(path) if zipfile.is_zipfile(path) else _of_onnx(path)
    if "mmclipdis" not in found:
        raise ValueError(f"{path} says nothing of itself: mmclipdis export has not written it")
    return found


def _of_program(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(f"/{EXTRA_FILE}")]
        found: dict[str, Any] = json.loads(archive.read(names[0])) if names else {}
        return found


def _of_onnx(path: Path) -> dict[str, Any]:
    onnx, damaged = needed("onnx"), needed("google.protobuf.message").DecodeError
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except damaged as error:
        raise ValueError(f"{path} is neither ONNX nor a program of torch.export") from error
    props = {entry.key: entry.value for entry in model.metadata_props}
    return {key: json.loads(value) for key, value in props.items()} if "mmclipdis" in props else {}


def as_texts(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The entries as ONNX keeps them, JSON each."""
    return {key: json.dumps(value) for key, value in metadata.items()}


def preprocessing(model: Any, config: Any) -> dict[str, Any]:
    """How photos become images: colours of the model's preprocessor, resizing of the test data.

    ``mean`` and ``std`` are of 0..255 and in ``channel_order``; ``resize`` is the ``Resize`` of the
    config's test pipeline (width, height), None without one.
    """
    own = model.data_preprocessor
    swaps = getattr(own, "channel_conversion", getattr(own, "_channel_conversion", False))
    mean, std = given_statistics(own) or ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    dataset = (config or {}).get("test_dataloader", {}).get("dataset", {})
    steps = [step for step in dataset.get("pipeline", ()) if step.get("type") == "Resize"]
    resize = None
    if steps and steps[0].get("scale") is not None:
        step = steps[0]
        resize = {"scale": list(step["scale"]), "keep_ratio": bool(step.get("keep_ratio", False))}
    order = "RGB" if swaps else "BGR"  # mm's loaders give BGR
    return {"channel_order": order, "mean": mean, "std": std, "resize": resize}
