"""The hook in real mmengine loops, with a model that records which classes it was told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Subset

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.engine.vocabulary_hook import VocabularyHook, find_classes
from tests.ranks import group_of_one


class Scenes(BaseDataset):
    def __init__(self, classes: tuple[str, ...] | None, size: int = 2) -> None:
        self.size = size
        super().__init__(metainfo=dict(classes=classes) if classes else None, lazy_init=True)
        self._fully_initialized = True

    def full_init(self) -> None:
        pass

    def get_data_info(self, idx: int) -> dict[str, int]:
        return dict(sample_idx=idx)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, idx: int) -> torch.Tensor:
        return torch.ones(1)


class Named(BaseModel):
    """Follows its data set, or has a vocabulary of its own; logs the classes it runs with."""

    def __init__(self, vocabulary: Vocabulary | None = None) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.follow_dataset = vocabulary is None
        self.weight = nn.Parameter(torch.ones(1))
        self.log: list[tuple[str, tuple[str, ...]]] = []

    def set_vocabulary(self, names: Any) -> None:
        self.vocabulary = Vocabulary.from_names(names, "single")

    def forward(self, inputs: torch.Tensor, mode: str = "tensor") -> Any:
        assert self.vocabulary is not None
        entry = (mode, self.vocabulary.class_names)
        if not self.log or self.log[-1] != entry:
            self.log.append(entry)
        return dict(loss=(inputs * self.weight).sum()) if mode == "loss" else [inputs]


class Count(BaseMetric):
    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(1)

    def compute_metrics(self, results: list[Any]) -> dict[str, int]:
        return dict(count=len(results))


def loader(dataset: Any) -> dict[str, Any]:
    return dict(dataset=dataset, batch_size=1, num_workers=0, sampler=dict(type="DefaultSampler"))


def runner(model: nn.Module, work_dir: Path, train: Any, val: Any, test: Any = None) -> Runner:
    return Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=loader(train),
        val_dataloader=loader(val),
        test_dataloader=loader(test or val),
        train_cfg=dict(by_epoch=False, max_iters=4, val_interval=2),
        val_cfg=dict(),
        test_cfg=dict(),
        val_evaluator=[Count()],
        test_evaluator=[Count()],
        optim_wrapper=OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0)),
        custom_hooks=[dict(type="VocabularyHook")],
        default_hooks=dict(checkpoint=None, logger=None),
        experiment_name=f"vocabulary_{id(model)}",
        log_level="ERROR",
    )


BASE, ALL, OTHER = ("cat", "dog"), ("cat", "dog", "sky"), ("road",)


def test_hook_is_in_the_root_registry() -> None:
    assert HOOKS.get("VocabularyHook") is VocabularyHook


def test_each_loop_sees_its_own_classes_and_training_gets_its_back(tmp_path: Path) -> None:
    model = Named()
    run = runner(model, tmp_path, Scenes(BASE), Scenes(ALL), Scenes(OTHER))
    run.train()
    run.test()
    expected = [("loss", BASE), ("predict", ALL), ("loss", BASE), ("predict", ALL)]
    assert model.log == [*expected, ("predict", OTHER)]
    assert model.vocabulary is not None and model.vocabulary.class_names == OTHER


def test_validation_alone_keeps_its_classes(tmp_path: Path) -> None:
    model = Named()
    runner(model, tmp_path, Scenes(BASE), Scenes(ALL)).val()
    assert model.log == [("predict", ALL)]
    assert model.vocabulary is not None and model.vocabulary.class_names == ALL


def test_a_chosen_vocabulary_is_left_alone(tmp_path: Path) -> None:
    chosen = Vocabulary.from_names([["kitty", "tabby"], "hound"])
    model = Named(chosen)
    runner(model, tmp_path, Scenes(BASE), Scenes(BASE)).train()
    assert model.vocabulary is chosen


@pytest.mark.parametrize("classes", [ALL, OTHER])
def test_a_chosen_vocabulary_must_have_as_many_classes_as_the_data(
    tmp_path: Path, classes: tuple[str, ...]
) -> None:
    model = Named(Vocabulary.from_names([["kitty", "tabby"], "hound"]))
    run = runner(model, tmp_path, Scenes(BASE), Scenes(classes))
    with pytest.raises(ValueError, match=rf"Named has 2 classes, but Scenes labels {len(classes)}"):
        run.val()


@pytest.mark.slow
@pytest.mark.parametrize("names", [("cat", "sky", "red_Bus"), ("cat", ["Sky", "air"], "red  bus")])
def test_a_chosen_vocabulary_in_another_order_is_refused(tmp_path: Path, names: Any) -> None:
    """A label is a place: each would be learned, and scored, under another name."""
    data = Scenes(("cat", "red bus", "sky"))
    for loop in ("train", "val", "test"):
        run = runner(Named(Vocabulary.from_names(names)), tmp_path, data, data)
        with pytest.raises(
            ValueError,
            match=r"classes of Scenes in another order: class 1 is '[sS]ky', but the data label "
            r"'red bus' so; put .* or take vocabulary='dataset'",
        ):
            getattr(run, loop)()


@pytest.mark.parametrize(
    "names", [("CAT", "red_bus", "sky"), ("sky", "bus", "cat"), ("cat", "coach", "sky")]
)
def test_names_in_order_and_free_names_are_taken(tmp_path: Path, names: Any) -> None:
    chosen = Vocabulary.from_names(names)
    data = Scenes(("cat", "red bus", "sky"))
    model = Named(chosen)
    runner(model, tmp_path, data, data).val()
    assert model.vocabulary is chosen and model.log == [("predict", chosen.class_names)]


def test_following_data_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Scenes names no classes"):
        runner(Named(), tmp_path, Scenes(None), Scenes(ALL)).train()


def test_a_chosen_vocabulary_does_not_need_classes_in_the_data(tmp_path: Path) -> None:
    model = Named(Vocabulary.from_names(["kitty"]))
    runner(model, tmp_path, Scenes(None), Scenes(None)).train()
    assert model.log[0] == ("loss", ("kitty",))


class Stock(BaseModel):
    """A stock segmentor: knows no vocabulary, but its head does."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.decode_head = head

    def forward(self, inputs: torch.Tensor, mode: str = "tensor") -> Any:
        return self.decode_head(inputs, mode)


def test_a_head_inside_a_stock_model_is_found(tmp_path: Path) -> None:
    model = Stock(Named())
    runner(model, tmp_path, Scenes(BASE), Scenes(ALL)).train()
    assert model.decode_head.log[:2] == [("loss", BASE), ("predict", ALL)]


def test_a_model_without_vocabulary_is_left_alone(tmp_path: Path) -> None:
    head = Named(Vocabulary.from_names(["a"]))
    del head.follow_dataset
    runner(Stock(head), tmp_path, Scenes(BASE), Scenes(ALL)).train()


def test_a_distributed_wrapper_is_opened(tmp_path: Path) -> None:
    model = Named()
    with group_of_one():
        run = runner(model, tmp_path, Scenes(BASE), Scenes(ALL))
        run.model = MMDistributedDataParallel(model)
        VocabularyHook().before_val(run)
        assert model.vocabulary is not None and model.vocabulary.class_names == ALL


@pytest.mark.parametrize(
    "wrap",
    [
        lambda d: RepeatDataset(d, times=2),
        lambda d: ConcatDataset([d, Scenes(ALL)]),
        lambda d: Subset(d, [0]),
        lambda d: Subset(RepeatDataset(d, times=2), [0]),
        lambda d: torch.utils.data.ConcatDataset([d, Subset(Scenes(ALL), [0])]),
    ],
)
def test_classes_are_found_inside_wrappers(wrap: Any) -> None:
    assert find_classes(wrap(Scenes(ALL))) == ALL


def test_joined_data_sets_must_agree() -> None:
    joined = torch.utils.data.ConcatDataset([Scenes(ALL), Scenes(BASE)])
    with pytest.raises(ValueError, match=r"different classes \((2, 3|3, 2) classes\)"):
        find_classes(joined)


def test_no_classes_anywhere_is_none() -> None:
    assert find_classes([1, 2]) is None
    assert find_classes(Scenes(None)) is None
    assert find_classes(Subset(Scenes(None), [0])) is None
