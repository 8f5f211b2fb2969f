"""Where things are, for tests on every floor."""

from __future__ import annotations

from pathlib import Path

#: The repository.
ROOT = Path(__file__).resolve().parents[1]
#: Small real data sets, which may be absent.
REAL_DATA = ROOT.parent / "shared" / "data"
