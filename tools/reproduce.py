#!/usr/bin/env python
"""Measure a published table again: ``tools/reproduce.py METHOD/TABLE [--data DIR] ...``.

The same as ``mmclipdis reproduce``, for a clone.
"""

from __future__ import annotations

import sys

from mmclipdis.commands.__main__ import command

if __name__ == "__main__":
    sys.exit(command(["reproduce", *sys.argv[1:]]))
