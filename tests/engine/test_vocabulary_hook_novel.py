"""The hook tells an open-vocabulary detector which classes of its data are novel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.engine.vocabulary_hook import find_novel
from tests.engine.test_vocabulary_hook import ALL, BASE, Named, Scenes, runner


class Split(Scenes):
    def __init__(self, classes: tuple[str, ...], novel: Any = None) -> None:
        super().__init__(classes)
        self.novel = novel

    @property
    def metainfo(self) -> dict[str, Any]:
        extra = {} if self.novel is None else dict(novel_classes=self.novel)
        return {**super().metainfo, **extra}


class Detector(Named):
    """Also logs what it is told about novelty."""

    def __init__(self, vocabulary: Vocabulary | None = None) -> None:
        super().__init__(vocabulary)
        self.novel: Any = "untold"
        self.seen: list[tuple[str, Any]] = []

    def set_novel(self, novel: Any) -> None:
        self.novel = novel

    def forward(self, inputs: torch.Tensor, mode: str = "tensor") -> Any:
        if not self.seen or self.seen[-1] != (mode, self.novel):
            self.seen.append((mode, self.novel))
        return super().forward(inputs, mode)


def test_each_loop_has_its_flags_and_training_gets_its_back(tmp_path: Path) -> None:
    model = Detector()
    data = Split(BASE, ("dog",)), Split(ALL, ("dog", "sky")), Split(ALL)
    run = runner(model, tmp_path, *data)
    run.train()
    run.test()
    train, val = ("loss", (False, True)), ("predict", (False, True, True))
    assert model.seen == [train, val, train, val, ("predict", None)]


def test_a_chosen_vocabulary_gets_flags_by_place(tmp_path: Path) -> None:
    model = Detector(Vocabulary.from_names(["kitty", "hound"]))
    runner(model, tmp_path, Split(BASE), Split(BASE, ("dog",))).val()
    assert model.novel == (False, True)
    runner(model, tmp_path, Split(BASE), Split(BASE)).val()  # these data know nothing
    assert model.novel == (False, True)


def test_wrapped_and_joined_data_sets() -> None:
    one, other = Split(BASE, ("dog",)), Split(BASE, ("cat",))
    assert find_novel(RepeatDataset(one, 2)) == (False, True)
    assert find_novel(Split(BASE, ())) == (False, False)
    joined = ConcatDataset([one, one])
    assert find_novel(joined) == (False, True)
    joined.datasets = [one, other]
    joined._metainfo = {}
    with pytest.raises(ValueError, match="different novel classes"):
        find_novel(joined)


def test_a_novel_class_must_be_a_class() -> None:
    with pytest.raises(ValueError, match=r"Split lists \['dogs'\]"):
        find_novel(Split(BASE, ("dogs",)))
