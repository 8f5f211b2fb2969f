"""Which parameters of a CLIP tower are trained: a rule given as data.

CAT-Seg trains only the q and v *matrices* of every block. CLIP stores q, k and v in one fused
tensor, and masking a gradient is not enough (weight decay would still move k), so the fused tensor
is split into three parameters; ``nn.MultiheadAttention`` supports that layout natively. (EVA stores
them apart anyway.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmclipdis.clip.towers.blocks import blocks_in, view_of
from mmclipdis.clip.towers.readout import AnyReadout, Readout
from mmclipdis.clip.towers.self_calibrated import SelfCalibrated

TRAINABLE_PARTS = ("q", "k", "v", "all", "blocks")


def split_qkv(module: nn.Module) -> nn.Module:
    """Split the fused ``in_proj_weight`` of every ``nn.MultiheadAttention`` inside, in place.

    The outputs stay the same; the parameters become ``q_proj_weight``, ``k_proj_weight`` and
    ``v_proj_weight`` (the names of the official CAT-Seg checkpoints); biases stay fused.
    """
    for attention in module.modules():
        if isinstance(attention, nn.MultiheadAttention) and attention.in_proj_weight is not None:
            fused = attention.in_proj_weight.detach()
            for name, weight in zip("qkv", fused.chunk(3), strict=True):
                attention.register_parameter(f"{name}_proj_weight", nn.Parameter(weight.clone()))
            attention.register_parameter("in_proj_weight", None)
            attention._qkv_same_embed_dim = False
    return module


def match_qkv_layout(state_dict: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Rewrite fused or split q/k/v weights of ``state_dict`` into the layout ``module`` has."""
    names = {name for name, _ in module.named_parameters()}
    out: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        stem, _, leaf = key.rpartition(".")
        if leaf == "in_proj_weight" and f"{stem}.q_proj_weight" in names:
            for name, weight in zip("qkv", value.chunk(3), strict=True):
                out[f"{stem}.{name}_proj_weight"] = weight
        elif leaf in ("k_proj_weight", "v_proj_weight") and f"{stem}.in_proj_weight" in names:
            continue  # consumed with q
        elif leaf == "q_proj_weight" and f"{stem}.in_proj_weight" in names:
            parts = [state_dict[f"{stem}.{name}_proj_weight"] for name in "qkv"]
            out[f"{stem}.in_proj_weight"] = torch.cat(parts)
        else:
            out[key] = value
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
            trains these matrices (not the biases) of every block; ``('blocks',)`` trains all that
            the blocks hold and nothing outside them, ``('blocks', n)`` the last ``n`` blocks
            (DeCLIP; 0 trains nothing).

    Raises:
        ValueError: for an unknown part or more blocks than there are.
    """
    blocks = _trained_blocks(parts, blocks_in(module))
    matrices = [part for part in parts if part in ("q", "k", "v")]
    if matrices:
        split_qkv(module)
    # open_clip's q_proj_weight, split above, or EVA's q_proj.weight
    endings = tuple(f"{part}_proj{dot}weight" for part in matrices for dot in "_.")
    accept_any_qkv_layout(module)
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    names = []
    for name, parameter in module.named_parameters():
        trained = "all" in parts or id(parameter) in inside or name.endswith(endings)
        parameter.requires_grad = trained
        if trained:
            names.append(name)
    return names


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
            f"trainable={tuple(parts)}: choose (), ('all',) or some of ('q', 'k', 'v'), "
            "('blocks',) or ('blocks', n) for the last n blocks"
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
    unread = tuple(view.projection_prefix.format(part) for part in "qkv" if part not in parts)
    if not ffn:
        unread += view.ffn_prefixes
    frozen = []
    for name, parameter in block.named_parameters():
        if parameter.requires_grad and unread and name.startswith(unread):
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
