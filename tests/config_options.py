"""Options of the command line that fit a config, without building what it describes."""

from __future__ import annotations

import argparse
import copy
import functools
import inspect
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

import mmclipdis  # noqa: F401  (registers what configs name)
from mmclipdis.apis.cfg_options import CfgOptions
from mmclipdis.clip.towers.readout import get_readout
from tests.paths import ROOT


@functools.cache
def read_config(path: str) -> Config:
    """A config of the repository, read once; copy it before changing it."""
    return Config.fromfile(ROOT / path)


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """What ``--cfg-options`` makes of ``options``."""
    if not options:
        return {}
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=CfgOptions)
    return parser.parse_args(["--cfg-options", *options]).cfg_options


def check_options(path: str, options: Sequence[str]) -> Config:
    """The config with ``options`` put in.

    Raises:
        AssertionError: one names a setting that is neither in the config nor an argument of the
            class that it would be given to.
    """
    before = read_config(path)
    after = copy.deepcopy(before)
    after.merge_from_dict(parse_options(options))
    for key in parse_options(options):
        place: Any = before
        for part in key.split("."):
            if isinstance(place, list | tuple):
                place = place[int(part)]
                continue
            if part not in place:  # a part of a config without a type is read by its own rules
                assert "type" not in place or part in arguments(place, before), (path, key)
                break
            place = place[part]
    check_readouts(after.model)
    return after


def check_readouts(place: Any) -> None:
    """Make every readout below ``place``.

    Raises:
        TypeError, ValueError: it is none.
    """
    parts = place.values() if isinstance(place, dict) else place
    for part in parts if isinstance(place, dict | list | tuple) else ():
        check_readouts(part)
    if isinstance(place, dict) and place.get("readout") is not None:
        readout = place["readout"]
        get_readout(readout.to_dict() if isinstance(readout, ConfigDict) else readout)


def arguments(place: Any, config: Config) -> set[str]:
    """What the class takes that ``place`` of ``config`` describes."""
    with MODELS.switch_scope_and_registry(config.get("default_scope")) as registry:
        kind = registry.get(place["type"])
    assert kind is not None, place["type"]
    return set(inspect.signature(kind).parameters)
