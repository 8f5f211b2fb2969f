#!/usr/bin/env python
"""Test a model: ``tools/test.py CONFIG [CHECKPOINT] [--out DIR] [--show-dir DIR] [--tta] ...``."""

from __future__ import annotations

import sys

try:
    from mmclipdis.apis.cli import run
    from mmclipdis.apis.run import test
except ImportError as error:
    if type(error).__name__ != "IncompatibleEnvironmentError":
        raise
    sys.exit(f"error: {error}")

if __name__ == "__main__":
    run(test, None)
