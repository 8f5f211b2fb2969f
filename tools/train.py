#!/usr/bin/env python
"""Train a model: ``tools/train.py CONFIG [--work-dir DIR] [--resume] [--amp] ...``."""

from __future__ import annotations

import sys

try:
    from mmclipdis.apis.cli import run
    from mmclipdis.apis.run import train
except ImportError as error:
    if type(error).__name__ != "IncompatibleEnvironmentError":
        raise
    sys.exit(f"error: {error}")

if __name__ == "__main__":
    run(train, None)
