"""Where weights come from: what ``weights.yml`` says of the files that the metafiles name."""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

#: Quick where libyaml is there; both read plain data only.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CATALOGUE = Path(__file__).with_name("weights.yml")


@dataclass(frozen=True)
class Weights:
    """Weights that a model needs.

    Attributes:
        name: of the file, or the tag of open_clip.
        kind: ``"ships"`` with the package; a ``"tag"``, which open_clip downloads; a ``"file"`` of
            somebody's release; ``"trained"``, which a training makes.
        title: what they are.
        page: where their authors keep them, and say what may be done with them.
        license: their licence.
        url: address of the file; None: not known, see the page.
        sha256: of the whole file; None: not known, and the file is taken unchecked.
        where: path of the file in the package or as a config names it, or the command that makes
            it.
    """

    name: str
    kind: str
    title: str
    page: str = ""
    license: str = ""
    url: str | None = None
    sha256: str | None = None
    where: str = ""


@functools.cache
def catalogue() -> dict[str, dict[str, Any]]:
    """The entries of ``weights.yml``, by name."""
    found: dict[str, dict[str, Any]] = yaml.load(CATALOGUE.read_text("utf-8"), Loader=LOADER)
    return found


def weights_of(text: str) -> tuple[Weights, ...]:
    """What a metafile's ``Pretrained Weights`` says, taken apart.

    Raises:
        ValueError: a part names neither a file nor a tag of ``weights.yml``.
    """
    return tuple(_read(part.strip()) for part in text.split("; "))


def known_file(path: str | Path) -> Weights | None:
    """What is known of a file that a config names; by its name, wherever it lies."""
    entry = catalogue().get(Path(path).name)
    return None if entry is None or "tag" in entry else _entry(Path(path).name, "file", str(path))


def cache_folder() -> Path:
    """Where downloaded files lie and where files are looked for: ``checkpoints`` of torch's hub.

    As torch says it: ``TORCH_HOME``, or else ``torch`` in ``XDG_CACHE_HOME`` or in ``~/.cache``.
    """
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        return Path(torch.hub.get_dir()) / "checkpoints"
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


def _read(part: str) -> Weights:
    if part.endswith(", which ships"):
        name = part.removesuffix(", which ships")
        return Weights(name, "ships", "the tiny CLIP of the package", license="Apache-2.0")
    path, made, maker = part.partition(", made by ")
    if made:
        return Weights(Path(path).name, "trained", f"made by {maker}", where=path)
    name = part.removeprefix("open_clip tag ").removeprefix("text: ")
    entry = catalogue().get(Path(name).name)
    if entry is None:
        raise ValueError(f"weights.yml says nothing of {part!r}, which a metafile names; add it")
    return _entry(Path(name).name, "tag" if "tag" in entry else "file", name)


def _entry(name: str, kind: str, where: str) -> Weights:
    entry = catalogue()[name]
    return Weights(
        name,
        kind,
        entry["title"],
        entry["page"],
        entry["license"],
        entry.get("url"),
        entry.get("sha256"),
        where,
    )
