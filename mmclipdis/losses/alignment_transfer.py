"""InfoCLIP's two losses: what a pixel-text relation keeps, and what two relations share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.losses.ranks import count_per_rank, gather_samples
from mmclipdis.losses.renyi import check_alpha, joint_entropy, mutual_information, renyi_entropy

GramAxis = Literal["batch", "pixel"]
Kind = Literal["mi", "mse", "kl"]


def compression_loss(
    images: Tensor,
    relation: Tensor,
    *,
    text: Tensor | None = None,
    alpha: float = 2.0,
    gram_axis: GramAxis = "batch",
    subsample: int | None = None,
    across_ranks: bool = True,
) -> Tensor:
    r"""L_c: information that the relation keeps of the features it was made from, in bits.

    .. math:: L_c = S_\alpha(R) - S_\alpha(V, L, R)
                  \overset{\alpha = 2}{=} \log_2 \frac{E[v^2 l^2 r^2]}{E[r^2]}

    This is :math:`I_\alpha(V, L; R)` less :math:`S_\alpha(V, L)`, which depends on no parameter.
    v, l, r are the entries of the Gram matrices, cosines of two samples each, and E is the mean
    over all n² pairs of samples. Between :math:`-\log_2 n` and 0 for ``alpha=2``.

    A sample is an image: its features, its text, its relation, each flattened to a vector of unit
    length. The samples of all ranks are gathered, and every rank returns the loss of the joint
    batch; see :func:`~mmclipdis.losses.ranks.gather_samples` for the gradient. With
    ``gram_axis="pixel"`` a sample is a pixel, and the loss is averaged over the images.

    Args:
        images: V, dense image features ``(B, P, C)`` of P pixels. Half types are computed in fp32.
        relation: R, pixel-text map ``(B, P, T)``.
        text: L, ``(T, C)``, or ``(B, T, C)`` if it differs between the images. What all images
            share makes no pair unlike: ``(T, C)`` and None give the same loss, and None is less
            work.
        alpha: Order of the entropy; 2 needs no eigenvalues.
        gram_axis: ``"batch"`` or ``"pixel"``. The paper does not say; the authors' InfoSAM uses the
            batch, the only axis on which images, text and relation have equal numbers of samples.
        subsample: With ``"pixel"``, at most this many pixels, drawn anew in every call, the same of
            all images.
        across_ranks: Whether the default process group, if there is one, shares the batch; False
            stays with this process, without communication.

    Returns:
        A scalar. In a distributed run with ``"pixel"``, this rank's share: its average over the
        ranks is the mean over all images.

    Raises:
        ValueError: shapes that do not fit, a single sample in all (its entropy is 0 whatever it
            is, and so is the gradient), or an option that does not exist or does not apply.

    Source: InfoCLIP's public summaries; estimator and omitted term as in InfoSAM (ICML 2025).
    """
    check_transfer_options(alpha, gram_axis, subsample)
    _check_maps("images", images, "relation", relation, 2)
    if text is not None and gram_axis == "pixel":
        raise ValueError("text has no pixels: leave it out of gram_axis='pixel'.")
    with torch.autocast(images.device.type, enabled=False):
        if gram_axis == "pixel":
            v, r = _pixel_grams([images, relation], subsample)
            return _mean_over_images(_compression([v], r, alpha), across_ranks)
        others = [_batch_gram(images, across_ranks)]
        if text is not None:
            others.append(_text_gram(text, images, relation, others[0], across_ranks))
        return _compression(others, _batch_gram(relation, across_ranks), alpha)


def distillation_loss(
    teacher: Tensor,
    student: Tensor,
    *,
    kind: Kind = "mi",
    alpha: float = 2.0,
    gram_axis: GramAxis = "batch",
    subsample: int | None = None,
    temperature: float = 1.0,
    across_ranks: bool = True,
) -> Tensor:
    r"""L_d: minus the information that two relations share, in bits; or a plain distance of them.

    .. math:: L_d = -I_\alpha(R^T; R^S)
                  \overset{\alpha = 2}{=} -\log_2 \frac{E[t^2 s^2]}{E[t^2]\, E[s^2]}

    t, s are the entries of the two Gram matrices, E is the mean over all pairs; samples, ranks and
    options as in :func:`compression_loss`. At least :math:`-\log_2 n`, which is reached when all
    samples are orthogonal in both relations; equal relations alone are not the minimum. Neither
    relation is detached: both train the module that makes them.

    For comparison, both in their mean over all pixels of all images:

    - ``"mse"``: :math:`(R^T - R^S)^2`, mean over the classes;
    - ``"kl"``: :math:`\tau^2\, KL(p^T \| p^S)` in nats, with :math:`p = \mathrm{softmax}(R / \tau)`
      over the classes.

    Args:
        teacher: :math:`R^T` ``(B, P, T)``. Half types are computed in fp32.
        student: :math:`R^S`, of the same shape.
        kind: ``"mi"``, ``"mse"`` or ``"kl"``.
        alpha, gram_axis, subsample: as in :func:`compression_loss`; of ``"mi"`` only.
        temperature: :math:`\tau` of ``"kl"``. Nothing is published about it.
        across_ranks: as in :func:`compression_loss`.

    Returns:
        A scalar. In a distributed run ``"mse"``, ``"kl"`` and ``"pixel"`` give this rank's share:
        its average over the ranks is the loss of the joint batch.

    Raises:
        ValueError: as :func:`compression_loss`.

    Source: as :func:`compression_loss`.
    """
    check_transfer_options(alpha, gram_axis, subsample, kind, temperature)
    _check_maps("teacher", teacher, "student", student, 3)
    with torch.autocast(student.device.type, enabled=False):
        if kind != "mi":
            t, s = (_at_least_fp32(x) for x in (teacher, student))
            distance = (t - s).square().mean(2) if kind == "mse" else _kl(t, s, temperature)
            return _mean_over_images(distance.mean(1), across_ranks)
        if gram_axis == "pixel":
            t, s = _pixel_grams([teacher, student], subsample)
            return _mean_over_images(-_information(t, s, alpha), across_ranks)
        t, s = (_batch_gram(x, across_ranks) for x in (teacher, student))
        return -_information(t, s, alpha)


def check_transfer_options(
    alpha: float = 2.0,
    gram_axis: str = "batch",
    subsample: int | None = None,
    kind: str = "mi",
    temperature: float = 1.0,
) -> None:
    """Check the options of both losses.

    Raises:
        ValueError: an option that does not exist, or does not apply with the others.
    """
    check_alpha(alpha)
    allowed = {"gram_axis": ("batch", "pixel"), "kind": ("mi", "mse", "kl")}
    for name, value in {"gram_axis": gram_axis, "kind": kind}.items():
        if value not in allowed[name]:
            raise ValueError(f"{name} must be one of {', '.join(allowed[name])}, got {value!r}.")
    if subsample is not None and (gram_axis != "pixel" or subsample < 2):
        raise ValueError(
            f"subsample draws 2 or more pixels of gram_axis='pixel', got subsample={subsample} and "
            f"gram_axis={gram_axis!r}."
        )
    if kind != "mi" and (alpha, gram_axis) != (2.0, "batch"):
        raise ValueError(f"kind={kind!r} has no Gram matrix: leave out alpha and gram_axis.")
    if kind != "kl" and temperature != 1:
        raise ValueError(f"temperature belongs to kind='kl', not {kind!r}: leave it out.")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}.")


def _compression(others: Sequence[Tensor], relation: Tensor, alpha: float) -> Tensor:
    """``S(R) - S(others, R)`` of Gram matrices ``(..., n, n)`` with a diagonal of ones."""
    if alpha == 2:
        weights = relation.square()
        product = weights
        for gram in others:
            product = product * gram.square()
        return (_pairs(product) / _pairs(weights)).log2()
    own = renyi_entropy(relation / relation.shape[-1], alpha)
    return own - joint_entropy(*others, relation, alpha=alpha)


def _information(first: Tensor, second: Tensor, alpha: float) -> Tensor:
    """``I(first; second)`` of Gram matrices ``(..., n, n)`` with a diagonal of ones."""
    if alpha == 2:
        first, second = first.square(), second.square()
        return (_pairs(first * second) / (_pairs(first) * _pairs(second))).log2()
    n = first.shape[-1]
    return mutual_information(first / n, second / n, alpha)


def _pairs(gram: Tensor) -> Tensor:
    return gram.mean((-2, -1))


def _kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Divergence of every pixel, ``(B, P)``."""
    t, s = ((x / temperature).log_softmax(2) for x in (teacher, student))
    return temperature**2 * (t.exp() * (t - s)).sum(2)


def _batch_gram(maps: Tensor, across_ranks: bool) -> Tensor:
    """Cosines ``(N, N)`` of the samples of all ranks, each flattened."""
    own = F.normalize(_at_least_fp32(maps).flatten(1), dim=1)
    samples = gather_samples(own, across_ranks)
    if len(samples) < 2:
        raise ValueError(
            "The batch has 1 image in all. Its entropy is 0 whatever the features are, and nothing "
            "would be learnt: use a batch of 2 or more, several GPUs, or gram_axis='pixel'."
        )
    return samples @ samples.T


def _text_gram(
    text: Tensor, images: Tensor, relation: Tensor, like: Tensor, across_ranks: bool
) -> Tensor:
    """Cosines of the texts of the images; of one that they share, the same for all pairs."""
    (batch, _, width), classes = images.shape, relation.shape[2]
    if text.shape not in ((classes, width), (batch, classes, width)):
        raise ValueError(
            f"Expected text (T, C) or (B, T, C) with B = {batch} images, T = {classes} classes and "
            f"C = {width}, got {tuple(text.shape)}."
        )
    if text.ndim == 3:
        return _batch_gram(text, across_ranks)
    unit = F.normalize(_at_least_fp32(text).flatten(), dim=0)
    return (unit @ unit).expand_as(like)


def _pixel_grams(maps: Sequence[Tensor], subsample: int | None) -> list[Tensor]:
    """Cosines ``(B, n, n)`` of the pixels of each image, for each of the maps ``(B, P, ...)``."""
    pixels = maps[0].shape[1]
    if pixels < 2:
        raise ValueError("gram_axis='pixel' needs 2 pixels or more, got maps of 1.")
    if subsample is not None and subsample < pixels:
        drawn = torch.randperm(pixels, device=maps[0].device)[:subsample]
        maps = [x[:, drawn] for x in maps]
    units = [F.normalize(_at_least_fp32(x), dim=2) for x in maps]
    return [x @ x.mT for x in units]


def _mean_over_images(values: Tensor, across_ranks: bool) -> Tensor:
    images = values.new_tensor(len(values))
    return values.sum() / count_per_rank(images, across_ranks)


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.float() if x.dtype.itemsize < 4 else x


def _check_maps(name: str, first: Tensor, other: str, second: Tensor, equal: int) -> None:
    """Both ``(B, P, .)``, with the first ``equal`` dimensions the same."""
    shapes = tuple(first.shape), tuple(second.shape)
    if first.ndim != 3 or second.ndim != 3 or shapes[0][:equal] != shapes[1][:equal]:
        raise ValueError(
            f"Expected {name} and {other} of the same images and pixels, (B, P, .) each"
            f"{' and the same classes' if equal == 3 else ''}, got {shapes[0]} and {shapes[1]}."
        )
