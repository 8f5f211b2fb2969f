"""Names of the weights in released OV-DQUO checkpoints, and ours.

The released trainer is built on IDEA-Research's DINO, whose names are public. What OV-DQUO adds to
them (``text_proj``, ``region_prompt``, where its backbone keeps CLIP and the up-sampler) is
**assumed** here: nobody tried it on a released file. Names can be mended, see :class:`Renames`.

DINO's layers count their norms in another order than mmdet's: of a decoder layer ``norm2`` follows
self-attention, ``norm1`` cross-attention, ``norm3`` the FFN.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmclipdis.clip.weights.layouts import read_layout
from mmclipdis.clip.weights.renaming import LayoutReport
from mmclipdis.clip.weights.tower_size import tower_size
from mmclipdis.models.detection.released import ENCODER

Namer = str | Callable[[re.Match[str]], str]

_DEFORMABLE = r"(sampling_offsets|attention_weights|value_proj|output_proj)"
_ENCODER_LAYER = r"transformer\.encoder\.layers\.(\d+)\."
_DECODER_LAYER = r"transformer\.decoder\.layers\.(\d+)\."


def _mlp(start: str) -> Callable[[re.Match[str]], str]:
    """DINO counts the linear layers of an MLP, a ``Sequential`` of ours the ReLUs between, too."""
    return lambda found: f"{found.expand(start)}.{2 * int(found[found.lastindex or 1])}"


#: Pattern of a module in the file -> the module of ours.
MODULES: tuple[tuple[str, Namer], ...] = (
    (_ENCODER_LAYER + r"self_attn\." + _DEFORMABLE, r"encoder.layers.\1.self_attn.\2"),
    (_ENCODER_LAYER + "norm1", r"encoder.layers.\1.norms.0"),
    (_ENCODER_LAYER + "linear1", r"encoder.layers.\1.ffn.layers.0.0"),
    (_ENCODER_LAYER + "linear2", r"encoder.layers.\1.ffn.layers.1"),
    (_ENCODER_LAYER + "norm2", r"encoder.layers.\1.norms.1"),
    (_DECODER_LAYER + r"self_attn(\.out_proj|)", r"decoder.layers.\1.self_attn.attn\2"),
    (_DECODER_LAYER + "norm2", r"decoder.layers.\1.norms.0"),
    (_DECODER_LAYER + r"cross_attn\." + _DEFORMABLE, r"decoder.layers.\1.cross_attn.\2"),
    (_DECODER_LAYER + "norm1", r"decoder.layers.\1.norms.1"),
    (_DECODER_LAYER + "linear1", r"decoder.layers.\1.ffn.layers.0.0"),
    (_DECODER_LAYER + "linear2", r"decoder.layers.\1.ffn.layers.1"),
    (_DECODER_LAYER + "norm3", r"decoder.layers.\1.norms.2"),
    (r"transformer\.decoder\.norm", "decoder.norm"),
    (r"transformer\.decoder\.ref_point_head\.layers\.(\d)", r"decoder.ref_point_head.layers.\1"),
    (r"transformer\.tgt_embed", "query_embedding"),
    (r"transformer\.enc_output", "memory_trans_fc"),
    (r"transformer\.enc_output_norm", "memory_trans_norm"),
    (r"transformer\.enc_out_class_embed", "bbox_head.cls_branches.1"),
    (r"transformer\.enc_out_bbox_embed\.layers\.(\d)", _mlp("bbox_head.reg_branches.{layers}")),
    (r"(?:transformer\.decoder\.)?class_embed\.\d+", "bbox_head.cls_branches.0"),
    (
        r"(?:transformer\.decoder\.)?bbox_embed\.(\d+)\.layers\.(\d)",
        _mlp(r"bbox_head.reg_branches.\1"),
    ),
    (r"(?:transformer\.)?label_enc", "dn_query_generator.label_embedding"),
    (r"(?:transformer\.)?text_proj\.layers\.(\d)", _mlp("text_proj")),
    (r"(?:transformer\.)?text_proj\.(0|2)", r"text_proj.\1"),
    (r"backbone\.(?:.*\.)?(?:interpolate\d\.0|upsample)", "backbone.upsample"),
)
_MODULES = tuple((re.compile(pattern), name) for pattern, name in MODULES)
_LEAF = re.compile(r"(.+)\.(weight|bias|in_proj_weight|in_proj_bias)")
_INPUT = re.compile(r"input_proj\.(\d+)\.([01])")
_PROMPT, _OUR_PROMPT = (
    re.compile(r"backbone\.(?:.*[._])?region_prompt\w*"),
    "backbone.region_prompt",
)
_LEVELS = "transformer.level_embed"

#: By these a released checkpoint is told from others.
_SIGNS = ("transformer.encoder.", "transformer.decoder.", "input_proj.", "class_embed.")
_TEXT = re.compile(
    r"(token_embedding|positional_embedding|transformer|ln_final|text_projection|logit_scale)\b"
)


@dataclass
class Renames:
    """What a user says of names that are not as assumed.

    Attributes:
        starts: Start of a key -> what stands there in the layout assumed, in this order.
        drop: Starts of keys that are left out.
        used: Of both, those that some key has begun with.
    """

    starts: Mapping[str, str] = field(default_factory=dict)
    drop: Sequence[str] = ()
    used: set[str] = field(default_factory=set)

    def assumed(self, key: str) -> str | None:
        """The key in the layout assumed; None if it is left out."""
        for start in self.drop:
            if key.startswith(start):
                self.used.add(start)
                return None
        for old, new in self.starts.items():
            if key.startswith(old):
                self.used.add(old)
                return new + key.removeprefix(old)
        return key

    def check_used(self, source: str) -> None:
        """Refuse those that no key begins with, which are mistyped.

        Raises:
            ValueError: there are such.
        """
        for start in (*self.starts, *self.drop):
            if start not in self.used:
                raise ValueError(f"{source!r} has no key that begins with {start!r}")


def from_released(
    released: Mapping[str, Tensor], source: str, renames: Renames | None = None
) -> tuple[dict[str, Tensor], LayoutReport]:
    """Rename the entries of a released state dict to those of an ``OVDQUO``.

    What is there twice (the heads, inside the decoder, too) or once a layer (the shared objectness)
    has to be equal.

    Args:
        released: Names and tensors of the file.
        source: The file, for messages.
        renames: What differs from the names assumed.

    Returns:
        Our names and the tensors, and what became of every key.

    Raises:
        ValueError: another kind of checkpoint, unknown keys, or two values of one weight.
    """
    renames = renames or Renames()
    assumed = {key: renames.assumed(key) for key in released}
    renames.check_used(source)
    state = {new: released[old] for old, new in assumed.items() if new is not None}
    if len(state) < sum(new is not None for new in assumed.values()):
        raise ValueError(
            f"{source!r}: after --rename two keys have one name; see what it makes equal"
        )
    check_kind(state, source)
    names, dropped = _named(state, source)
    out, report = _tower(state, {*names, *dropped}, source)
    report.dropped |= dropped
    for key, name in names.items():
        _put(out, name, state[key], key, source)
        report.note(key, name)
    return out, _in_names_of_file(report, assumed)


def check_kind(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse what is no OV-DQUO checkpoint, and say what it is.

    Raises:
        ValueError: it is not.
    """

    def has(*starts: str) -> bool:
        return any(key.startswith(starts) for key in state)

    if has(ENCODER) and has("bbox_head.cls_branches."):
        raise ValueError(f"{source!r} has our layout already; there is nothing to convert")
    if has("roi_head.", "rpn_head."):
        raise ValueError(
            f"{source!r} is a two-stage detector such as F-ViT, not OV-DQUO; a released F-ViT is "
            "converted by tools/model_converters/fvit.py"
        )
    if has("bbox_head.", "memory_trans_fc.", "query_embedding."):
        raise ValueError(
            f"{source!r} is a detector of mmdet (as its DINO), whose classifier is learned: no "
            "OV-DQUO can be made of it"
        )
    missing = [start for start in _SIGNS if not has(start)]
    if missing:
        size = None if len(missing) < len(_SIGNS) else _clip_of(state)
        what = f"holds {size}, CLIP alone, which needs no conversion: it" if size else "it"
        raise ValueError(
            f"{source!r} is no released OV-DQUO checkpoint; {what} has no {', '.join(missing)}*, "
            f"but {', '.join(list(state)[:3])}, ..."
        )
    logits = {len(state[key]) for key in state if re.fullmatch(r"class_embed\.\d+\.bias", key)}
    if logits - {1}:
        raise ValueError(
            f"{source!r} classifies {max(logits)} classes by itself, as DINO does; OV-DQUO has one "
            "logit, of objectness, and no OV-DQUO can be made of it"
        )


def _clip_of(state: Mapping[str, Tensor]) -> str | None:
    try:
        size = tower_size(read_layout(state, "").state)
    except ValueError:
        return None
    return str(size or "CLIP's text tower")


def _named(state: Mapping[str, Tensor], source: str) -> tuple[dict[str, str], dict[str, str]]:
    """Our names of what is outside of CLIP's image tower, and why other keys are dropped.

    Raises:
        ValueError: a key is neither known nor part of the backbone's CLIP.
    """
    numbers = (re.match(_DECODER_LAYER, key) for key in state)
    layers = max((int(number[1]) + 1 for number in numbers if number), default=0)
    tower, text = _image_root(state), _text_root(state)
    levels = _convolved(state)
    names: dict[str, str] = {}
    dropped: dict[str, str] = {}
    unknown: list[str] = []
    for key in state:
        name = _our_name(key, layers, levels)
        if name is not None:
            names[key] = name
        elif text is not None and key.startswith(text) and _TEXT.match(key.removeprefix(text)):
            dropped[key] = "text tower, which the config names, and no checkpoint of ours holds"
        elif tower is None or not key.startswith(tower):
            unknown.append(key)
    if unknown:
        more = f" and {len(unknown) - 4} more" if len(unknown) > 4 else ""
        raise ValueError(
            f"{source!r} has keys that are not known: {', '.join(unknown[:4])}{more}; say with "
            "--rename OLD=NEW what their start is called in DINO's layout (docs/ovdquo.md), or "
            "with --drop OLD that the detector does without"
        )
    return names, dropped


def _our_name(key: str, layers: int, levels: int) -> str | None:
    if key == _LEVELS:
        return "level_embed"
    if _PROMPT.fullmatch(key.removesuffix(".weight")):
        return _OUR_PROMPT + ".weight"
    found = _LEAF.fullmatch(key)
    if found is None:
        return None
    module, leaf = found.groups()
    if level := _INPUT.fullmatch(module):
        number, part = int(level[1]), ("conv", "gn")[int(level[2])]
        place = f"convs.{number}" if number < levels else f"extra_convs.{number - levels}"
        return f"neck.{place}.{part}.{leaf}"
    for pattern, name in _MODULES:
        if match := pattern.fullmatch(module):
            new = match.expand(name) if isinstance(name, str) else name(match)
            return f"{new.replace('{layers}', str(layers))}.{leaf}"
    return None


def _convolved(state: Mapping[str, Tensor]) -> int:
    """How many levels of the backbone there are: what is behind them has a 3 x 3 convolution."""
    weights = (state.get(f"input_proj.{i}.0.weight") for i in range(len(state)))
    sides: list[int] = []
    for weight in weights:
        if weight is None:
            break
        sides.append(int(weight.shape[-1]))
    return sum(side == 1 for side in sides)


def _image_root(state: Mapping[str, Tensor]) -> str | None:
    """What stands before the names of CLIP's image tower in the backbone."""
    for key in state:
        if not key.startswith("backbone."):
            continue
        for stem in ("patch_embed.proj.weight", "attnpool.positional_embedding", "class_embedding"):
            if key.endswith("." + stem):
                return key.removesuffix(stem)
    return None


def _text_root(state: Mapping[str, Tensor]) -> str | None:
    stem = "token_embedding.weight"
    return next((key.removesuffix(stem) for key in state if key.endswith("." + stem)), None)


def _tower(
    state: Mapping[str, Tensor], others: Set[str], source: str
) -> tuple[dict[str, Tensor], LayoutReport]:
    """CLIP's image tower under our names; the report is in the names assumed."""
    root = _image_root(state)
    report = LayoutReport()
    if root is None:
        return {}, report
    inside = {key for key in state if key.startswith(root) and key not in others}
    keys = {"visual." + key.removeprefix(root): key for key in inside}
    found = read_layout({new: state[key] for new, key in keys.items()}, source)
    for new, name in found.report.names.items():
        report.note(keys[new], f"{ENCODER}tower.{name}")
    report.dropped = {keys[new]: reason for new, reason in found.report.dropped.items()}
    return {f"{ENCODER}tower.{name}": value for name, value in found.state.items()}, report


def _put(out: dict[str, Tensor], name: str, value: Tensor, key: str, source: str) -> None:
    if name.startswith(_OUR_PROMPT) and value.ndim == 4 and len(value) == 1:
        value = value[0]
    if name in out and not torch.equal(out[name], value):
        shared = "all layers share one" if ".cls_branches.0." in name else "they are one weight"
        raise ValueError(
            f"{source!r}: {key} differs from another entry that becomes {name}, and in OV-DQUO "
            f"{shared}: this is another detector, or --rename makes equal what is not"
        )
    out[name] = value


def _in_names_of_file(report: LayoutReport, assumed: Mapping[str, str | None]) -> LayoutReport:
    """The report in the names of the file, in its order, with what the user left out."""
    found, names = LayoutReport(), report.names
    for key, name in assumed.items():
        if name is None:
            found.dropped[key] = "--drop"
        elif name in report.dropped:
            found.dropped[key] = report.dropped[name]
        else:
            found.note(key, names[name])
    return found
