"""Training on kept features is the training without them; stale features are never taken."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmclipdis.apis import cache_features
from mmclipdis.apis.cli import UserInputError, run
from mmclipdis.apis.run import train
from mmclipdis.datasets.recognition.token_store import TokenStore
from mmclipdis.engine import NonFiniteLossError
from mmclipdis.models.recognition.dclip import DCLIP
from mmclipdis.utils.statistics import CLIP
from tests.datasets.recognition.token_task import write_task
from tests.models.recognition.test_dclip_configs import shrunk
from tests.ranks import launch

WORK = iter(range(10**6))


@pytest.fixture
def config(tmp_path):
    return write_task(tmp_path / "task")


@pytest.fixture(autouse=True)
def seen(monkeypatch):
    """Counts the images that pass through the tower, in a list of one number."""
    tokens, seen = DCLIP.tokens, [0]

    def counting(self, images):
        seen[0] += len(images)
        return tokens(self, images)

    monkeypatch.setattr(DCLIP, "tokens", counting)
    return seen


def fit(config, *flags, options=(), work=None):
    """Train in a new work folder; returns the runner and the loss of every iteration."""
    number = next(WORK)
    work = work or config.parent / f"work_{number}"
    more = [f"experiment_name=cache_{number}", *options]
    runner = train([str(config), "--work-dir", str(work), *flags, "--cfg-options", *more])
    losses, _ = runner.message_hub.get_scalar("train/loss").data
    return runner, np.asarray(losses)


def weights(runner):
    model = getattr(runner.model, "module", runner.model)
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def caches(config):
    return sorted(path.parent for path in (config.parent / "cache").glob("*/index.json"))


def cached(config):
    return "--cache-features", str(config.parent / "cache")


def test_losses_and_weights_are_those_of_the_run_without_cache(config, seen):
    plain, expected = fit(config)
    assert seen == [22]
    runner, losses = fit(config, *cached(config))
    assert len(losses) == 12  # two epochs of 11 images, the last batch of one
    np.testing.assert_allclose(losses, expected, rtol=1e-6, atol=0)
    assert float((weights(runner) - weights(plain)).abs().max()) < 1e-6
    assert seen == [22 + 12]  # one more to know their size
    _, losses_again = fit(config, *cached(config))
    assert seen == [22 + 12 + 1]  # one, to see that the features are still the model's
    assert np.array_equal(losses, losses_again)
    assert len(caches(config)) == 1


def test_class_names_and_the_saved_checkpoint_are_those_of_the_data_set(config):
    plain, _ = fit(config)
    runner, _ = fit(config, *cached(config))
    plain_file, file = (Path(r.work_dir) / "epoch_2.pth" for r in (plain, runner))
    one, two = (torch.load(path, weights_only=True) for path in (plain_file, file))
    assert one["meta"]["dataset_meta"] == two["meta"]["dataset_meta"]
    assert list(one["state_dict"]) == list(two["state_dict"])


def test_worker_processes_read_the_same_features(config):
    _, expected = fit(config, *cached(config))
    shutil.rmtree(config.parent / "cache")
    options = ["train_dataloader.num_workers=2", "train_dataloader.persistent_workers=True"]
    _, losses = fit(config, *cached(config), options=options)
    assert np.array_equal(losses, expected)


def test_a_resumed_run_continues_exactly(config):
    whole, losses = fit(config, *cached(config))
    work = config.parent / "parts"
    fit(config, *cached(config), options=["train_cfg.max_epochs=1"], work=work)
    runner, rest = fit(config, *cached(config), "--resume", work=work)
    assert torch.equal(weights(whole), weights(runner))
    assert np.array_equal(rest[-6:], losses[-6:])


def test_labels_are_read_live(config):
    fit(config, *cached(config))
    options = ["train_dataloader.dataset.partial=0.5"]
    _, expected = fit(config, options=options)
    _, losses = fit(config, *cached(config), options=options)
    np.testing.assert_allclose(losses, expected, rtol=1e-6, atol=0)
    assert len(caches(config)) == 1


def test_mixed_precision_has_features_of_its_own(config):
    _, full = fit(config, *cached(config))
    options = ["optim_wrapper.type=Bfloat16Wrapper"]
    _, expected = fit(config, options=options)
    _, losses = fit(config, *cached(config), options=options)
    np.testing.assert_allclose(losses, expected, rtol=1e-6, atol=0)
    assert np.abs(losses / full - 1).max() > 1e-4 and len(caches(config)) == 2


def repaint(config):
    path = config.parent / "images" / "4.png"
    cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    return []


def touch(config):
    os.utime(config.parent / "images" / "4.png", (1, 1))
    return []


CHANGES = {
    "weights": "randomness.seed=1",  # the tower's are random
    "pipeline": "train_dataloader.dataset.pipeline.1.interpolation=nearest",
    "image size": "train_dataloader.dataset.pipeline.1.scale=(80,80)",
    "normalisation": "model.data_preprocessor.std=[68.2,66.4,70.5]",
    "channels": "model.data_preprocessor.bgr_to_rgb=False",
    "packing": "train_dataloader.dataset.pipeline.2.type=PackOtherwise",
    "readout": "model.encoder.readout=clearclip",
    "positions": "model.encoder.positions=legacy",
    "image list": "train_dataloader.dataset.indices=7",
    "an image": repaint,
    "its time": touch,
}


@pytest.fixture(scope="module")
def stale(tmp_path_factory):
    config = write_task(tmp_path_factory.mktemp("stale") / "task")
    with config.open("a") as file:
        file.write("model['data_preprocessor'] = dict(type='DCLIPDataPreprocessor')\n")
        file.write("train_cfg = dict(by_epoch=True, max_epochs=1)\n")
    fit(config, *cached(config))
    return config


@pytest.mark.parametrize("change", CHANGES)
def test_features_of_another_state_are_not_taken(stale, change, seen):
    change, before = CHANGES[change], len(caches(stale))
    options = [change] if isinstance(change, str) else change(stale)
    runner, _ = fit(stale, *cached(stale), options=options)
    assert len(caches(stale)) == before + 1
    assert seen == [1 + len(runner.train_dataloader.dataset)]


def test_what_tokens_do_not_depend_on_is_no_part_of_the_key(config):
    fit(config, *cached(config))
    options = ["model.pooling=positive", "model.projectors.out_dim=4", "model.mfi=None"]
    fit(config, *cached(config), options=[*options, "train_dataloader.batch_size=3"])
    assert len(caches(config)) == 1


def rewrite(folder, shard, change):
    """Put other tokens into a store, as if they had been computed so."""
    store = TokenStore.open(folder)
    rows = [store[row] for row in store.rows(shard)]
    tokens = change(torch.stack([tokens for tokens, _ in rows]))
    store.write(shard, [(tokens, [facts for _, facts in rows])])


def test_features_that_are_not_the_models_after_all_are_refused(config):
    """The last defence, against what no key knows of, such as a changed library."""
    fit(config, *cached(config))
    (folder,) = caches(config)
    rewrite(folder, 0, lambda tokens: 1.1 * tokens)
    with pytest.raises(UserInputError, match=rf"{folder}.*not those of this model.*delete"):
        fit(config, *cached(config))


def test_an_interrupted_computation_is_resumed(config, monkeypatch):
    expected = fit(config, *cached(config))[1]
    shutil.rmtree(config.parent / "cache")
    compute, calls = cache_features.compute_tokens, []

    def interrupted(runner, samples):
        calls.append(len(samples))
        if len(calls) == 4:  # one to try the first image, then three batches
            raise KeyboardInterrupt
        return compute(runner, samples)

    monkeypatch.setattr(cache_features, "compute_tokens", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(config, *cached(config))
    (folder,) = caches(config)
    names = [f"{kind}_{i:05d}.{end}" for i in range(2) for kind, end in
             (("tokens", "npy"), ("facts", "pt"))]  # fmt: skip
    assert {path.name for path in folder.iterdir()} == {"index.json", *names}
    _, losses = fit(config, *cached(config))
    assert sum(calls[4:]) == 1 + 7
    assert np.array_equal(losses, expected)


def test_a_shortened_file_is_computed_again(config, seen):
    _, expected = fit(config, *cached(config))
    (folder,) = caches(config)
    path = folder / "tokens_00002.npy"
    path.write_bytes(path.read_bytes()[:-4])
    _, losses = fit(config, *cached(config))
    assert seen == [12 + 1 + 2]
    assert np.array_equal(losses, expected)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["tokens", "facts"])
def test_a_damaged_file_is_one_line_with_the_remedy(config, capsys, kind, workers):
    """Not only that of the first image: each image is compared with its checksum."""
    fit(config, *cached(config))
    (folder,) = caches(config)
    tokens = folder / "tokens_00004.npy"
    path = tokens if kind == "tokens" else folder / "facts_00004.pt"
    content = bytearray(path.read_bytes())
    content[-40 if kind == "tokens" else content.index(b"_shape")] ^= 1
    path.write_bytes(content)
    line = one_line(config, capsys, f"train_dataloader.num_workers={workers}")
    assert f"features in '{tokens}' are damaged" in line and "delete this file" in line
    tokens.unlink()
    fit(config, *cached(config))


def test_a_store_under_another_name_is_refused(config, capsys):
    fit(config, *cached(config))
    (folder,) = caches(config)
    index = folder / "index.json"
    index.write_text(index.read_text().replace(f'"key": "{folder.name}', '"key": "0'))
    line = one_line(config, capsys)
    assert f"'{folder}' holds other features than its name says; delete" in line


def one_line(config, capsys, *options):
    """What the tool prints of a mistake."""
    capsys.readouterr()
    more = [f"experiment_name=cache_{next(WORK)}", *options]
    work = str(config.parent / "work")
    arguments = [str(config), "--work-dir", work, *cached(config), "--cfg-options", *more]
    with pytest.raises(SystemExit):
        run(train, arguments)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named_and_what_is_done_is_kept(config, capsys, workers):
    (config.parent / "images" / "6.png").write_bytes(b"no image")
    line = one_line(config, capsys, f"train_dataloader.num_workers={workers}")
    assert str(config.parent / "images" / "6.png") in line and "cannot be used" in line
    (folder,) = caches(config)
    kept = len(list(folder.glob("tokens_*.npy")))
    assert kept == 3 and not list(folder.glob(".*"))


def without_labels(config, image):
    """Let an image show no class, and images come in order; returns the options for it."""
    path = config.parent / "labels.json"
    content = json.loads(path.read_text())
    content["annotations"] = [n for n in content["annotations"] if n["image_id"] != image]
    path.write_text(json.dumps(content))
    dataset = "train_dataloader.dataset.filter_empty=False"
    return [dataset, "train_dataloader.sampler.shuffle=False"]


def spoil(config, name):
    view = f"dict(type='SpoiltImage', name='{name}'), "
    config.write_text(
        config.read_text().replace('dict(type="PackMulti', view + 'dict(type="PackMulti')
    )


def test_an_image_of_nan_without_a_class_stops_its_own_iteration(config):
    options = without_labels(config, 5)
    spoil(config, "5.png")
    with pytest.raises(NonFiniteLossError, match=r"iteration 3: .*loss_asl.*/4.png, \S*/5.png; "):
        fit(config, options=options)


def test_kept_features_of_nan_without_a_class_stop_their_own_iteration(config):
    options = without_labels(config, 5)
    fit(config, *cached(config), options=options)
    (folder,) = caches(config)
    rewrite(folder, 2, lambda tokens: tokens.index_fill(0, torch.tensor(1), float("nan")))
    with pytest.raises(NonFiniteLossError, match=r"iteration 3: .*loss_asl.*/4.png, \S*/5.png; "):
        fit(config, *cached(config), options=options)


@pytest.mark.parametrize(("name", "kept"), [("5.png", 2), ("0.png", 0)])
def test_features_that_are_no_numbers_are_not_kept(config, capsys, monkeypatch, name, kept):
    """As from half precision, which a large value overflows; the image itself is sound."""
    row = int(name[0])
    tokens = DCLIP.tokens

    def overflowing(self, images):
        found = tokens(self, images)
        found[(images - wanted).abs().amax((1, 2, 3)) < 1e-5, 1] = float("inf")
        return found

    bgr = cv2.resize(cv2.imread(str(config.parent / "images" / name)), (64, 64))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in CLIP.of_bytes)
    wanted = (torch.from_numpy(bgr[..., ::-1].copy()).permute(2, 0, 1) - mean) / std
    monkeypatch.setattr(DCLIP, "tokens", overflowing)
    line = one_line(config, capsys)
    assert f"{config.parent / 'images' / name} are not finite" in line and "--amp" in line
    assert f"{row + 1}.png" not in line
    assert len(list((config.parent / "cache").glob("*/tokens_*.npy"))) == kept


def test_a_missing_image_is_named(config, capsys):
    (config.parent / "images" / "6.png").unlink()
    assert str(config.parent / "images" / "6.png") in one_line(config, capsys)


RANDOM = {
    "RandomFlip": "dict(type='RandomFlip', prob=0.5)",
    "PrivateNoise": "dict(type='PrivateNoise')",
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_views_are_refused_by_name(config, capsys, name):
    text = config.read_text().replace(
        'dict(type="PackMulti', RANDOM[name] + ', dict(type="PackMulti'
    )
    config.write_text(text)
    line = one_line(config, capsys)
    assert name in line and "pipeline without it, as configs/dclip/" in line
    assert not caches(config)


@pytest.mark.parametrize("name", ["CutoutRandomColor", "RandAugmentUDA"])
def test_dclips_own_random_views_are_refused_by_name(config, capsys, name):
    text = config.read_text()
    view = f"dict(type='{name}'), "
    config.write_text(text.replace('dict(type="PackMulti', view + 'dict(type="PackMulti'))
    assert f"{name} draws random numbers" in one_line(config, capsys)


def test_the_config_for_kept_features_trains_on_them(tmp_path, seen):
    config = shrunk("dclip_rn101_coco14_cached", tmp_path)
    config.dump(tmp_path / "cached.py")
    runner, losses = fit(tmp_path / "cached.py", *cached(tmp_path / "cached.py"))
    assert runner.iter == len(losses) == 2 and len(caches(tmp_path / "cached.py")) == 1
    about = json.loads((caches(tmp_path / "cached.py")[0] / "index.json").read_text())
    assert about["count"] == 4 and about["shape"] == [5, 32]  # the mean token is one of them
    assert seen == [1 + 4 + 4]  # and the images of the validation


def test_the_mean_token_is_part_of_the_key(tmp_path, seen):
    shrunk("dclip_rn101_coco14_cached", tmp_path).dump(tmp_path / "cached.py")
    for options in ([], ["model.mean_token=False"]):
        fit(tmp_path / "cached.py", *cached(tmp_path / "cached.py"), options=options)
    abouts = [json.loads((path / "index.json").read_text()) for path in caches(tmp_path / "c")]
    assert sorted(about["shape"] for about in abouts) == [[4, 32], [5, 32]]


def test_a_model_without_tokens_is_refused(config, capsys):
    config.write_text(config.read_text() + "model = dict(type='NoTokens')")
    line = one_line(config, capsys)
    assert "NoTokens has no frozen features" in line and "leave --cache-features out" in line


def test_a_preprocessor_for_images_only_is_refused_before_anything_is_computed(config, capsys):
    kind = "dict(type='ImgDataPreprocessor', mean=[123.0, 117.0, 104.0], std=[68.5, 66.5, 70.5])"
    config.write_text(config.read_text() + f"model['data_preprocessor'] = {kind}")
    assert "ImgDataPreprocessor takes images only" in one_line(config, capsys)
    assert not caches(config)


def test_a_trained_encoder_is_refused(config, capsys):
    config.write_text(config.read_text() + "model = dict(type='TrainedTokens')")
    assert "freeze it with model.encoder.trainable=()" in one_line(config, capsys)


def test_the_size_is_said_and_the_disk_is_looked_at_first(config, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")
    needed = 11 * 16 * 32 * 4
    monkeypatch.setattr(cache_features.shutil, "disk_usage", lambda _: usage(0, 0, needed - 1))
    line = one_line(config, capsys)
    assert "2.25e-05 GB are needed" in line and "11 x 16 x 32 float32" in line
    assert str(config.parent / "cache") in line
    monkeypatch.setattr(cache_features.shutil, "disk_usage", lambda _: usage(0, 0, needed))
    fit(config, *cached(config))


def test_a_folder_that_cannot_be_written_is_one_line(config, capsys):
    (config.parent / "cache").write_text("a file")
    assert str(config.parent / "cache") in one_line(config, capsys)


def test_two_processes_share_the_work_and_equal_one(config):
    fit(config, *cached(config))
    (alone,) = caches(config)
    alone = alone.rename(config.parent / "alone")
    work = ["--work-dir", str(config.parent / "two"), "--cfg-options", "log_level=INFO"]
    result = launch("dist_train.sh", str(config), "2", *cached(config), *work)
    assert result.returncode == 0, result.stderr[-3000:]
    (folder,) = caches(config)
    for path in alone.glob("tokens_*.npy"):
        assert np.allclose(np.load(path), np.load(folder / path.name), rtol=1e-6, atol=0)
    about = [json.loads((place / "index.json").read_text()) for place in (alone, folder)]
    assert about[0] == about[1] and len(list(folder.iterdir())) == len(list(alone.iterdir()))
    assert "11 images to compute" in result.stdout + result.stderr
    # rank 0 did its half, and drew no bar into what is no terminal
    assert "features: 6 images are this process's part" in result.stdout + result.stderr
    assert "6/6" not in result.stderr
