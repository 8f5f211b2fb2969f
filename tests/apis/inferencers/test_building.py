"""Models by their task, and what is said while one is loaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmclipdis.apis import (
    OpenVocabDetInferencer,
    OpenVocabSegInferencer,
    OpenVocabTagger,
)
from tests.apis.inferencers.conftest import SHAPES
from tests.apis.inferencers.test_segment import make_config
from tests.faults.endings import raises
from tests.models.segmentation.fakes import make_segmentor

TASKS: list[tuple[Any, str, str]] = [
    (OpenVocabSegInferencer, "fvit", "fvit.py' detects objects and cannot segment: give it to mm"),
    (OpenVocabDetInferencer, "clip", "clip.py' segments photos and cannot detect"),
    (OpenVocabTagger, "fvit", "fvit.py' detects objects and cannot tag"),
    (OpenVocabTagger, "regions", "regions.py' measures regions and cannot tag"),
]


@pytest.mark.parametrize(("kind", "name", "line"), TASKS)
def test_a_model_of_another_task_is_refused_by_name(kind: Any, name: str, line: str) -> None:
    raises(line, kind, SHAPES / f"{name}.py", device="cpu")


CONFIGS: list[tuple[Any, str, str]] = [
    (OpenVocabSegInferencer, "FViT", "its FViT detects things.* use OpenVocabDetInferencer"),
    (OpenVocabSegInferencer, "DCLIP", "its DCLIP tags photos.* use OpenVocabTagger or"),
    (OpenVocabDetInferencer, "InfoCLIP", "its InfoCLIP segments"),
    (OpenVocabTagger, "RegionClassifier", "its RegionClassifier neither segments, detects nor"),
]


@pytest.mark.parametrize(("kind", "name", "line"), CONFIGS)
def test_a_config_object_of_another_task_is_refused(kind: Any, name: str, line: str) -> None:
    scope = {"FViT": "mmdet", "InfoCLIP": "mmseg"}.get(name, "mmengine")
    raises(line, kind, Config({"model": {"type": name}, "default_scope": scope}))


def test_a_built_model_of_another_task_is_refused() -> None:
    raises("the model is of another task: its .* segments photos", OpenVocabTagger,
           make_segmentor())  # fmt: skip


def test_loading_says_nothing_and_warnings_are_heard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = make_segmentor(mode="whole").float().state_dict()
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    heard: list[str] = []
    handler, logger = logging.Handler(logging.INFO), MMLogger.get_current_instance()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    before = logger.level
    try:
        OpenVocabSegInferencer(make_config(), tmp_path / "a.pth", device="cpu")
        assert heard == [] and capsys.readouterr() == ("", "")
        torch.save({"state_dict": {**state, "more": torch.zeros(1)}}, tmp_path / "b.pth")
        OpenVocabSegInferencer(make_config(), tmp_path / "b.pth", device="cpu")
        assert len(heard) == 1 and "unexpected key in source state_dict: more" in heard[0]
        assert logger.level == before
    finally:
        logger.removeHandler(handler)


def test_weights_of_another_model_are_one_error_and_nothing_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[logging.LogRecord] = []
    monkeypatch.setattr(MMLogger.get_current_instance(), "handle", records.append)
    torch.save({"state_dict": {"stem.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    raises("nothing in the checkpoint belongs to the OpenVocabSegmentor", OpenVocabSegInferencer,
           make_config(), tmp_path / "other.pth", device="cpu")  # fmt: skip
    raises("tensor.pth holds a Tensor and no weights by name", OpenVocabSegInferencer,
           make_config(), tmp_path / "tensor.pth", device="cpu")  # fmt: skip
    told = [record for record in records if record.levelno >= logging.WARNING]
    assert told == [] and capsys.readouterr() == ("", "")
