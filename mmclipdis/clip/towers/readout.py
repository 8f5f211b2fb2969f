"""How the last block of a CLIP tower is read out: the one thing most dense-CLIP papers change.

A published method is a named value here, not a class:

=============  ===============  ========  ===  ============================================
name           attention        residual  FFN  source
=============  ===============  ========  ===  ============================================
``vanilla``    qk               token     yes  CLIP (Radford et al., 2021)
``maskclip``   identity         token     yes  MaskCLIP (Zhou et al., 2022), official fork
``sclip``      qq + kk          token     yes  SCLIP (Wang et al., 2024)
``clearclip``  qq               none      no   ClearCLIP (Lan et al., 2024), eq. 4
``declip``     qq + kk          none      no   DeCLIP (Wang et al., 2025), released ``csa``
``catseg``     identity         cls       yes  CAT-Seg (Cho et al., 2024), released code
``v``          identity         none      no   DCLIP, and MaskCLIP, of a ResNet's attention pool
``qk``         qk               none      no   the attention pool of CLIP's ResNet, at every row
``qq kk vv``   as named         none      no   ClearCLIP's and DeCLIP's ablations
``csa``        qq + kk          none      no   DeCLIP's own name of ``declip``
``all``        qkv              none      no   DeCLIP's ablation
``clip_surgery``  a dual path of its own, see :class:`DualPath`
=============  ===============  ========  ===  ============================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

ATTENTION_TERMS = ("qk", "qq", "kk", "vv", "qkv", "identity")
RESIDUALS = ("token", "cls", "none")
SCALES = ("sqrt", "none")


@dataclass(frozen=True)
class Readout:
    """Four independent choices for the last block.

    Attributes:
        attention: Terms whose outputs are *summed* (not averaged): ``qk`` is
            ``softmax(s q k^T) v``; ``qq``, ``kk``, ``vv`` are self-self attention; ``qkv`` is
            ``softmax(s (q q^T + k k^T + v v^T) / 3) v``; ``identity`` is ``v`` itself.
        residual: ``token`` adds the block's own input, ``cls`` adds the CLS row of the input
            to every token (CAT-Seg), ``none`` adds nothing.
        ffn: Whether the block's feed-forward branch (with its own residual) follows.
        scale: ``sqrt`` multiplies the logits by ``head_dim ** -0.5``; ``none`` by 1.

    Raises:
        ValueError: for a term, residual or scale that does not exist.
    """

    attention: tuple[str, ...]
    residual: Literal["token", "cls", "none"] = "none"
    ffn: bool = False
    scale: Literal["sqrt", "none"] = "sqrt"

    def __post_init__(self) -> None:
        terms = self.attention  # a string is one term, not its letters
        object.__setattr__(self, "attention", (terms,) if isinstance(terms, str) else tuple(terms))
        unknown = [term for term in self.attention if term not in ATTENTION_TERMS]
        if unknown or not self.attention:
            raise ValueError(
                f"Readout.attention must be one or more of {ATTENTION_TERMS}, got {self.attention}"
            )
        if len(set(self.attention)) < len(self.attention):
            raise ValueError(f"Readout.attention names a term twice: {self.attention}")
        if self.residual not in RESIDUALS:
            raise ValueError(f"Readout.residual must be one of {RESIDUALS}, got {self.residual!r}")
        if self.scale not in SCALES:
            raise ValueError(f"Readout.scale must be one of {SCALES}, got {self.scale!r}")

    @property
    def parts(self) -> tuple[str, ...]:
        """The projections this readout needs, in q, k, v order; v always."""
        letters = "".join(term for term in self.attention if term != "identity") + "v"
        return tuple(part for part in "qkv" if part in letters)

    @property
    def context(self) -> tuple[str, ...]:
        """The projections whose self-similarity the attention is, in q, k, v order.

        DeCLIP's "context features" (its eq. 4): q of ``qq``, q and k of ``qq + kk``, all three of
        ``qkv``; none for ``qk`` and ``identity``, which compare nothing with itself.
        """
        letters = "".join(term for term in self.attention if term not in ("qk", "identity"))
        return tuple(part for part in "qkv" if part in letters)


@dataclass(frozen=True)
class DualPath:
    """CLIP-Surgery (Li et al., 2023): a second stream over the last ``blocks`` blocks.

    ``Z = X_{l0-1} + sum_l Attn_l(LN1(X_{l-1}))`` for ``l`` in the last ``blocks`` blocks, where
    ``X`` is the ordinary stream and ``Attn_l`` uses ``attention`` with block ``l``'s weights: no
    feed-forward branch on the new path. CLS still comes from the ordinary stream.

    Attributes:
        blocks: How many blocks; the official code uses 6 for every tower. 0 is vanilla CLIP.
        attention: As in :class:`Readout`.
    """

    blocks: int = 6
    attention: tuple[str, ...] = ("vv",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "attention", Readout(self.attention).attention)
        if self.blocks < 0:
            raise ValueError(f"DualPath.blocks must be >= 0, got {self.blocks}")


AnyReadout = Readout | DualPath

READOUTS: dict[str, AnyReadout] = {
    "vanilla": Readout(("qk",), residual="token", ffn=True),
    "maskclip": Readout(("identity",), residual="token", ffn=True),
    "sclip": Readout(("qq", "kk"), residual="token", ffn=True),
    "clearclip": Readout(("qq",)),
    "declip": Readout(("qq", "kk")),
    "catseg": Readout(("identity",), residual="cls", ffn=True),
    "v": Readout(("identity",)),
    "qk": Readout(("qk",)),
    "qq": Readout(("qq",)),
    "kk": Readout(("kk",)),
    "vv": Readout(("vv",)),
    "csa": Readout(("qq", "kk")),
    "all": Readout(("qkv",)),
    "clip_surgery": DualPath(),
}


def get_readout(value: str | AnyReadout | Mapping[str, Any]) -> AnyReadout:
    """Turn a config value into a readout.

    Args:
        value: A name of :data:`READOUTS`, a readout, or a mapping with the fields of
            :class:`Readout` (or, with a key ``blocks``, of :class:`DualPath`).

    Raises:
        ValueError: for an unknown name or field; the message lists the allowed ones.
    """
    if isinstance(value, (Readout, DualPath)):
        return value
    if isinstance(value, str):
        if value not in READOUTS:
            raise ValueError(f"unknown readout {value!r}; known: {', '.join(sorted(READOUTS))}")
        return READOUTS[value]
    if not isinstance(value, Mapping):
        raise ValueError(f"a readout is a name or a dict, got {type(value).__name__}")
    kind = DualPath if "blocks" in value else Readout
    allowed = [field.name for field in fields(kind)]
    unknown = sorted(set(value) - set(allowed))
    if unknown:
        raise ValueError(f"unknown {kind.__name__} field(s) {unknown}; known: {allowed}")
    return kind(**value)
