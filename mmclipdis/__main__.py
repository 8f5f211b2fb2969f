"""``python -m mmclipdis``: what the command ``mmclipdis`` does."""

from __future__ import annotations

import sys

from mmclipdis.commands.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
