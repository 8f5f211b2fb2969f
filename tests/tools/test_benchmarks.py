"""The benchmarks measure what they say: turns, ratios, allocated bytes, counted FLOPs."""

from __future__ import annotations

import importlib
import time
from itertools import accumulate
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmclipdis.clip.text.encoder import TextTower
from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.clip.towers.build import build_image_tower, build_text_transformer
from mmclipdis.clip.towers.readout import READOUTS
from mmclipdis.engine.results import read_results
from tests.models.segmentation.catseg.tiny import shrink_model
from tests.paths import ROOT
from tests.tiny import tiny_arch

FOLDER = ROOT / "tools" / "benchmarks"
CONFIGS = FOLDER.parents[1] / "configs"


@pytest.fixture
def load(monkeypatch):
    """Import a benchmark as its own command would."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.fixture
def bench(load):
    return load("bench")


def test_cases_take_turns_and_every_other_round_runs_backwards(bench):
    calls = []
    cases = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    times = bench.interleave(cases, rounds=3, warmup=1)
    assert "".join(calls) == "baabbaab"
    assert {name: len(seconds) for name, seconds in times.seconds.items()} == {"a": 3, "b": 3}


def test_a_ratio_compares_within_a_round(bench):
    """The second round is ten times as slow throughout, which no ratio may show."""
    ticks = accumulate([0, 2, 0, 1, 0, 10, 0, 20, 0, 4, 0, 2])
    times = bench.interleave({"a": int, "b": int}, rounds=3, warmup=0, clock=lambda: next(ticks))
    assert times.seconds == {"a": (2, 20, 4), "b": (1, 10, 2)}
    assert times.ratio("a", "b") == 2
    assert times.median("a") == 4


@pytest.mark.parametrize(("cases", "rounds"), [({}, 1), ({"a": int}, 0)])
def test_nothing_to_time_is_an_error(bench, cases, rounds):
    with pytest.raises(ValueError, match="nothing to time"):
        bench.interleave(cases, rounds)


def test_peak_memory_counts_what_is_held_at_once(bench):
    outside = torch.zeros(1_000_000)

    def case():
        first = outside + 1  # 4 MB
        second = first + 1  # 8 MB
        del first
        return second * 2  # 8 MB again

    assert bench.peak_mb(case) == pytest.approx(8, abs=0.01)


def test_peak_memory_sees_the_backward_pass(bench):
    weight = torch.ones(1_000_000, requires_grad=True)
    assert bench.peak_mb(lambda: (weight.exp() * 3).sum().backward()) >= 8


@pytest.mark.parametrize(
    ("measured", "bounds", "holds", "target"),
    [
        (1.6, {"at_least": 1.6}, True, "≥ 1.6"),
        (1.59, {"at_least": 1.6}, False, "≥ 1.6"),
        (50.0, {"at_most": 50}, True, "≤ 50"),
        (50.1, {"at_most": 50}, False, "≤ 50"),
    ],
)
def test_a_claim_holds_on_its_side_of_the_bound(bench, measured, bounds, holds, target):
    claim = bench.Claim("x", measured, **bounds)
    assert (claim.holds, claim.target) == (holds, target)


def test_reports_are_merged_into_the_results_only_when_asked(bench, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "benchmarks.json")
    rows = [{"name": "row", "metrics": {"time_ms": 1.23456}}]
    claims = [bench.Claim("claim", 2.0, at_least=3)]
    bench.report(SimpleNamespace(write=False), rows, claims)
    assert not bench.RESULTS.exists()
    bench.report(SimpleNamespace(write=True), rows, claims)
    assert read_results(bench.RESULTS)["rows"] == [
        {"name": "row", "metrics": {"time_ms": 1.235}},
        {"name": "claim", "metrics": {"measured": 2.0, "target": "≥ 3"}},
    ]
    assert "MISSED" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["vanilla", "clearclip", "maskclip", "declip"])
def test_flops_are_those_of_the_formula(load, name):
    tower = build_image_tower(tiny_arch()).eval()
    readout, width, layers = READOUTS[name], 64, 3
    patches, tokens = 16, 17
    block = 12 * tokens * width**2 + 2 * tokens**2 * width
    parts, softmaxes = len(readout.parts), sum(t != "identity" for t in readout.attention)
    last = parts * tokens * width**2 + patches * width**2 * (1 + 8 * readout.ffn)
    last += softmaxes * 2 * patches * tokens * width
    stem, projection = patches * 3 * 16 * 16 * width, patches * width * 32
    expected = 2 * (stem + (layers - 1) * block + last + projection)
    got = load("dense_features").matmul_flops(tower, torch.randn(1, 3, 64, 64), readout)
    assert got == expected


def test_dense_features_are_measured_for_every_readout(load):
    module = load("dense_features")
    tower = build_image_tower(tiny_arch(layers=6)).eval()
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        rows, claims = module.readout_rows(tower, images, 1, time.perf_counter)
        more, window_claims = module.window_rows(
            tower, images, READOUTS["clearclip"], 1, time.perf_counter
        )
    alone = {name for name, readout in READOUTS.items() if module._is_alone(readout, 6)}
    assert {"vanilla", "naclip", "clip_surgery"} < alone and "proxyclip" not in alone
    assert {f"readout {name}" for name in alone} < {row["name"] for row in rows}
    by_name = {row["name"]: row["metrics"] for row in rows + more}
    assert by_name["readout clearclip"]["peak_mb"] <= by_name["readout vanilla"]["peak_mb"]
    assert by_name["3 windows one by one"]["peak_mb"] < by_name["3 windows batched"]["peak_mb"]
    assert [claim.at_most or claim.at_least for claim in claims + window_claims] == [
        0.75,
        0.75,
        1.6,
    ]


def test_text_is_measured_cold_and_cached(load):
    module = load("text_embedding")
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    arch = {**tiny_arch(), "text_cfg": text}
    tower = TextTower(build_text_transformer(arch)).eval().requires_grad_(False)
    vocabulary = Vocabulary.from_names(["cat", "dog"], "single")
    rows, claims = module.cold_rows(tower, vocabulary, 1, 8, time.perf_counter)
    more, cached = module.cached_rows(tower, vocabulary, 1, time.perf_counter)
    assert len(rows) == 3
    assert len(more) == 1
    assert [claim.target for claim in claims + cached] == ["≥ 6", "≤ 50", "≤ 50"]


def test_labels_in_chunks_take_less_memory_than_the_full_tensor(load):
    rows = load("segmentor").memory_rows((224, 224), (64,))
    chunks, full = (row["metrics"]["peak_mb"] for row in rows)
    assert chunks < 0.7 * full


def test_the_plain_segmentor_gives_the_same_labels(load):
    module = load("segmentor")
    torch.manual_seed(0)
    model = module.build(tiny_arch(), crop=64, stride=32)
    with torch.inference_mode():
        rows, claims = module.speed_rows(model, torch.randn(3, 96, 128), 1, time.perf_counter)
    assert [row["name"] for row in rows] == [
        f"segmentor, 6 windows, {name}" for name in ("batched", "one by one", "plain form")
    ]
    assert claims[1].measured < 0.5


def test_declips_loss_and_attention_are_those_of_the_plain_forms(load):
    """Values and gradients are compared before anything is timed."""
    module = load("context_correlation")
    rows, claims = module.loss_rows(1, 32, 8, 1, time.perf_counter)
    more, fused = module.attention_rows(1024, 2, 16, 1, time.perf_counter)
    assert [row["name"] for row in rows + more] == [
        f"{title}, {name}"
        for title, ours in (
            ("context loss qq, 1 x 1024 tokens", "in strips"),
            ("context loss csa, 1 x 1024 tokens", "in strips"),
            ("attention csa, 1024 tokens", "as in the towers"),
        )
        for name in (ours, "plain form")
    ]
    memory = [claim.measured for claim in claims + fused if claim.name.endswith("memory")]
    assert len(memory) == 3 and max(memory) <= 0.25


def test_a_loss_that_differs_from_the_plain_form_is_not_timed(load):
    module = load("context_correlation")
    cases = {"ours": lambda: [torch.ones(2)], "plain form": lambda: [torch.full((2,), 1.001)]}
    with pytest.raises(RuntimeError, match="x: ours is off by 1.0e-03 of the plain form"):
        module._compare("x", cases, 1, time.perf_counter)


def test_dclips_head_and_epoch_are_measured(load, tmp_path):
    module = load("dclip")
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    encoder = {"type": "CLIPViT", "arch": {**tiny_arch(), "text_cfg": text}}
    model = module.build(encoder)
    clock = time.perf_counter
    rows, claims = module.head_rows(model, "tiny", torch.randn(2, 3, 64, 64), (3, 5), 1, clock)
    assert [row["name"] for row in rows] == [
        f"DCLIP tiny, 2 images, {name}"
        for name in ("tower", *(f"{n} classes, {what}" for n in (3, 5)
                                for what in ("forward", "with backward")))
    ]  # fmt: skip
    assert [claim.target for claim in claims] == ["≤ 0.05", "≤ 0.05"]
    more, epoch = module.epoch_rows(model, "tiny", tmp_path, 6, 4, 64, 1, clock)
    assert [row["metrics"]["ms_per_image"] > 0 for row in more] == [True] * 3
    assert more[2]["metrics"]["mb_per_image"] == 16 * 32 * 4 / 1e6
    assert [claim.target for claim in epoch] == ["≥ 10"]


def test_features_that_give_another_loss_are_not_timed(load, tmp_path, monkeypatch):
    module = load("dclip")
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    model = module.build({"type": "CLIPViT", "arch": {**tiny_arch(), "text_cfg": text}})
    tokens = module.compute_tokens
    monkeypatch.setattr(module, "compute_tokens", lambda *args: tokens(*args).flip(2))
    with pytest.raises(RuntimeError, match="tiny: kept features give the loss"):
        module.epoch_rows(model, "tiny", tmp_path, 3, 3, 64, 1, time.perf_counter)


def test_the_parts_of_f_vit_are_measured(load):
    module = load("fvit")
    model = module.build(Config.fromfile(str(CONFIGS / "shapes" / "fvit.py")))
    with torch.inference_mode():
        rows, claims = module.speed_rows(
            model, torch.randn(1, 3, 64, 64), (3, 120), 1, time.perf_counter
        )
    names = [row["name"].removeprefix("F-ViT 64 px, ") for row in rows]
    assert names[:7] == [
        *("whole", "tower", "up-samplers", "neck", "RPN", "box head", "CLIP's regions")
    ]
    assert len(names) == 7 + 2 * 2
    assert rows[1]["metrics"]["share_of_tower"] == 1
    assert [claim.target for claim in claims] == ["≤ 0.02", "≤ 0.02", "≥ 10"]


def test_detections_that_differ_from_mmdets_are_not_timed(load, monkeypatch):
    module = load("fvit")
    model = module.build(Config.fromfile(str(CONFIGS / "shapes" / "fvit.py")))
    monkeypatch.setattr(
        module, "multiclass_nms", lambda boxes, *_: (boxes.new_ones(3, 5), boxes.new_ones(3))
    )
    monkeypatch.setattr(
        module.fvit_bbox_head,
        "strongest_nms",
        lambda boxes, *_: (boxes.new_zeros(3, 5), boxes.new_zeros(3)),
    )
    with torch.inference_mode(), pytest.raises(RuntimeError, match="multiclass_nms finds others"):
        module.speed_rows(model, torch.randn(1, 3, 64, 64), (3,), 1, time.perf_counter)


def test_the_parts_of_ov_dquo_are_measured(load):
    module = load("ovdquo")
    model = module.build(Config.fromfile(str(CONFIGS / "shapes" / "ovdquo.py")))
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        rows, claims = module.speed_rows(model, image, (3, 200), 1, time.perf_counter)
    names = [row["name"].removeprefix("OV-DQUO 64 px, ") for row in rows]
    assert names[:3] == ["whole", "tower", "levels and neck"] and len(names) == 6 + 2
    assert rows[1]["metrics"]["share_of_tower"] == 1
    assert all(claim.target.startswith("≤") for claim in claims)
    (row,) = module.memory_rows(model, image)
    assert 1 < row["metrics"]["peak_mb"] < 500


def test_both_forms_of_deformable_attention_are_alike(load, monkeypatch):
    module = load("ovdquo")
    rows = module.attention_rows(64, 1, time.perf_counter)
    assert rows[0]["metrics"]["ratio"] == 1
    monkeypatch.setattr(module, "gathered_attention", lambda value, *_: value.flatten(2) + 1)
    with pytest.raises(RuntimeError, match="two forms of deformable attention differ"):
        module.attention_rows(64, 1, time.perf_counter)


def tiny_catseg():
    model = Config.fromfile(str(CONFIGS / "_base_" / "models" / "catseg_vitb16.py")).model
    shrink_model(model, 8)
    return model.to_dict()


def test_resident_memory_counts_what_was_held_for_a_while(bench):
    def case():
        held = torch.ones(50_000_000)  # 200 MB
        time.sleep(0.1)
        del held
        time.sleep(0.05)

    assert bench.peak_above(case) == pytest.approx(200, abs=20)


def test_cat_seg_is_measured_with_many_classes_and_with_few(load):
    module = load("catseg_memory")
    rows, claims = module.memory_rows(
        tiny_catseg(), 30, (96, 64), lambda function, *args: function(*args)
    )
    title = "CAT-Seg, 30 classes, photo 96 x 64"
    names = [f"{title}, {name}" for name in ("as configured", "all classes compete")]
    assert [row["name"] for row in rows] == names
    assert [claim.target for claim in claims] == ["≤ 3000", "≤ 3000"]
    assert 0 <= rows[0]["metrics"]["peak_mb"] < 500
    model = module.build(tiny_catseg(), 5)
    assert (model.num_classes, model.decode_head.aggregator.max_classes) == (5, 256)
    with torch.inference_mode():
        more, ratio = module.speed_rows(model, torch.randn(3, 96, 64), 1, time.perf_counter)
    assert [row["name"].split(", ")[-1] for row in more] == ["in chunks", "at once"]
    assert [claim.target for claim in ratio] == ["≤ 1.05"]


def test_cat_seg_with_other_labels_in_chunks_is_not_timed(load, monkeypatch):
    module = load("catseg_memory")
    model = module.build(tiny_catseg(), 5)
    labels = iter((torch.zeros(4, 4), torch.ones(4, 4)))
    monkeypatch.setattr(module, "labels_of", lambda *_: next(labels))
    with pytest.raises(RuntimeError, match="only 0.00% of the labels agree"):
        module.speed_rows(model, torch.randn(3, 96, 64), 1, time.perf_counter)


def test_renyi_information_is_compared_with_eigenvalues(load):
    module = load("renyi")
    torch.manual_seed(0)
    rows, claims = module.order_rows(64, 3, time.perf_counter)
    assert [row["name"] for row in rows] == [
        f"Rényi {quantity}, 64 samples, order {name}"
        for quantity in ("entropy", "information")
        for name in ("2, closed form", "2, eigenvalues", "1.01, eigenvalues")
    ]
    assert [claim.target for claim in claims] == ["≥ 20", "≥ 20"]


def test_an_entropy_that_differs_from_the_plain_form_is_not_timed(load, monkeypatch):
    module = load("renyi")
    monkeypatch.setattr(module, "plain_entropy", lambda matrix: module.renyi_entropy(matrix, 3))
    with pytest.raises(
        RuntimeError, match="Rényi entropy, 16 samples: order 2, closed form is off"
    ):
        module.order_rows(16, 1, time.perf_counter)


def test_refiners_are_measured(load):
    module = load("refiners")
    rows, claims = module.pamr_rows((40, 50), 3, 1, time.perf_counter)
    title = "PAMR, 3 classes on 40 x 50 px"
    assert [row["name"] for row in rows] == [f"{title}, {n}" for n in ("in place", "stacked")]
    assert [claim.target for claim in claims] == ["≥ 10", "≤ 0.2"]
    assert claims[1].measured < 0.5
    rows, claims = module.photo_rows((64, 128), 4, 2, time.perf_counter)
    names = [row["name"].removeprefix("labels of 64 x 128 px, 4 classes, ") for row in rows]
    assert names == ["no refiner", "PAMR", "PAMR and mask vote"]
    assert [claim.target for claim in claims] == ["≤ 1500"]


def test_scores_that_differ_from_the_stacked_form_are_not_timed(load, monkeypatch):
    module = load("refiners")
    monkeypatch.setattr(module, "stacked", lambda photo, scores, *_: scores)
    with pytest.raises(RuntimeError, match="PAMR is off by .* of the stacked form"):
        module.pamr_rows((20, 24), 2, 1, time.perf_counter)


def test_an_affinity_is_measured(load):
    module = load("affinity")
    clock = time.perf_counter
    dino = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 48}
    model = module.build(
        tiny_arch(layers=2), {"model": "dino-B-8", "model_kwargs": dino}, classes=3
    )
    with torch.inference_mode():
        rows, claims = module.mix_rows((24, 40), 16, 1, clock)
        blocks, whole = (row["metrics"] for row in rows)
        assert blocks["matrix_mb"] == 4e-6 * 960**2 and blocks["peak_mb"] < whole["peak_mb"]
        more, found = module.mix_rows((4, 6), 16, 1, clock, compare=False)
        claims += found
        names = [row["name"].split(", ")[-1] for row in rows + more]
        assert names == ["in blocks", "whole", "in blocks"]
        rows, found = module.share_rows(model, 48, 1, clock)
        assert [row["metrics"]["share"] for row in rows[:1]] == [1] and len(rows) == 5
        claims += found
        rows, found = module.window_rows(model, 48)
        assert len(rows) == 5 and [claim.holds for claim in found] == [True, True]
        claims += found
        tower = model.backbone.tower
        rows, found = module.neighbour_rows(tower, torch.randn(2, 3, 64, 96), 1, clock)
    assert [claim.at_most for claim in claims + found] == [1.1, 0.65, 0.4, 0.1, 1.05, 1.05, 1.15]
    assert rows[0]["name"] == "NACLIP's last block, 2 x 4 x 6 patches, with neighbours"


def test_an_affinity_that_differs_from_the_whole_matrix_is_not_timed(load, monkeypatch):
    module = load("affinity")
    monkeypatch.setattr(module, "mix", lambda affinity, guide, values: guide.tokens.sum())
    with torch.inference_mode(), pytest.raises(RuntimeError, match="is off by .* of the whole"):
        module.mix_rows((4, 6), 8, 1, time.perf_counter)
