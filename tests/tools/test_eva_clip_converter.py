"""tools/model_converters/eva_clip.py: there and back, out of a run, strict, and never halfway."""

from __future__ import annotations

import open_clip
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mmclipdis.clip.towers.build import build_text_transformer
from mmclipdis.clip.towers.readout import READOUTS, Readout
from mmclipdis.clip.weights import tower_size
from mmclipdis.clip.weights.eva_layout import official_to_open_clip
from mmclipdis.clip.weights.loading import read_clip_checkpoint
from mmclipdis.clip.weights.readout_mark import encode_readout
from mmclipdis.clip.weights.tags import PACKAGED
from tests.eva_files import EVA_ARCH, TinyEva, tiny_official
from tests.tiny import tiny_arch
from tools.model_converters.eva_clip import convert, main, official_rope_tables


@pytest.fixture
def official():
    torch.manual_seed(5)
    text = build_text_transformer(EVA_ARCH).state_dict()
    return tiny_official({name: value.clone() for name, value in text.items()})


@pytest.fixture
def source(tmp_path, official):
    torch.save(official, tmp_path / "EVA02_CLIP.pt")
    return tmp_path / "EVA02_CLIP.pt"


def weights(official):
    return {name: value for name, value in official.items() if "freqs_" not in name}


def load(path):
    return torch.load(path, weights_only=True)


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in got)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_there_and_back_is_the_identity(tmp_path, official, source, suffix):
    ours, back = tmp_path / f"ours.{suffix}", tmp_path / "back.pt"
    report = convert(source, ours, arch=EVA_ARCH)
    assert len(report.renamed) == 71 and len(report.dropped) == 8
    state = load_file(ours) if suffix == "safetensors" else load(ours)["state_dict"]
    assert set(state) == set(official_to_open_clip(official)[0])
    report = convert(ours, back, "official", arch=EVA_ARCH)
    assert len(report.renamed) == 71 and not report.dropped
    assert_same(load(back)["state_dict"], weights(official))


def test_open_clip_loads_the_result_strictly(tmp_path, source):
    convert(source, tmp_path / "ours.pt", arch=EVA_ARCH)
    tower, text = TinyEva(), build_text_transformer(EVA_ARCH)
    state = load(tmp_path / "ours.pt")["state_dict"]
    assert state.pop("logit_scale") == torch.tensor(4.6052)
    tower.load_state_dict({k: v for k, v in state.items() if k.startswith("visual.")})
    text.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith("text.")})


def a_run(official, path):
    state = official_to_open_clip(official)[0]
    state = {"student.tower." + k: v for k, v in state.items() if k.startswith("visual.")}
    mark = {"student.readout": encode_readout(READOUTS["csa"])}
    torch.save({"state_dict": state | mark, "meta": {"epoch": 6}, "optimizer": {}}, path)


def test_student_of_a_run_leaves_in_the_official_layout(tmp_path, official, source):
    run, target = tmp_path / "epoch_6.pth", tmp_path / "declip.pt"
    trained = {k: v + 1 if k.startswith("visual.") else v for k, v in official.items()}
    a_run(trained, run)
    report = convert(run, target, "official", arch=EVA_ARCH, text_from=source)
    assert_same(load(target)["state_dict"], weights(trained))
    assert load(target)["readout"]["attention"] == ("qq", "kk")
    assert report.dropped == {"student.readout": "mark of the readout, read apart"}
    name = "student.tower.visual.trunk.blocks.2.attn.q_proj.bias"
    assert report.renamed[name] == "visual.blocks.2.attn.q_bias"
    assert report.added["text.positional_embedding"] == str(source)
    assert len(report.added) == sum(not k.startswith("visual.") for k in official)


def test_without_a_text_tower_only_the_image_tower_is_written(tmp_path, official):
    a_run(official, tmp_path / "run.pth")
    convert(tmp_path / "run.pth", tmp_path / "image.pt", "official", arch=EVA_ARCH)
    state = load(tmp_path / "image.pt")["state_dict"]
    assert len(state) == 71 and all(name.startswith("visual.") for name in state)


def test_half_precision_and_added_temperature(tmp_path, official):
    lacking = {k: v for k, v in official.items() if k != "logit_scale"}
    torch.save(lacking, tmp_path / "in.pt")
    report = convert(tmp_path / "in.pt", tmp_path / "out.pt", "official", arch=EVA_ARCH, half=True)
    state = load(tmp_path / "out.pt")["state_dict"]
    assert all(value.dtype == torch.float16 for value in state.values())
    assert state["logit_scale"].exp().item() == pytest.approx(100, rel=2e-3)
    assert "log 100" in report.added["logit_scale"]


def test_rope_tables_are_those_of_the_official_code():
    for arch, depth, tokens, cos, sin in (
        ("EVA02-B-16", 12, 196, 9147.386, 2097.197),
        ("EVA02-L-14-336", 24, 576, 26603.785, 6284.209),
    ):
        tables = official_rope_tables(arch)
        assert len(tables) == 2 * (1 + depth)
        assert all(table.shape == (tokens, 64) for table in tables.values())
        last = f"visual.blocks.{depth - 1}.attn.rope.freqs_"
        assert tables[last + "cos"].sum().item() == pytest.approx(cos, rel=1e-5)
        assert tables["visual.rope.freqs_sin"].sum().item() == pytest.approx(sin, rel=1e-5)


def test_rope_tables_are_written_on_demand(tmp_path, official, source):
    target = tmp_path / "out.pt"
    report = convert(source, target, "official", arch=EVA_ARCH, rope_tables=True)
    assert set(load(target)["state_dict"]) == set(official)
    assert set(report.added) == {name for name in official if "freqs_" in name}
    with pytest.raises(ValueError, match="only part of EVA-CLIP's official layout"):
        convert(source, tmp_path / "x.pt", arch=EVA_ARCH, rope_tables=True)


def test_rope_tables_stay_float32_in_files_of_half_precision(tmp_path, source):
    """As in the released files."""
    full, half = tmp_path / "full.pt", tmp_path / "half.pt"
    convert(source, full, "official", arch=EVA_ARCH, rope_tables=True)
    convert(source, half, "official", arch=EVA_ARCH, rope_tables=True, half=True)
    expected = load(full)["state_dict"]
    for name, value in load(half)["state_dict"].items():
        if "freqs_" in name:
            assert value.dtype == torch.float32 and torch.equal(value, expected[name]), name
        else:
            assert value.dtype == torch.float16, name


def test_weights_that_are_not_finite_are_not_converted(tmp_path, official):
    official["visual.blocks.1.norm1.weight"][3] = float("nan")
    torch.save(official, tmp_path / "in.pt")
    with pytest.raises(ValueError, match=r"blocks.1.norm1.weight \(1 of 32 values\) is NaN"):
        convert(tmp_path / "in.pt", tmp_path / "out.pt", arch=EVA_ARCH)


def test_openai_weights_keep_their_names(tmp_path):
    torch.manual_seed(0)
    arch = tiny_arch()
    model = open_clip.CLIP(**arch).state_dict()
    torch.save({"state_dict": {"module." + k: v for k, v in model.items()}}, tmp_path / "in.pt")
    for layout in ("official", "open_clip"):
        target = tmp_path / f"{layout}.pt"
        report = convert(tmp_path / "in.pt", target, layout, arch=arch, readout=READOUTS["qq"])
        assert_same(load(target)["state_dict"], dict(model))
        assert read_clip_checkpoint(arch, target).readout == READOUTS["qq"]
        assert not report.dropped


def test_readout_is_marked_kept_and_not_changed(tmp_path, source):
    unscaled, target = Readout(("qq", "kk"), scale="none"), tmp_path / "csa.safetensors"
    convert(source, target, arch=EVA_ARCH, readout=unscaled)
    assert read_clip_checkpoint(EVA_ARCH, target).readout == unscaled
    convert(target, tmp_path / "again.pt", "official", arch=EVA_ARCH)
    assert read_clip_checkpoint(EVA_ARCH, tmp_path / "again.pt").readout == unscaled
    message = (
        r"csa.safetensors' is marked as .*scale='none'\), which contradicts --readout 'declip' "
    )
    with pytest.raises(ValueError, match=message + ".*; leave out --readout to keep the mark$"):
        convert(target, tmp_path / "x.pt", arch=EVA_ARCH, readout=READOUTS["csa"])


@pytest.fixture
def guessed(monkeypatch):
    """Make the shapes of the tiny CLIP known, as two arches that differ in the activation."""
    size = ("OpenAI-style", 64, 3, 16, 4)
    monkeypatch.setitem(tower_size._KNOWN, size, "tiny-quickgelu")
    known = open_clip.get_model_config

    def config(name):
        if not name.startswith("tiny"):
            return known(name)
        return tiny_arch() | {"quick_gelu": name == "tiny-quickgelu"}

    monkeypatch.setattr(open_clip, "get_model_config", config)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize(
    ("mark", "arch", "expected"),
    [
        *((None, None, None), (None, "tiny", False), (None, "tiny-quickgelu", True)),
        *((True, None, True), (False, None, False), (False, "tiny", False)),
    ],
)
def test_activation_is_marked_only_where_it_is_known(
    tmp_path, capsys, guessed, suffix, mark, arch, expected
):
    torch.manual_seed(0)
    source, target = tmp_path / "in.pt", tmp_path / f"out.{suffix}"
    content = {"state_dict": open_clip.CLIP(**tiny_arch()).state_dict()}
    torch.save(content | ({} if mark is None else {"quick_gelu": mark}), source)
    main([str(source), str(target), *(["--arch", arch] if arch else [])])
    fitting = "tiny" if expected is False else "tiny-quickgelu"
    assert read_clip_checkpoint(fitting, target).quick_gelu is expected
    said = "assumed: QuickGELU" in capsys.readouterr().out
    assert said == (expected is None)


def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path, official, source):
    def refuse(message, state=None, **kwargs):
        path = source
        if state is not None:
            torch.save(state, path := tmp_path / "in.pt")
        before = sorted(tmp_path.iterdir())
        with pytest.raises(ValueError, match=message):
            convert(path, tmp_path / "out.pt", **{"arch": EVA_ARCH, **kwargs})
        assert sorted(tmp_path.iterdir()) == before

    refuse(r"holds an EVA-CLIP ViT of width 32.*name its arch with --arch", arch=None)
    refuse(
        r"tower 'EVA02-B-16': it holds .*width 32.*width 768.*, or a file of this arch",
        arch="EVA02-B-16",
    )
    refuse(r"holds an EVA-CLIP .*OpenAI-style kind", arch="ViT-B-16-quickgelu")
    refuse(r"has its own text tower; leave out --text-from", text_from=source)
    refuse(r"layout='timm'; expected one of open_clip, official", layout="timm")
    name = "visual.blocks.1.mlp.ffn_ln.bias"
    lacking = {k: v for k, v in official.items() if k != name}
    refuse(r"missing visual.trunk.blocks.1.mlp.norm.bias; choose", lacking)
    refuse(r"blocks.1.mlp.norm.bias is \(3,\), expected \(85,\)", official | {name: torch.ones(3)})
    refuse(r"unexpected visual.trunk.mask_token", official | {"visual.mask_token": torch.ones(3)})
    refuse("holds no image tower", {k: v for k, v in official.items() if "visual" not in k})


def test_text_tower_of_another_size_is_refused(tmp_path, official):
    a_run(official, tmp_path / "run.pth")
    other = official | {"visual.pos_embed": torch.zeros(1, 26, 32)}
    torch.save(other, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"5 x 5 positions, but .*4 x 4 positions; give the text"):
        convert(
            tmp_path / "run.pth",
            tmp_path / "out.pt",
            arch=EVA_ARCH,
            text_from=tmp_path / "other.pt",
        )


def test_nothing_is_overwritten_unasked_or_left_half_written(tmp_path, source, monkeypatch):
    target = tmp_path / "out.pt"
    target.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="out.pt' exists and is left .*give --overwrite"):
        convert(source, target, arch=EVA_ARCH)

    def interrupted(content, file):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            convert(source, target, arch=EVA_ARCH, overwrite=True)
    assert target.read_bytes() == b"precious" and len(list(tmp_path.iterdir())) == 2
    convert(source, target, arch=EVA_ARCH, overwrite=True)
    assert (
        len(load(target)["state_dict"])
        == 71 + len(build_text_transformer(EVA_ARCH).state_dict()) + 1
    )


def test_command_line(tmp_path, capsys, source):
    packaged, target = PACKAGED["shapes-tiny", "shapes"], tmp_path / "out" / "tiny.safetensors"
    args = [str(packaged), str(target), "--arch", "shapes-tiny"]
    main([*args, "--readout", "csa", "--scale", "none", "--report"])
    lines = capsys.readouterr().out.splitlines()
    assert "visual.conv1.weight kept" in lines and "keys renamed" in lines[-1]
    with safe_open(target, framework="pt") as file:
        assert file.metadata()["quick_gelu"] == "false"
    marked = read_clip_checkpoint("shapes-tiny", target)
    assert marked.readout == Readout(("qq", "kk"), scale="none")
    with pytest.raises(SystemExit, match="exists and is left as it is; .*give --overwrite"):
        main(args)
    with pytest.raises(SystemExit, match="name its arch with --arch"):
        main([str(source), str(tmp_path / "x.pt")])
    with pytest.raises(SystemExit, match="'absent.pt' does not exist"):
        main(["absent.pt", str(tmp_path / "x.pt")])
    with pytest.raises(SystemExit, match="'clip_surgery' has no --scale"):
        main([*args, "--readout", "clip_surgery", "--scale", "none"])
    with pytest.raises(SystemExit):
        main([*args, "--scale", "none"])
    assert "give both" in capsys.readouterr().err
