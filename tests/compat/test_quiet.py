"""Building a model in Python prints nothing; a run keeps the list in its log file."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.logging import MMLogger
from torch import nn

from mmclipdis.compat import install
from tests.processes import run_code

CODE = """
import mmclipdis
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
config = Config.fromfile("configs/shapes/catseg.py")
init_default_scope(config.default_scope)
MODELS.build(config.model).init_weights()
"""


def test_a_segmentor_is_built_without_a_word() -> None:
    done = run_code(CODE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and "Initialized" not in done.stderr
    assert "is not installed" not in done.stderr  # of parts of the fork


def test_the_log_file_of_a_run_has_the_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmengine.model import Sequential

    install()
    install()  # wraps once
    name = tmp_path.name
    logger = MMLogger.get_instance(name, logger_name="mmengine", log_file=str(tmp_path / "a.log"))
    Sequential(nn.Linear(2, 3)).init_weights()
    logger.handlers[-1].flush()
    assert "0.weight - torch.Size([3, 2])" in (tmp_path / "a.log").read_text()
    assert "torch.Size" not in capsys.readouterr().out
    logger.handlers[-1].close()
    Sequential(nn.Linear(2, 3)).init_weights()  # the run is over
    MMLogger._instance_dict.pop(name)
