"""Samples with tokens are the samples of the data set; files of tokens are whole or absent."""

from __future__ import annotations

import os
import pickle

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset

from mmclipdis.datasets.recognition.cached_tokens import CachedTokens, TokenImages
from mmclipdis.datasets.recognition.coco import CocoMultiLabelDataset
from mmclipdis.datasets.recognition.token_store import TokenStore
from tests.datasets.recognition.token_task import CLASSES, write_task

LOAD = dict(type="LoadImageFromFile")
RESIZE = dict(type="Resize", scale=(16, 8), keep_ratio=False)
PACK = dict(type="PackMultiLabelInputs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("data") / "task", count=5).parent


def coco(folder, *pipeline, **kwargs):
    return CocoMultiLabelDataset(
        "labels.json", data_root=str(folder), data_prefix=dict(img_path="images"),
        pipeline=pipeline or (LOAD, RESIZE, PACK), **kwargs,
    )  # fmt: skip


class Balanced(CocoMultiLabelDataset):
    """One that says which classes an image shows, as ``ClassBalancedDataset`` asks."""

    def get_cat_ids(self, idx):
        return np.flatnonzero(self.get_data_info(idx)["gt_score"] == 1).tolist()


WRAPPED = {
    "plain": lambda folder: coco(folder),
    "repeated": lambda folder: RepeatDataset(coco(folder), 2),
    "joined": lambda folder: ConcatDataset([coco(folder, indices=2), coco(folder, partial=0.5)]),
    "balanced": lambda folder: ClassBalancedDataset(
        Balanced("labels.json", data_root=str(folder), data_prefix=dict(img_path="images"),
                 pipeline=(LOAD, RESIZE, PACK)), 0.9),
    "repeated joined": lambda folder: RepeatDataset(
        dict(type="ConcatDataset", datasets=[coco(folder), coco(folder, indices=[3, 1])]), 2),
}  # fmt: skip
IMAGES = {"plain": 5, "repeated": 5, "joined": 7, "balanced": 5, "repeated joined": 7}


def mean_pixels(sample):
    """Tokens (L, 3): the columns of the image."""
    return sample["inputs"].float().mean(1).mT


def fill(images, folder, batch=2):
    """Tokens of all images, in a store."""
    images.check()
    store = TokenStore.create(folder, len(images), mean_pixels(images[0]).shape, batch)
    for shard in store.missing():
        samples = [images[row] for row in store.rows(shard)]
        tokens = torch.stack([mean_pixels(sample) for sample in samples])
        store.write(shard, [(tokens, [sample["facts"] for sample in samples])])
    return store


def same_sample(one, other):
    assert set(one.keys()) == set(other.keys())
    assert one.metainfo == other.metainfo
    assert {key: type(value) for key, value in one.metainfo_items()} == {
        key: type(value) for key, value in other.metainfo_items()
    }
    assert torch.equal(one.gt_score, other.gt_score) and one.gt_score.dtype == torch.float32


@pytest.mark.parametrize("name", WRAPPED)
def test_samples_are_those_of_the_data_set_with_tokens(folder, tmp_path, name):
    dataset = WRAPPED[name](folder)
    images = TokenImages(dataset)
    assert len(images) == IMAGES[name]
    cached = CachedTokens(dataset)
    cached.attach(fill(images, tmp_path))
    cached = pickle.loads(pickle.dumps(cached))  # as in a worker process
    assert len(cached) == len(dataset) and cached.metainfo == dataset.metainfo
    assert cached.metainfo["classes"] == CLASSES
    for index in range(len(dataset)):
        assert cached.get_data_info(index)["img_id"] == dataset.get_data_info(index)["img_id"]
        expected, found = dataset[index], cached[index]
        assert torch.equal(found["inputs"], mean_pixels(expected))
        same_sample(found["data_samples"], expected["data_samples"])


def test_images_are_not_read_again(folder, tmp_path, monkeypatch):
    dataset = coco(folder)
    cached = CachedTokens(dataset)
    cached.attach(fill(TokenImages(dataset), tmp_path))
    monkeypatch.setattr(cv2, "imdecode", None)
    assert cached[0]["inputs"].shape == (16, 3)
    with pytest.raises(TypeError):
        dataset[0]


def test_without_features_the_remedy_is_named(folder):
    with pytest.raises(RuntimeError, match="--cache-features"):
        CachedTokens(coco(folder))[0]


def test_features_of_other_images_are_not_attached(folder, tmp_path):
    store = fill(TokenImages(coco(folder)), tmp_path)
    with pytest.raises(ValueError, match="has 5 images, the data set 4"):
        CachedTokens(coco(folder, indices=4)).attach(store)


class Callable:
    """A transform that is a function of a sample."""

    def __init__(self, function):
        self.function = function
        self.__name__ = "TheTransform"

    def __call__(self, results):
        return self.function(results)


def sees_image(results):
    sample = packed(results)
    sample["data_samples"].set_metainfo({"mean": float(results["img"].mean())})
    return sample


def packed(results):
    from mmclipdis.datasets.recognition.transforms import PackMultiLabelInputs

    return PackMultiLabelInputs()(results)


WRONG = {
    "labels": ([lambda r: {**r, "gt_score": r["gt_score"] * 0}], PACK, "sets 'gt_score'; labels"),
    "arrays": ([lambda r: {**r, "grid": np.eye(2)}], PACK, "sets 'grid' to a ndarray"),
    "nothing": ([lambda r: None], PACK, r"0.png cannot be used: TheTransform gave None"),
    "numpy": ([lambda r: np.random.rand() and r], PACK, "TheTransform draws random numbers"),
    "torch": ([lambda r: torch.rand(()) and r], PACK, "TheTransform draws random numbers"),
    "bug": ([lambda r: r["no"]], PACK, "0.png cannot be used .KeyError"),
    "no pack": ([], Callable(lambda r: r), "the last transform must pack the image as 'inputs'"),
    "image": ([], Callable(sees_image), "TheTransform, the last transform, reads the image"),
}


@pytest.mark.parametrize("name", WRONG)
def test_pipelines_that_cannot_be_run_ahead_are_refused(folder, name):
    functions, last, message = WRONG[name]
    dataset = coco(folder, LOAD, RESIZE, *map(Callable, functions), last)
    with pytest.raises(ValueError, match=message):
        TokenImages(dataset).check()


def test_a_transform_that_draws_for_some_images_only_is_found_when_it_does(folder):
    def sometimes(results):
        if results["sample_idx"] == 4:
            np.random.rand()
        return results

    images = TokenImages(coco(folder, LOAD, RESIZE, Callable(sometimes), PACK))
    images.check()
    with pytest.raises(ValueError, match="draws random numbers"):
        images[4]


def test_images_of_different_sizes_are_refused(folder):
    images = TokenImages(coco(folder, LOAD, PACK))
    images.check(images=1)
    with pytest.raises(ValueError, match=r"keep_ratio=False"):
        [images[row] for row in range(5)]


def test_checking_leaves_the_generators_alone(folder):
    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    TokenImages(coco(folder)).check()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_a_data_set_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="list"):
        TokenImages([1, 2])


def facts(count):
    return [{"shape": (i, 2), "name": "x"} for i in range(count)]


def test_a_store_gives_back_what_was_written(tmp_path):
    tokens = torch.randn(7, 4, 3)
    store = TokenStore.create(tmp_path, 7, (4, 3), batch=3)
    assert [list(store.rows(i)) for i in store.missing()] == [[0, 1, 2], [3, 4, 5], [6]]
    for shard in store.missing():
        rows = list(store.rows(shard))
        store.write(shard, ((tokens[[i]], [facts(7)[i]]) for i in rows))
    again = TokenStore.open(tmp_path)
    assert again.missing() == []
    for row in range(7):
        found, about = again[row]
        assert torch.equal(found, tokens[row]) and about == facts(7)[row]
    found[:] = 0  # a copy: the file is as it was
    assert torch.equal(again[6][0], tokens[6])


def filled(folder, key="a", seed=0):
    torch.manual_seed(seed)
    store = TokenStore.create(folder, 6, (4, 3), batch=3, key=key)
    for shard in store.missing():
        store.write(shard, [(torch.randn(3, 4, 3), facts(3))])
    return TokenStore.open(folder)


@pytest.mark.parametrize(
    "kind", ["value", "row", "shard", "store", "facts", "fact", "header", "no facts"]
)
def test_features_that_are_not_those_written_are_refused(tmp_path, kind):
    store, other = filled(tmp_path / "a"), filled(tmp_path / "b", key="b", seed=1)
    tokens, facts_file = (tmp_path / "a" / name for name in ("tokens_00001.npy", "facts_00001.pt"))
    array = np.load(tokens)
    if kind == "value":
        array[2, 3, 1] += 1e-6
        np.save(tokens, array)
    elif kind == "row":
        np.save(tokens, array[[1, 2, 0]])
    elif kind in ("shard", "store"):  # whole files, each with its own checksums
        source = store if kind == "shard" else other
        for path, name in ((tokens, "tokens"), (facts_file, "facts")):
            number = 0 if kind == "shard" else 1
            path.write_bytes(next(source.folder.glob(f"{name}_0000{number}.*")).read_bytes())
    elif kind == "facts":
        facts_file.write_bytes(facts_file.read_bytes()[:-100])
    elif kind == "fact":
        facts_file.write_bytes(facts_file.read_bytes().replace(b"name", b"nane"))
    elif kind == "header":
        np.save(tokens, array.reshape(4, 3, 3))
    else:
        torch.save([{}, {}, {}], facts_file)
    assert store[0][0].shape == (4, 3)
    store = TokenStore.open(tmp_path / "a")
    with pytest.raises(ValueError, match=r"tokens_00001\.npy' are damaged .*delete this file, and"):
        [store[row] for row in range(6)]


def test_many_images_have_few_files(tmp_path):
    store = TokenStore.create(tmp_path, 82081, (197, 512), batch=32)
    assert len(store.missing()) <= 256 and store.per_shard % 32 == 0
    assert store.bytes_of(82081) == 82081 * 197 * 512 * 4


def test_a_failed_write_leaves_nothing(tmp_path):
    store = TokenStore.create(tmp_path, 4, (4, 3), batch=4)
    before = set(os.listdir(tmp_path))
    with pytest.raises(ValueError, match="all images must have one size"):
        store.write(0, [(torch.zeros(2, 4, 3), facts(2)), (torch.zeros(2, 5, 3), facts(2))])
    with pytest.raises(ValueError, match="has 4 images, got 2"):
        store.write(0, [(torch.zeros(2, 4, 3), facts(2))])
    assert set(os.listdir(tmp_path)) == before and store.missing() == [0]


def test_files_of_killed_processes_are_removed_when_old(tmp_path):
    store = TokenStore.create(tmp_path, 4, (4, 3), batch=4)
    for name, age in (("old", 4000), ("new", 10)):
        path = tmp_path / f".tokens_00000.npy.{name}.tmp"
        path.write_bytes(b"half")
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    store.remove_abandoned()
    assert {path.name for path in tmp_path.glob(".*")} == {".tokens_00000.npy.new.tmp"}


def test_a_damaged_index_is_named(tmp_path):
    assert TokenStore.open(tmp_path) is None
    (tmp_path / "index.json").write_text('{"count": 3}')
    with pytest.raises(ValueError, match=r"index.json' is damaged .* delete its folder"):
        TokenStore.open(tmp_path)
