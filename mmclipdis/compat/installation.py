"""Where mmclipdis itself comes from: a wheel, an editable install, a clone, or two of them."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mmclipdis.compat.trouble import Trouble

#: The folder of the package that is imported.
PACKAGE = Path(__file__).resolve().parents[1]


def installed_folders() -> dict[Path, str]:
    """Folders of the package that pip knows, each with its kind: ``wheel`` or ``editable``."""
    return {_folder(found).resolve(): _kind(found) for found in _distributions()}


def _distributions() -> list[metadata.Distribution]:
    return list(metadata.distributions(name="mmclipdis"))


def _direct_url(found: metadata.Distribution) -> dict[str, object]:
    try:
        content = json.loads(found.read_text("direct_url.json") or "{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _kind(found: metadata.Distribution) -> str:
    place = found.locate_file("")
    beside_setup = (Path(str(place)) / "setup.py").is_file()  # egg-info of a clone on the path
    info = _direct_url(found).get("dir_info")
    editable = isinstance(info, dict) and bool(info.get("editable"))
    return "editable" if editable or beside_setup else "wheel"


def _folder(found: metadata.Distribution) -> Path:
    content = _direct_url(found)
    if _kind(found) == "editable" and "url" in content:
        return Path(unquote(urlsplit(str(content["url"])).path)) / "mmclipdis"
    return Path(str(found.locate_file("mmclipdis")))


def install_kind() -> str:
    """How the imported package was installed: ``wheel``, ``editable``, or ``clone`` if not."""
    return installed_folders().get(PACKAGE, "clone")


def installation_troubles() -> Iterator[Trouble]:
    """A clone beside an installed package: one of them is imported, and which one is chance."""
    for folder, kind in installed_folders().items():
        if folder != PACKAGE:
            is_clone = (PACKAGE.parent / "setup.py").is_file()
            yield Trouble(
                f"mmclipdis is imported from {PACKAGE.parent}, but is installed ({kind}) in "
                f"{folder.parent}",
                f"run: pip install -e {PACKAGE.parent} to use this clone everywhere, or leave its "
                "folder to use the other"
                if is_clone
                else "run: pip uninstall -y mmclipdis until there is none, then install one",
            )
            return
    for clone in _clones_at_hand():
        if clone != PACKAGE.parent:
            yield Trouble(
                f"{clone} is a clone of mmclipdis, but what is imported is the one in "
                f"{PACKAGE.parent}",
                f"run: pip install -e {clone}; or leave the clone's folder and tools alone",
            )
            return


def _clones_at_hand() -> list[Path]:
    """The clones that hold the script that runs, and the folder one works in."""
    places = []
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script:
        places += [
            place.parent for place in Path(script).resolve().parents if place.name == "tools"
        ]
    with contextlib.suppress(OSError):  # deleted
        places.append(Path.cwd())
    return [place for place in places if (place / "mmclipdis" / "version.py").is_file()]
