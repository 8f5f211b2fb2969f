"""InfoCLIP's learnable pixel-text alignment module (LPAM)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

Relation = Literal["lpam", "cosine"]
Residual = Literal["cosine", "ln_dot"]


@MODELS.register_module()
class LPAM(nn.Module):
    r"""How well every pixel goes with every class, by attention scores plus a fixed similarity.

    .. math:: R = \frac{(W_q \hat V + b_q)(W_k \hat L + b_k)^\top}{\sqrt C} + \cos(V, L)

    :math:`\hat V, \hat L` are layer-normalised. There is no softmax, no temperature, and no value
    path. Teacher and student share one module. Inputs of half types are computed in fp32, also
    under autocast.

    With norms and biases it has 527,360 parameters at C = 512 (published: 0.53 M) and 1,184,256 at
    C = 768.

    Args:
        embed_dim: C, width of the joint space of image and text.
        relation: ``"lpam"``, or ``"cosine"``: :math:`R = \cos(V, L)` without any parameter (the
            published ablation without the module).
        residual: What is added to the scores. ``"cosine"`` of the raw features, or ``"ln_dot"``,
            the product of the normalised ones, which is about :math:`\sqrt C` large and outweighs
            the learnable part by far (60 times at C = 512).
        norms: Whether there are layer norms.
        bias: Whether the projections have biases.

    Raises:
        ValueError: an unknown option, ``residual="ln_dot"`` without norms, or an option of the
            projections with ``relation="cosine"``.

    Source: InfoCLIP, from its public summaries; its code is not public. The parameter
    count fits two C x C projections. The form is that of the same authors' InfoSAM (ICML 2025),
    which adds ``"ln_dot"`` and takes the query from what is the text here.
    """

    def __init__(
        self,
        embed_dim: int,
        relation: Relation = "lpam",
        residual: Residual = "cosine",
        norms: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        _check_options(embed_dim, relation, residual, norms, bias)
        self.embed_dim = embed_dim
        self.relation = relation
        self.residual = residual
        if relation == "lpam":
            self.q = nn.Linear(embed_dim, embed_dim, bias=bias)
            self.k = nn.Linear(embed_dim, embed_dim, bias=bias)
            self.norm_v = nn.LayerNorm(embed_dim) if norms else nn.Identity()
            self.norm_l = nn.LayerNorm(embed_dim) if norms else nn.Identity()

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        """``images`` (B, P, C) of P pixels, ``text`` (T, C), of any length -> R (B, P, T).

        Raises:
            ValueError: other shapes.
        """
        if (
            images.ndim != 3
            or text.ndim != 2
            or {images.shape[2], text.shape[1]} != {self.embed_dim}
        ):
            raise ValueError(
                f"Expected images (B, P, {self.embed_dim}) and text (T, {self.embed_dim}), got "
                f"{tuple(images.shape)} and {tuple(text.shape)}."
            )
        with torch.autocast(images.device.type, enabled=False):
            images, text = (x.float() if x.dtype.itemsize < 4 else x for x in (images, text))
            if self.relation == "cosine":
                return _cosine(images, text)
            v, l_hat = self.norm_v(images), self.norm_l(text)
            scores = self.q(v) @ self.k(l_hat).T / self.embed_dim**0.5
            fixed = _cosine(images, text) if self.residual == "cosine" else v @ l_hat.T
            return scores + fixed


def _cosine(images: Tensor, text: Tensor) -> Tensor:
    return F.normalize(images, dim=-1) @ F.normalize(text, dim=-1).T


def _check_options(embed_dim: int, relation: str, residual: str, norms: bool, bias: bool) -> None:
    if embed_dim < 1:
        raise ValueError(f"embed_dim must be at least 1, got {embed_dim}.")
    allowed = {"relation": ("lpam", "cosine"), "residual": ("cosine", "ln_dot")}
    for name, value in {"relation": relation, "residual": residual}.items():
        if value not in allowed[name]:
            raise ValueError(f"{name} must be one of {', '.join(allowed[name])}, got {value!r}.")
    if residual == "ln_dot" and not norms:
        raise ValueError("residual='ln_dot' is a product of layer norms: it needs norms=True.")
    if relation == "cosine" and (residual, norms, bias) != ("cosine", True, True):
        raise ValueError(
            "relation='cosine' has no projections: leave out residual, norms and bias, or use "
            "relation='lpam'."
        )
