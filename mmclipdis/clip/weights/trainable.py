"""Which parameters of a CLIP tower are trained: a rule given as data.

CAT-Seg trains only the q and v *matrices* of every block. CLIP stores q, k and v in one fused
tensor, and masking a gradient is not enough (weight decay would still move k), so the fused tensor
is split into three parameters; ``nn.MultiheadAttention`` supports that layout natively, and blocks
of timm get a module in place of their fused one. (EVA stores them apart anyway.)
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmclipdis.clip.towers.blocks import blocks_in, view_of
from mmclipdis.clip.towers.readout import AnyReadout, Readout
from mmclipdis.clip.towers.self_calibrated import SelfCalibrated

TRAINABLE_PARTS = ("q", "k", "v", "attention", "prefix", "all", "blocks")
#: Endings of the tokens that stand before the patches: open_clip's CLS, timm's CLS and registers.
_PREFIX = ("class_embedding", "cls_token", "reg_token")


class SplitQKV(nn.Module):
    """A fused projection to q, k and v in three parts, in the place of timm's ``attn.qkv``.

    The outputs stay the same to the bit: :attr:`weight` and :attr:`bias` are the fused ones, for
    whoever reads them instead of calling the module.

    Args:
        fused: Linear of width ``D`` to ``3 D'``, q first.
    """

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        biases = (None,) * 3 if fused.bias is None else fused.bias.detach().chunk(3)
        for name, weight, bias in zip("qkv", fused.weight.detach().chunk(3), biases, strict=True):
            rows, columns = weight.shape
            part = nn.Linear(columns, rows, bias=bias is not None, device="meta")
            part.weight = nn.Parameter(weight.clone())
            if bias is not None:
                part.bias = nn.Parameter(bias.clone())
            self.add_module(f"{name}_proj", part)

    @property
    def weight(self) -> Tensor:
        """``(3 D', D)``."""
        return torch.cat([part.weight for part in self.children()])  # type: ignore[misc]

    @property
    def bias(self) -> Tensor | None:
        """``(3 D',)``, if there is one."""
        found: list[Any] = [part.bias for part in self.children()]
        return None if found[0] is None else torch.cat(found)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to ``(..., 3 D')``."""
        return F.linear(x, self.weight, self.bias)


def split_qkv(module: nn.Module) -> nn.Module:
    """Split the fused projections of every attention inside, in place; the outputs stay the same.

    The ``in_proj_weight`` of an ``nn.MultiheadAttention`` becomes ``q_proj_weight``,
    ``k_proj_weight`` and ``v_proj_weight`` (the names of the official CAT-Seg checkpoints), its
    biases stay fused. The ``attn.qkv`` of a block of timm becomes a :class:`SplitQKV`.
    """
    for attention in module.modules():
        if isinstance(attention, nn.MultiheadAttention) and attention.in_proj_weight is not None:
            fused = attention.in_proj_weight.detach()
            for name, weight in zip("qkv", fused.chunk(3), strict=True):
                attention.register_parameter(f"{name}_proj_weight", nn.Parameter(weight.clone()))
            attention.register_parameter("in_proj_weight", None)
            attention._qkv_same_embed_dim = False
    for block in blocks_in(module):
        attn: Any = getattr(block, "attn", None)
        if isinstance(getattr(attn, "qkv", None), nn.Linear):
            attn.qkv = SplitQKV(attn.qkv)
    return module


#: Endings of the fused entries, and of each of its three parts (``{}`` is ``q``, ``k`` or ``v``).
_LAYOUTS = (
    (".in_proj_weight", ".{}_proj_weight"),
    (".qkv.weight", ".qkv.{}_proj.weight"),
    (".qkv.bias", ".qkv.{}_proj.bias"),
)


def fused_name(name: str) -> str:
    """The fused entry that ``name`` is a part of; any other name as it is."""
    for fused, part in _LAYOUTS:
        for letter in "qkv":
            if name.endswith(ending := part.format(letter)):
                return name.removesuffix(ending) + fused
    return name


def fuse_qkv(
    state_dict: Mapping[str, Tensor], wanted: Container[str] | None = None
) -> dict[str, Tensor]:
    """Put split q/k/v weights together: those whose fused name is ``wanted``, by default all.

    Raises:
        ValueError: one or two of the three are missing.
    """
    out = dict(state_dict)
    stems = {  # once for each attention, whichever of its parts comes first
        (key.removesuffix(part.format(name)), fused, part): None
        for key in state_dict
        for fused, part in _LAYOUTS
        for name in "qkv"
        if key.endswith(part.format(name))
    }
    for stem, fused, part in stems:
        if wanted is None or stem + fused in wanted:
            names = [stem + part.format(name) for name in "qkv"]
            if missing := [name for name in names if name not in out]:
                raise ValueError(
                    f"the weights lack {', '.join(missing)}, and q, k and v of an attention belong "
                    "together: the file is not whole; take it from its source again"
                )
            out[stem + fused] = torch.cat([out.pop(name) for name in names])
    return out


def match_qkv_layout(state_dict: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Rewrite fused or split q/k/v weights of ``state_dict`` into the layout ``module`` has."""
    names = {name for name, _ in module.named_parameters()}
    out = fuse_qkv(state_dict, names)
    for key in state_dict:
        for fused, part in _LAYOUTS:
            parts = [key.removesuffix(fused) + part.format(name) for name in "qkv"]
            if key.endswith(fused) and parts[0] in names:
                out.update(zip(parts, out.pop(key).chunk(3), strict=True))
    return out


def accept_any_qkv_layout(module: nn.Module) -> None:
    """Let ``module`` load checkpoints whose q/k/v weights are fused or split, whichever it has.

    A tower that was trained by ``q`` and ``v`` saves them split; frozen ones hold them fused. Non-
    strict loading, mmengine's default, would leave the weights random with no more than a warning.
    """

    register: Callable[[Callable[..., None]], object] = module.register_load_state_dict_pre_hook
    register(_rewrite_qkv)


def _rewrite_qkv(own: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    part = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
    rewritten = match_qkv_layout(part, own)
    for key in part.keys() - rewritten.keys():
        del state_dict[prefix + key]
    for key in rewritten.keys() - part.keys():
        state_dict[prefix + key] = rewritten[key]


def set_trainable(module: nn.Module, parts: Sequence[str | int]) -> list[str]:
    """Freeze ``module`` except for ``parts``; return the names of the trainable parameters.

    Args:
        module: An image or text tower.
        parts: ``()`` freezes all, ``('all',)`` trains all, a subset of ``('q', 'k', 'v')``
            trains these matrices (not the biases) of every block (CAT-Seg), ``('attention',)`` all
            that its attention holds, biases and output projection included; ``('prefix',)`` trains
            the tokens before the patches, CLS and registers; these may be combined.
            ``('blocks',)`` trains all that the blocks hold and nothing outside them, ``('blocks',
            n)`` the last ``n`` blocks (DeCLIP; 0 trains nothing).

    Raises:
        ValueError: for an unknown part, more blocks than there are, or a part that the tower lacks.
    """
    blocks = _trained_blocks(parts, blocks_in(module))
    matrices = [part for part in parts if part in ("q", "k", "v")]
    if matrices:
        split_qkv(module)
    endings = sum(map(_matrices, matrices), _PREFIX if "prefix" in parts else ())
    _check_there_is_one(module, parts)
    accept_any_qkv_layout(module)
    whole: list[Any] = list(blocks)
    if "attention" in parts:
        whole += [block.attn for block in blocks_in(module)]
    inside = {id(parameter) for part in whole for parameter in part.parameters()}
    names = []
    for name, parameter in module.named_parameters():
        trained = "all" in parts or id(parameter) in inside or name.endswith(endings)
        parameter.requires_grad = trained
        if trained:
            names.append(name)
    return names


def _matrices(part: str | int) -> tuple[str, ...]:
    """Endings of a matrix: open_clip's and timm's of :func:`split_qkv`; EVA's are as timm's."""
    return f"{part}_proj_weight", f"{part}_proj.weight"


def _check_there_is_one(module: nn.Module, parts: Sequence[str | int]) -> None:
    """Refuse parts that are nowhere in the tower: they would train nothing, without a word.

    Raises:
        ValueError: naming what it has.
    """
    names, count = [name for name, _ in module.named_parameters()], len(blocks_in(module))
    has = {part: any(name.endswith(_matrices(part)) for name in names) for part in "qkv"}
    has |= {"attention": bool(count), "prefix": any(name.endswith(_PREFIX) for name in names)}
    asked = [part for part in parts if not has.get(str(part), True)]
    if asked or ("blocks" in parts and not count):
        owned = [part for part in has if has[part]]
        there = "('all',)" + (", ('blocks',)" if count else "")
        there += f" and some of {tuple(owned)}" if owned else ""
        raise ValueError(
            f"trainable={tuple(parts)} matches nothing in this tower, which has {count} "
            f"transformer blocks and {len(names)} parameters such as {names[0]!r}: choose (), "
            f"{there}"
        )


def _trained_blocks(parts: Sequence[str | int], blocks: Sequence[nn.Module]) -> list[nn.Module]:
    """The blocks that ``parts`` trains as a whole.

    Raises:
        ValueError: as :func:`set_trainable`.
    """
    alone = len(parts) == 1 or not {"all", "blocks"} & set(parts)
    if alone and all(part in TRAINABLE_PARTS for part in parts):
        return list(blocks) if "blocks" in parts else []
    count = parts[1] if len(parts) == 2 and parts[0] == "blocks" else None
    if not isinstance(count, int) or isinstance(count, bool):
        raise ValueError(
            f"trainable={tuple(parts)}: choose (), ('all',) or some of ('q', 'k', 'v', "
            "'attention', 'prefix'), ('blocks',) or ('blocks', n) for the last n blocks"
        )
    if not 0 <= count <= len(blocks):
        raise ValueError(
            f"trainable={tuple(parts)}: the tower has {len(blocks)} blocks, choose 0 to that many"
        )
    return list(blocks[len(blocks) - count :])


def freeze_unread(block: nn.Module, readout: AnyReadout, depth: int | None = None) -> list[str]:
    """Freeze the weights of the last ``block`` that ``readout`` never reads.

    They get no gradient, which stops DDP: the split projections of parts that no term uses (EVA's
    with their biases), and the norm, MLP and LayerScale of the feed-forward branch under a readout
    without it. (Rows of a *fused* projection or bias cannot be frozen apart; unread ones get a zero
    gradient.) Only for a block that does not also run as an ordinary one.

    Args:
        block: The last block.
        readout: How it is read.
        depth: Blocks of the tower: a readout of several blocks may count the last one from 0.

    Returns:
        Names of what was trainable before, those of the attention without ``attn.``, such as
        ``['q_proj_weight']`` for a value-only readout.
    """
    parts, ffn = _read_of_last(readout, {-1} if depth is None else {-1, depth - 1})
    view = view_of(block)
    prefixes = (view.projection_prefix, "attn.qkv.{}_proj.")  # the latter where it was split
    unread = tuple(p.format(part) for part in "qkv" if part not in parts for p in prefixes)
    if not ffn:
        unread += view.ffn_prefixes
    frozen = []
    for name, parameter in block.named_parameters():
        no_attention = not parts and not name.startswith(view.ffn_prefixes)
        if parameter.requires_grad and (no_attention or name.startswith(unread)):
            frozen.append(name.removeprefix("attn."))
            parameter.requires_grad = False
    return frozen


def _read_of_last(readout: AnyReadout, last: set[int]) -> tuple[str, bool]:
    """Which of q, k, v of the last block a readout reads, and whether its feed-forward branch."""
    if isinstance(readout, Readout):
        if readout.branches is not None and readout.branches.semantic:
            return "qkv", True  # the copies of CLS run it as an ordinary block
        maps = "qk" if last & set(readout.layers) else ""
        return "".join(readout.parts) + maps, readout.ffn
    if isinstance(readout, SelfCalibrated):
        return ("qkv", True) if last & set(readout.blocks_read) else ("kv", False)
    if readout.blocks == 0:  # no surgery: the ordinary block
        return "qkv", True
    return "".join(Readout(readout.attention).parts), False
