"""SC-CLIP (Bai et al., 2024): the last block, calibrated by what earlier blocks find alike.

With ``X`` the input of the last block and ``c`` its CLS token (training_free_2 spec 7.2)::

    X' = X with outlying patches filled in from their neighbours
    S8, S3 = cosines of the patches after the blocks ``deep`` (outliers filled in too) and ``mid``
    T(Y) = W_out (A v + softmax(s k k^T) v) / 2 + b_out    (k, v of the last block's LN1(Y))
    Z = agg(S3, T(agg(S8, X')) + 0.3 c + T(M) + 0.3 m)

where ``A`` is the affinity of ``S8``, ``M`` and ``m`` patches and CLS of the sum of several
blocks, and ``agg(S, Y)`` the mean of ``Y`` weighed by the cosines that are high enough. CLS is no
key. ``Z`` takes the place of the last block's output.

The published code finds the row and the column of an outlier by the number of *rows*, which holds
for square windows alone; here grids of any shape are filled in rightly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.clip.towers.affinity import Guide, blocks_of_rows, mix, unit_tokens
from mmclipdis.clip.towers.attention import mixed_heads
from mmclipdis.clip.towers.blocks import BlockView
from mmclipdis.clip.towers.features import tokens_to_map
from mmclipdis.clip.towers.readout_fields import Affinity
from mmclipdis.clip.towers.self_calibrated import SelfCalibrated

#: How the affinity of the deep block is made.
AFFINITY = Affinity(shift=1.0, scale=3.0, keep="positive")


def calibrated(
    view: BlockView,
    x: Tensor,
    deep: Tensor,
    mid: Tensor,
    summed: Tensor,
    grid: tuple[int, int],
    readout: SelfCalibrated,
    prefix: int = 1,
) -> Tensor:
    """Patch tokens ``Z`` ``(B, N, D)`` in place of the last block's output.

    Args:
        view: The last block.
        x: Its input ``(B, p + N, D)``, CLS and the other prefix tokens first.
        deep, mid: Outputs ``(B, p + N, D)`` of the two blocks that tell what is alike.
        summed: Sum ``(B, p + N, D)`` of the outputs of several blocks.
        grid: Patches (h, w).
        readout: The constants.
        prefix: Tokens ``p`` before the patches, CLS first.

    Raises:
        ValueError: no more patches than the neighbours that outliers are told by.
    """
    outlying = outliers(x[:, prefix:], readout.k, readout.outliers)
    alike = fill(deep[:, prefix:], outlying, grid)
    unit_deep, unit_mid = (unit_tokens(tokens_to_map(y, grid)) for y in (alike, mid[:, prefix:]))
    own = aggregate(unit_deep, fill(x[:, prefix:], outlying, grid), readout.threshold)
    guide = Guide(tokens_to_map(alike, grid))
    branches = torch.cat([own, summed[:, prefix:]])  # one batch: both need the same matrix
    out = in_groups(twice_attended(view, branches, guide), 2)
    cls = readout.cls * (x[:, :1] + summed[:, :1])
    # agg is linear: that of both branches together is the sum of theirs
    return aggregate(unit_mid, out[0] + out[1] + cls, readout.threshold)


def outliers(tokens: Tensor, k: int, share: float) -> Tensor:
    """Which patch tokens ``(B, N, D)`` are outliers, ``(B, N)``: those of high :func:`lof`.

    Raises:
        ValueError: as :func:`lof`.
    """
    factors = lof(tokens, k)
    # by hand: torch.quantile looks at the values of q, which waits for the GPU and stops an export
    ranked = factors.sort(dim=1).values
    last = torch.arange(ranked.shape[1], device=ranked.device)[-1:]  # the size may be open
    place = (1 - share) * last.to(ranked.dtype)
    low = place.long()
    around = [ranked.index_select(1, at) for at in (low, torch.minimum(low + 1, last))]
    return factors > torch.lerp(around[0], around[1], place - low)


def lof(tokens: Tensor, k: int) -> Tensor:
    """Local outlier factor ``(B, N)`` of tokens ``(B, N, D)`` by squared distances.

    The mean over its ``k`` nearest of how much farther a token's ``k``-th neighbour is than theirs.

    Raises:
        ValueError: there are no more than ``k`` tokens.
    """
    count = tokens.shape[1]
    if count <= k:
        raise ValueError(
            f"SC-CLIP compares each patch with its {k} nearest, and a window has {count} patches "
            "only: use a larger crop or image, or a readout with a smaller k"
        )
    with torch.autocast(tokens.device.type, enabled=False):
        exact = tokens.detach().to(torch.promote_types(tokens.dtype, torch.float32))
        exact = exact - exact.mean(dim=1, keepdim=True)  # less is lost in the difference below
        lengths = exact.square().sum(dim=-1)
        reach, nearest, everyone = [], [], torch.arange(count, device=exact.device)
        for rows in blocks_of_rows(exact):
            distances = lengths[:, rows, None] + lengths[:, None] - 2 * exact[:, rows] @ exact.mT
            itself = everyone[rows, None] == everyone  # no diagonal(), a view ONNX cannot write to
            distances.masked_fill_(itself, torch.inf)
            found = distances.topk(k, dim=-1, largest=False)
            reach.append(found.values[..., -1])
            nearest.append(found.indices)
        # tokens that are all alike are no outliers of each other
        farthest = torch.cat(reach, dim=1).clamp(min=1e-12)
        index = torch.cat(nearest, dim=1)  # (B, N, k)
        theirs = farthest.gather(1, index.flatten(1)).view_as(index)
        return (farthest[..., None] / theirs).mean(dim=-1)


def fill(tokens: Tensor, outlying: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patch tokens ``(B, N, D)`` with the mean of its sound neighbours in place of each outlier.

    Neighbours are the up to 8 patches around one that are no outliers ``(B, N)`` themselves;
    without any it stays as it is.
    """
    sound = (~outlying)[..., None].to(tokens.dtype)
    around = F.avg_pool2d(
        tokens_to_map(torch.cat([tokens * sound, sound], dim=-1), grid), 3, stride=1, padding=1
    )
    means = around[:, :-1] / around[:, -1:]
    replaced = outlying & (around[:, -1] > 0).flatten(1)
    return torch.where(replaced[..., None], means.flatten(2).mT, tokens)


def aggregate(unit: Tensor, values: Tensor, threshold: float) -> Tensor:
    """Values ``(B, N, D)`` weighed by the cosines of unit tokens ``(B, N, C)``.

    Cosines below the ``threshold`` count nothing; a row is divided by its sum + 1e-6.
    """
    with torch.autocast(values.device.type, enabled=False):
        exact = values.to(unit.dtype)
        parts = []
        for rows in blocks_of_rows(unit):
            cosines = unit[:, rows] @ unit.mT
            weights = torch.where(cosines < threshold, 0, cosines)
            parts.append(weights @ exact / (weights.sum(dim=-1, keepdim=True) + 1e-6))
        return torch.cat(parts, dim=1).to(values.dtype)


def twice_attended(view: BlockView, tokens: Tensor, guide: Guide) -> Tensor:
    """``T`` of patches ``(n B, N, D)``: half by the affinity of a guide ``(B, ...)``, half kk."""
    parts = view.project(view.norm(tokens), "kv")
    by_keys = mixed_heads(view, parts, ("kk",), "sqrt", first_query=0)
    groups = tokens.shape[0] // guide.tokens.shape[0]  # len() would fix the batch of an export
    values = torch.cat(in_groups(parts["v"], groups), dim=-1)  # side by side: one matrix for all
    mixed = mix(AFFINITY, guide, tokens_to_map(values, guide.grid))
    by_affinity = torch.cat(mixed.chunk(groups, dim=-1))
    return view.merge(0.5 * (by_affinity + by_keys))


def in_groups(tokens: Tensor, groups: int) -> tuple[Tensor, ...]:
    """Tokens ``(n B, N, D)`` as ``n`` of ``(B, N, D)``; ``chunk`` would fix ``B`` in an export."""
    return tokens.reshape(groups, -1, *tokens.shape[1:]).unbind()
