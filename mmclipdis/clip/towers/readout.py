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
``residual``   nothing          token     no   ClearCLIP's probe: the block's own input
``clip_surgery``  a dual path of vv, see :class:`DualPath`
``gem``        a dual path of its own attention, GEM (Bousselham et al., 2024), in ClearCLIP's code
``naclip``     kk, neighbours   none      no   NACLIP (Hajimiri et al., 2025)
``vfm``        affinity         none      no   the plain affinity of a vision model
``proxyclip``  affinity         none      no   ProxyCLIP (Lan et al., 2024)
``resclip``    kk + layers      none      no   ResCLIP (Yang et al., 2025), its RCS alone
``scclip``     a path of its own, see :class:`SelfCalibrated`
``corrclip``   affinity in      none      no   CorrCLIP (Zhang et al., 2025)
               masks, branches
``ov_stitcher``  the same       none      no   OV-Stitcher (Moon et al., 2026): with
                                               ``test_cfg.stitch='values'``
=============  ===============  ========  ===  ============================================

What an affinity is made of is not said here: the backbone has the vision model, the segmentor the
masks (:class:`~mmclipdis.clip.towers.affinity.Guide`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mmclipdis.clip.towers.readout_fields import (
    Affinity,
    Branches,
    block_numbers,
    check_last_blocks,
    checked_branches,
    fields_of,
    given,
    weighted_residual,
)
from mmclipdis.clip.towers.self_calibrated import SelfCalibrated
from mmclipdis.utils.finite import finite_number

ATTENTION_TERMS = ("qk", "qq", "kk", "vv", "qkv", "gem", "identity", "layers", "affinity")
#: Terms of the attention among patches inside an attention pool; ``identity`` is the value path.
POOL_TERMS = ("identity", "kk", "vv")
SCALES = ("sqrt", "none")


@dataclass(frozen=True)
class Readout:
    """Independent choices for the last block.

    Attributes:
        attention: Terms whose outputs are *summed* (not averaged): ``qk`` is
            ``softmax(s q k^T) v``; ``qq``, ``kk``, ``vv`` are self-self attention; ``qkv`` is
            ``softmax(s (q q^T + k k^T + v v^T) / 3) v``; ``gem`` is the mean over ``u`` of q, k, v
            of ``softmax(b u' u'^T) v`` with unit tokens ``u'`` that one step ``softmax(b u u^T) u``
            brought closer, where ``b`` is ``s`` times the mean length of the block's normed input;
            ``identity`` is ``v`` itself; ``layers`` is the mean of the ordinary matrices
            ``softmax(s q k^T)`` of the blocks in ``layers``, head by head, times the last block's
            ``v``; ``affinity`` is ``W v`` of the patches alone, one matrix for all heads. A mapping
            gives each term its factor, ``dict(kk=1.4, layers=0.6)``. Empty: the residual alone.
        residual: ``token`` adds the block's own input, ``cls`` adds the CLS row of the input
            to every token (CAT-Seg), ``none`` adds nothing.
        ffn: Whether the block's feed-forward branch (with its own residual) follows.
        scale: ``sqrt`` multiplies the logits by ``head_dim ** -0.5``; ``none`` by 1.
        weights: Factors of the terms, in their order; empty: 1 each.
        layers: 0-based blocks of the term ``layers``; negative counts from the last.
        neighbours: Standard deviation, in patches, of the Gaussian of the distance that is added
            to the logits of every softmax term of the last block (NACLIP, eq. 6), with peak 1;
            None adds nothing. CLS gets none.
        affinity: How the matrix of the term ``affinity`` is made.
        branches: More token sets that the map is the sum of; they need an affinity.
        pool_attention: How patches are mixed inside the attention pool of a SigLIP or PE, behind
            the last block: not (``identity``), or by ``kk`` or ``vv``. Its ``q`` was only ever of
            the learned query, so there is no ``qq`` or ``qk`` there (encoders spec 2.3).
        residual_weight: Factor of the residual, ClearCLIP's alpha: ``U = A + alpha X``. 0 is the
            same as ``residual="none"``, and becomes it.
        last_blocks: How many blocks, the last ones, are read so, each at its input in the ordinary
            stream; their outputs are summed (``last_n_layers`` of ClearCLIP's code).

    Raises:
        ValueError: for a term, residual or scale that does not exist, and for fields that
            contradict each other.
    """

    attention: tuple[str, ...]
    residual: Literal["token", "cls", "none"] = "none"
    ffn: bool = False
    scale: Literal["sqrt", "none"] = "sqrt"
    weights: tuple[float, ...] = ()
    layers: tuple[int, ...] = ()
    neighbours: float | None = None
    affinity: Affinity | None = None
    branches: Branches | None = None
    pool_attention: str = "identity"
    residual_weight: float = 1.0
    last_blocks: int = 1

    def __post_init__(self) -> None:
        terms: Any = self.attention  # a string is one term, not its letters
        if isinstance(terms, Mapping):
            if self.weights:
                raise ValueError("Readout.attention is a mapping of factors: leave weights out")
            object.__setattr__(self, "weights", tuple(terms.values()))
        object.__setattr__(self, "attention", (terms,) if isinstance(terms, str) else tuple(terms))
        residual, weight = weighted_residual(self.residual, self.residual_weight)
        object.__setattr__(self, "residual", residual)
        object.__setattr__(self, "residual_weight", weight)
        unknown = [term for term in self.attention if term not in ATTENTION_TERMS]
        if unknown or not (self.attention or self.residual != "none"):
            raise ValueError(
                f"Readout.attention must be one or more of {ATTENTION_TERMS}, got {self.attention};"
                " without any there must be a residual"
            )
        if len(set(self.attention)) < len(self.attention):
            raise ValueError(f"Readout.attention names a term twice: {self.attention}")
        if self.scale not in SCALES:
            raise ValueError(f"Readout.scale must be one of {SCALES}, got {self.scale!r}")
        self._check_weights()
        self._check_terms()
        self._check_affinity()
        object.__setattr__(self, "branches", checked_branches(self.affinity, self.branches))
        check_last_blocks(self.attention, self.last_blocks)
        if self.pool_attention not in POOL_TERMS:
            raise ValueError(
                f"Readout.pool_attention must be one of {POOL_TERMS}, got {self.pool_attention!r}: "
                "the q of an attention pool was only ever of its learned query, never of patches"
            )

    def _check_weights(self) -> None:
        given: Any = self.weights  # a number is that of a single term
        listed = given if isinstance(given, Iterable) else (given,)
        weights = tuple(finite_number("Readout.weights", weight) for weight in listed)
        if weights and len(weights) != len(self.attention):
            raise ValueError(
                f"Readout.weights has {len(weights)} factors for the terms {self.attention}"
            )
        if weights and not any(weights):
            raise ValueError(
                f"the factors of the terms {self.attention} of Readout.attention are all 0, which "
                "leaves nothing of the block: name a term with another"
            )
        object.__setattr__(self, "weights", () if set(weights) == {1.0} else weights)

    def _check_terms(self) -> None:
        layers = block_numbers("Readout.layers", self.layers)
        object.__setattr__(self, "layers", layers)
        if bool(layers) != ("layers" in self.attention):
            raise ValueError(
                f"Readout.layers={layers} and the terms {self.attention}: the term 'layers' needs "
                "blocks, and blocks need the term"
            )
        if self.neighbours is not None:
            sigma = finite_number("Readout.neighbours", self.neighbours)
            if sigma <= 0:
                raise ValueError(
                    f"Readout.neighbours is a standard deviation in patches, above 0; got {sigma}"
                )
            if not set(self.attention) - {"identity", "layers", "affinity"}:
                raise ValueError(
                    f"Readout.neighbours changes none of the terms {self.attention}: leave it out, "
                    "or name one of qk, qq, kk, vv, qkv"
                )
            object.__setattr__(self, "neighbours", sigma)

    def _check_affinity(self) -> None:
        object.__setattr__(self, "affinity", given("affinity", Affinity, self.affinity))
        if (self.affinity is not None) != ("affinity" in self.attention):
            raise ValueError(
                f"Readout.affinity and the terms {self.attention}: the term 'affinity' needs "
                "affinity=dict(...), and that needs the term"
            )
        if self.affinity is not None and self.residual == "token":
            raise ValueError(
                "Readout.residual='token' with the term 'affinity': its tokens may lie on another "
                "grid than those of CLIP; choose residual='none' or 'cls'"
            )

    @property
    def needs_cls(self) -> bool:
        """Whether CLS enters the map: by its residual, or copied for every region."""
        return self.residual == "cls" or bool(self.branches and self.branches.semantic)

    @property
    def factors(self) -> tuple[float, ...]:
        """The factor of each term."""
        return self.weights or (1.0,) * len(self.attention)

    @property
    def self_terms(self) -> tuple[str, ...]:
        """The terms that need the last block and nothing else."""
        return tuple(term for term in self.attention if term not in ("layers", "affinity"))

    @property
    def parts(self) -> tuple[str, ...]:
        """The projections this readout needs, in q, k, v order; v of every attention."""
        if not self.attention:
            return ()
        return _letters(term for term in (*self.self_terms, "v") if term != "identity")

    @property
    def context(self) -> tuple[str, ...]:
        """The projections whose self-similarity the attention is, in q, k, v order.

        DeCLIP's "context features" (its eq. 4): q of ``qq``, q and k of ``qq + kk``, all three of
        ``qkv``; none for ``qk``, ``identity`` and what is not of the last block, which compare
        nothing with itself.
        """
        return _letters(term for term in self.self_terms if term not in ("qk", "identity"))


def _letters(terms: Iterable[str]) -> tuple[str, ...]:
    """The projections that attention terms name, in q, k, v order."""
    named = "".join("qkv" if term == "gem" else term for term in terms)
    return tuple(part for part in "qkv" if part in named)


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

    needs_cls: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "attention", Readout(self.attention).attention)
        if self.blocks < 0:
            raise ValueError(f"DualPath.blocks must be >= 0, got {self.blocks}")


AnyReadout = Readout | DualPath | SelfCalibrated

_CORRCLIP = Readout(
    ("affinity",), affinity=Affinity(scale=4.0, scope="masks", merge=0.2), branches=Branches()
)

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
    "residual": Readout((), residual="token"),
    "clip_surgery": DualPath(),
    "gem": DualPath(attention=("gem",)),
    "naclip": Readout(("kk",), neighbours=5.0),
    "vfm": Readout(("affinity",), affinity=Affinity()),
    "proxyclip": Readout(("affinity",), affinity=Affinity(shift=1.2, scale=3.0, keep="positive")),
    # lambda = 0.4, that of COCO-Object, COCO-Stuff and Context-59: kk 2 (1 - lambda), layers
    # 2 lambda, and blocks 5 to 8 whatever the depth
    "resclip": Readout(("kk", "layers"), weights=(1.2, 0.8), layers=(5, 6, 7, 8), neighbours=5.0),
    "scclip": SelfCalibrated(),
    "corrclip": _CORRCLIP,
    "ov_stitcher": _CORRCLIP,
}


def get_readout(value: str | AnyReadout | Mapping[str, Any]) -> AnyReadout:
    """Turn a config value into a readout.

    Args:
        value: A name of :data:`READOUTS`, a readout, or a mapping with the fields of
            :class:`Readout` (or, with a key ``blocks``, of :class:`DualPath`, with a key ``deep``
            of :class:`SelfCalibrated`).

    Raises:
        ValueError: for an unknown name or field; the message lists the allowed ones.
    """
    if isinstance(value, AnyReadout):
        return value
    if isinstance(value, str):
        if value not in READOUTS:
            raise ValueError(f"unknown readout {value!r}; known: {', '.join(sorted(READOUTS))}")
        return READOUTS[value]
    if not isinstance(value, Mapping):
        raise ValueError(f"a readout is a name or a dict, got {type(value).__name__}")
    if "blocks" in value:
        return fields_of(DualPath, value)
    if "deep" in value:
        return fields_of(SelfCalibrated, value)
    return fields_of(Readout, value)
