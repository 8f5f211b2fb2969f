"""The configs and models of this package under their names, for mmengine and what stands on it.

mmengine finds ``package::path/of/config.py`` and models by name for a fixed list of packages, and
inferencers look for names in one of them. Here mmclipdis joins that list::

    mmengine.hub.get_config('mmclipdis::clearclip/clearclip_vitb16_voc20.py')
    MMSegInferencer('clearclip_vitb16_voc20')

Both functions are called by ``mmclipdis.pth`` when mmengine is imported, and by ``import
mmclipdis`` in any case. This file is read on its own then: it must not import the package.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

#: ``configs``, ``tools`` and ``model-index.yml``: in a wheel copies, in a clone links.
MIM = Path(__file__).resolve().parents[1] / ".mim"
#: Our models can be asked for in the scope of the library whose inferencer builds them, too.
LIBRARIES = ("mmseg", "mmdet")


def name_package(utils: ModuleType) -> None:
    """Add the package to mmengine's list, given ``mmengine.config.utils``.

    mmengine takes the value for the name of a distribution first, whose folder it expects in
    site-packages, and for that of a module second, whose folder it takes as it is. Only the second
    is true of a clone and of an editable installation, so it is given a module. So is mmseg on the
    fork, whose mmengine looks for upstream's distribution and would have it installed beside.
    """
    utils.MODULE2PACKAGE.setdefault("mmclipdis", "mmclipdis.version")
    if not _is_distribution("mmsegmentation") and _is_distribution("onedl-mmsegmentation"):
        utils.MODULE2PACKAGE["mmseg"] = "mmseg"


def _is_distribution(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def with_our_models(list_models: Callable[[str], Any]) -> Callable[[str], Iterator[dict[str, Any]]]:
    """mmengine's reading of a model index, with our segmentors behind mmseg's and so on.

    There our configs are given by their full path, and so are weights that ship. Others of ours
    have ``Weights`` None, where mmengine expects an address: what is loaded stands in their
    configs. One alias is a list of one: mmengine's ``list_models`` takes a text for a list of its
    letters. Models of neither library, which recognise and distil, are listed in our own scope
    alone: no inferencer takes them.
    """

    def ours() -> Iterator[dict[str, Any]]:
        for entry in list_models(str(MIM)):
            ships = entry.get("Weights")
            weights = None if ships is None else str(MIM.parents[1] / ships)
            found = {**entry, "Weights": weights, "Config": str(MIM / entry["Config"])}
            if isinstance(found.get("Alias"), str):
                found["Alias"] = [found["Alias"]]
            yield found

    @functools.wraps(list_models)
    def listed(folder: str) -> Iterator[dict[str, Any]]:
        where = Path(folder).resolve()
        if where in (MIM, MIM.parents[1]):  # an installation, a clone
            yield from ours()
            return
        yield from list_models(folder)
        package = where.parent.name if where.name == ".mim" else where.name
        scopes = [name for name in LIBRARIES if name == package or (where / name).is_dir()]
        if scopes:
            yield from (entry for entry in ours() if entry["Metadata"]["Scope"] in scopes)

    listed.knows_mmclipdis = True  # type: ignore[attr-defined]
    return listed


def offer_models(infer: ModuleType) -> None:
    """Let inferencers find our models by name, given ``mmengine.infer.infer``."""
    original = infer.BaseInferencer._get_models_from_metafile
    if not getattr(original, "knows_mmclipdis", False):
        infer.BaseInferencer._get_models_from_metafile = staticmethod(with_our_models(original))


def install_hub() -> None:
    """Do both, without ``mmclipdis.pth`` as well; safe to call again."""
    name_package(importlib.import_module("mmengine.config.utils"))
    offer_models(importlib.import_module("mmengine.infer.infer"))
