"""Configs changed by the words that a user types behind ``--cfg-options``."""

from __future__ import annotations

import argparse
from typing import Any

from mmengine.config import Config

from mmclipdis.apis.cfg_options import CfgOptions
from tests.paths import ROOT


def read_words(words: str) -> dict[str, Any]:
    """What the tools make of words with blanks between."""
    if not words:
        return {}
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=CfgOptions)
    found: dict[str, Any] = parser.parse_args(["--cfg-options", *words.split()]).cfg_options
    return found


def config_of(name: str, words: str = "") -> Config:
    """``configs/NAME.py`` with the words."""
    config = Config.fromfile(ROOT / "configs" / f"{name}.py")
    config.merge_from_dict(read_words(words))
    return config
