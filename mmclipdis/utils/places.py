"""Where this package lies: in a clone of its repository, or installed, where nothing is written."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
IN_CLONE = (PACKAGE.parent / "model-index.yml").is_file()
#: What holds ``configs`` and ``tools``: the repository, or a folder of the installed package.
ROOT = PACKAGE.parent if IN_CLONE else PACKAGE / ".mim"
#: Where measured tables go: into the repository, or below the folder in which a tool is started.
RESULTS = ROOT / "results" if IN_CLONE else Path("results")
