r"""Convert CLIP weights between the official names of EVA-CLIP, CLIPSelf, DeCLIP and open_clip's.

    python tools/model_converters/eva_clip.py EVA02_CLIP_B_psz16_s8B.pt eva_b.safetensors
    python tools/model_converters/eva_clip.py DeCLIP_EVA-B_DINOv2-B_csa_0.05_2.0.pt declip_b.pt \
        --readout csa --scale none
    python tools/model_converters/eva_clip.py work_dirs/declip/iter_44358.pth declip_b.pt \
        --to official --text-from EVA02_CLIP_B_psz16_s8B.pt --half

Training and testing read all of these files as they are. Convert to mark weights with the readout
they were distilled for, to take the student out of a run, or to hand weights to the official code.
Weights of an OpenAI-style ViT have the same names in both layouts. Names and shapes are compared
with the arch; without --arch it is found by the shapes, which do not tell QuickGELU (OpenAI,
MetaCLIP) from GELU (LAION): it is marked in the target where the source or --arch says it. Files
are read with ``weights_only=True``; the target appears complete or not at all.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from mmclipdis.apis.cli import run
from mmclipdis.apis.resources import line_of
from mmclipdis.clip.towers.build import build_image_tower, build_text_transformer
from mmclipdis.clip.towers.readout import AnyReadout, Readout, get_readout
from mmclipdis.clip.towers.rotary import rotary_table
from mmclipdis.clip.weights import activation_mark, readout_mark
from mmclipdis.clip.weights.activation_mark import find_quick_gelu
from mmclipdis.clip.weights.eva_layout import open_clip_to_official
from mmclipdis.clip.weights.files import read_file
from mmclipdis.clip.weights.layouts import read_layout
from mmclipdis.clip.weights.loading import (
    Arch,
    check_size,
    has_quick_gelu,
    read_clip_checkpoint,
)
from mmclipdis.clip.weights.parts import ClipCheckpoint
from mmclipdis.clip.weights.readout_mark import describe_readout, readout_json, same_readout
from mmclipdis.clip.weights.renaming import LayoutReport
from mmclipdis.clip.weights.tower_size import TowerSize, tower_size
from mmclipdis.engine import write_checkpoint
from mmclipdis.utils.finite import check_writable
from mmclipdis.utils.whole_files import refuse_existing, write_bytes

LAYOUTS = ("open_clip", "official")
#: Where CLIP's training leaves its temperature: the upper bound, log 100.
LOGIT_SCALE = 4.605170185988092


def convert(
    source: Path,
    target: Path,
    layout: str = "open_clip",
    *,
    arch: Arch | None = None,
    readout: AnyReadout | None = None,
    text_from: Path | None = None,
    half: bool = False,
    rope_tables: bool = False,
    overwrite: bool = False,
) -> LayoutReport:
    """Write the CLIP weights of ``source`` to ``target`` and return what became of every key.

    Args:
        source: A file of any layout that training reads, or a checkpoint of a run.
        target: ``.safetensors``, or ``.pt`` with the weights under ``state_dict``.
        layout: ``'open_clip'`` or ``'official'``.
        arch: open_clip config name or dict; None to find it by the shapes.
        readout: What the weights were trained for; kept if None.
        text_from: File of the text tower and the temperature, for a source without them. Without
            both, the target holds the image tower alone.
        half: Write float16.
        rope_tables: Also write the tables of RoPE, as the official code of CLIPSelf and DeCLIP
            saves them; only for EVA-CLIP in the official layout.
        overwrite: Replace an existing target.

    Raises:
        FileExistsError, FileNotFoundError: as they say.
        ValueError: weights that do not fit ``arch`` or each other, or of another readout.
    """
    for path in (source, text_from):
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"checkpoint {str(path)!r} does not exist")
    refuse_existing(target, overwrite)
    checkpoint, size, arch, note = _read(source, arch)
    if readout is not None:
        checkpoint = replace(checkpoint, readout=_agreed(checkpoint.readout, readout, source))
    added = {} if text_from is None else _text_of(text_from, checkpoint, size, arch)
    state = {**checkpoint.state_dict, **added}
    origin = {name: str(text_from) for name in added}
    if "token_embedding.weight" in state and "logit_scale" not in state:
        state["logit_scale"] = torch.tensor(LOGIT_SCALE)
        origin["logit_scale"] = "CLIP's upper bound, log 100: the source has none"
    check_fits(state, arch, str(source))
    names = target_names(state, size, layout)
    written = {names[name]: value for name, value in state.items()}
    tables: dict[str, Tensor] = {}
    if rope_tables:
        if layout != "official" or size.kind != "EVA-CLIP":
            raise ValueError("RoPE tables are only part of EVA-CLIP's official layout")
        tables = official_rope_tables(arch)
    # the released files of half precision keep the tables in float32
    state = {k: _cast(v, half) for k, v in written.items()} | tables
    write(target, state, checkpoint, overwrite)
    report = _report(checkpoint.report, names, origin)
    report.assumed = note
    report.added |= dict.fromkeys(tables, "RoPE table of the native size")
    return report


def _read(source: Path, arch: Arch | None) -> tuple[ClipCheckpoint, TowerSize, Arch, str]:
    """Weights, size of the image tower, arch, and what is assumed of it."""
    raw, metadata = read_file(source)
    if not isinstance(raw, Mapping):
        raise ValueError(f"{str(source)!r} holds a {type(raw).__name__}, expected a state dict")
    found = read_layout(raw, str(source))
    size = tower_size(found.state)
    if size is None:
        raise ValueError(f"{str(source)!r} holds no image tower of a ViT")
    marked = find_quick_gelu({**raw, **found.entries}, metadata, str(source))
    if arch is not None:
        checkpoint = read_clip_checkpoint(arch, source)
        return replace(checkpoint, quick_gelu=has_quick_gelu(arch)), size, arch, ""
    arch = size.arch
    if arch is None:
        raise ValueError(f"{str(source)!r} holds {size}; name its arch with --arch")
    plain, note = arch.removesuffix("-quickgelu"), ""
    if arch != plain and marked is None:
        note = (
            f"assumed: QuickGELU, without marking the target so; --arch {arch} (OpenAI, MetaCLIP) "
            f"or --arch {plain} (LAION) marks it"
        )
    arch = plain if marked is False else arch
    return read_clip_checkpoint(arch, source), size, arch, note


def _agreed(stored: AnyReadout | None, given: AnyReadout, source: Path) -> AnyReadout:
    """The readout to mark the target with."""
    if stored is not None and not same_readout(stored, given):
        raise ValueError(
            f"{str(source)!r} is marked as trained for the readout {describe_readout(stored)}, "
            f"which contradicts --readout {describe_readout(given)}; leave out --readout to keep "
            "the mark"
        )
    return given


def _text_of(
    path: Path, checkpoint: ClipCheckpoint, size: TowerSize, arch: Arch
) -> dict[str, Tensor]:
    """Text tower and temperature of another file."""
    if "token_embedding.weight" in checkpoint.state_dict:
        raise ValueError(f"{checkpoint.source!r} has its own text tower; leave out --text-from")
    state = read_clip_checkpoint(arch, path).state_dict
    other = tower_size(state)
    if other is not None and other != size:
        raise ValueError(
            f"{str(path)!r} is of {other}, but {checkpoint.source!r} of {size}; give the text "
            "tower of the same CLIP"
        )
    if "token_embedding.weight" not in state:
        raise ValueError(f"{str(path)!r} holds no text tower")
    own = checkpoint.state_dict
    return {k: v for k, v in state.items() if not k.startswith("visual.") and k not in own}


def check_fits(state: Mapping[str, Tensor], arch: Arch, source: str) -> None:
    """Compare names and shapes with the towers of ``arch``; a missing text tower is no error.

    Raises:
        ValueError: naming the first entries that are missing, left over or of another shape.
    """
    with torch.device("meta"):
        tower = build_image_tower(arch)
        expected = dict(tower.state_dict())
        if "token_embedding.weight" in state:
            expected |= build_text_transformer(arch).state_dict()
    check_size(state, tower, arch, source)
    given = {k: v for k, v in state.items() if k not in ("logit_scale", "logit_bias")}
    problems = [f"missing {k}" for k in sorted(expected.keys() - given.keys())]
    problems += [f"unexpected {k}" for k in sorted(given.keys() - expected.keys())]
    problems += [
        f"{k} is {tuple(given[k].shape)}, expected {tuple(value.shape)}"
        for k, value in expected.items()
        if k in given and given[k].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(
            f"{source!r} does not fit {arch if isinstance(arch, str) else 'the arch'!r}: "
            f"{'; '.join(problems[:3])}{more}; choose the arch that it was trained with"
        )


def target_names(state: Mapping[str, Tensor], size: TowerSize, layout: str) -> dict[str, str]:
    """Name in the package (text tower bare) -> name in a file of ``layout``."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r}; expected one of {', '.join(LAYOUTS)}")
    if size.kind == "OpenAI-style":
        return {name: name for name in state}
    stays = ("visual.", "logit_")
    names = {name: name if name.startswith(stays) else "text." + name for name in state}
    if layout == "open_clip":
        return names
    official = open_clip_to_official({new: state[old] for old, new in names.items()})[1].names
    return {old: official[new] for old, new in names.items()}


def official_rope_tables(arch: Arch) -> dict[str, Tensor]:
    """Official names and tables ``(patches, head width)`` of an EVA tower at its native size."""
    with torch.device("meta"):
        tower: Any = build_image_tower(arch)
    rope = tower.visual.trunk.rope
    grid = (tower.image_size[0] // tower.patch_size[0], tower.image_size[1] // tower.patch_size[1])
    sin, cos = rotary_table(grid, rope.dim, rope.ref_feat_shape, rope.temperature).chunk(2, dim=1)
    places = ["visual.rope.", *(f"visual.blocks.{i}.attn.rope." for i in range(tower.depth))]
    return {f"{p}freqs_{name}": t for p in places for name, t in (("cos", cos), ("sin", sin))}


def write(
    target: Path, state: dict[str, Tensor], checkpoint: ClipCheckpoint, overwrite: bool
) -> None:
    """Write the weights and what is known of them, so that a reader sees all of it or nothing."""
    quick, readout = checkpoint.quick_gelu, checkpoint.readout
    if target.suffix == ".safetensors":
        marks = {} if quick is None else {activation_mark.MARK: str(quick).lower()}
        marks |= {} if readout is None else {readout_mark.MARK: readout_json(readout)}
        check_writable(state.items(), target)
        write_bytes(target, save(state, metadata=marks), overwrite)
    else:
        content: dict[str, Any] = {"state_dict": state}
        content |= {} if quick is None else {activation_mark.MARK: quick}
        content |= {} if readout is None else {readout_mark.MARK: asdict(readout)}
        write_checkpoint(target, content, overwrite)


def _cast(value: Tensor, half: bool) -> Tensor:
    value = value.detach().to(torch.float16) if half and value.is_floating_point() else value
    return value.clone(memory_format=torch.contiguous_format)


def _report(read: LayoutReport, names: dict[str, str], origin: dict[str, str]) -> LayoutReport:
    """From the names of the source to those of the target."""
    report = LayoutReport(dropped=dict(read.dropped))
    for key, name in read.names.items():
        report.note(key, names[name])
    report.added = {names[name]: where for name, where in origin.items()}
    return report


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, help=".safetensors, or .pt")
    parser.add_argument("--to", choices=LAYOUTS, default="open_clip", help="default: open_clip")
    parser.add_argument("--arch", help="such as EVA02-B-16; default: by the shapes")
    parser.add_argument("--readout", help="mark the weights as trained for it, such as csa")
    parser.add_argument("--scale", choices=("sqrt", "none"), help="of --readout; default: its own")
    parser.add_argument("--text-from", type=Path, help="text tower for a run that has none")
    parser.add_argument("--half", action="store_true", help="write float16, as official files are")
    parser.add_argument("--rope-tables", action="store_true", help="write RoPE's constants too")
    parser.add_argument("--overwrite", action="store_true", help="replace the target")
    parser.add_argument("--report", action="store_true", help="say of every key what became of it")
    args = parser.parse_args(argv)
    if args.scale and not args.readout:
        parser.error("--scale is a part of --readout: give both")
    return args


def readout_of(name: str | None, scale: str | None) -> AnyReadout | None:
    """The readout that the command line names.

    Raises:
        ValueError: an unknown name, or a scale for a readout that has none, such as CLIP-Surgery.
    """
    if name is None:
        return None
    readout = get_readout(name)
    if scale is None:
        return readout
    if not isinstance(readout, Readout):
        raise ValueError(f"the readout {name!r} has no --scale")
    return get_readout({**asdict(readout), "scale": scale})


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    args = parse_args(argv)
    try:
        report = convert(
            args.source,
            args.target,
            args.to,
            arch=args.arch,
            readout=readout_of(args.readout, args.scale),
            text_from=args.text_from,
            half=args.half,
            rope_tables=args.rope_tables,
            overwrite=args.overwrite,
        )
    except (OSError, ValueError) as error:
        raise SystemExit(line_of(error)) from None
    print(report if args.report else f"{report.summary()} (--report names each)")
    if report.assumed:
        print(report.assumed)
    if not any("token_embedding" in name for name in (*report.names.values(), *report.added)):
        print("the target holds the image tower alone: give --text-from to add the text tower")


if __name__ == "__main__":
    run(lambda _: main(), None)
