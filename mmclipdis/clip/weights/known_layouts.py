"""The layouts of other libraries: by what they are known, and what turns them into open_clip's.

What is known and not read is named here, too, so that nobody is told that such a file "does not
fit".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from torch import Tensor

from mmclipdis.clip.weights.bigvision_layout import bigvision_to_open_clip
from mmclipdis.clip.weights.dino_layout import (
    as_trunk,
    dinov2_to_timm,
    dinov3_to_timm,
    hf_dinov3_to_timm,
)
from mmclipdis.clip.weights.dinotxt_layout import dinotxt_to_open_clip
from mmclipdis.clip.weights.hf_layout import clip_to_open_clip, siglip_to_open_clip
from mmclipdis.clip.weights.mobileclip_layout import mobileclip_to_open_clip
from mmclipdis.clip.weights.pe_layout import pe_to_open_clip
from mmclipdis.clip.weights.renaming import Convert, LayoutReport, renamed_by, rule
from mmclipdis.clip.weights.tips_layout import talk2dino_to_open_clip, tips_text_to_open_clip


def timm_to_open_clip(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], LayoutReport]:
    """A trunk of timm alone: SigLIP's and PE's with their pool, TIPS's and DINO's."""
    return renamed_by((rule(r"(.*)", r"visual.trunk.\1"),), state, "a trunk of timm")


class KnownLayout(NamedTuple):
    """A layout of another library.

    Attributes:
        signs: Patterns; a file of this layout has an entry for each of them.
        convert: Its weights -> open_clip's names, and what became of every entry.
    """

    signs: tuple[str, ...]
    convert: Convert


#: Tried in this order.
LAYOUTS = (
    # Hugging Face SigLIP
    KnownLayout(
        (
            r"(vision_model\.)?embeddings\.patch_embedding\.bias$|text_model\.head\.weight$"
            r"|embeddings\.token_embedding\.weight$",
            r"(vision_model\.|text_model\.)?head\.",
        ),
        siglip_to_open_clip,
    ),
    # Hugging Face CLIP
    KnownLayout(
        (
            r"visual_projection\.weight$|text_projection\.weight$",
            r"(vision|text)_model\.encoder\.layers\.0\.self_attn\.q_proj\.weight$",
        ),
        clip_to_open_clip,
    ),
    # big_vision's SigLIP
    KnownLayout(
        (r"(params/)?(img/embedding/kernel|txt/Embed_0/embedding)$",),
        bigvision_to_open_clip,
    ),
    # official Perception Encoder
    KnownLayout((r"(visual\.)?attn_pool\.probe$",), pe_to_open_clip),
    # official dino.txt
    KnownLayout(
        (
            r"((visual_model\.)?head\.)?block_list\.0\.|visual_model\.head\.blocks\.0\."
            r"|(text_model\.)?backbone\.blocks\.0\.attention\.qkv\.weight$",
        ),
        dinotxt_to_open_clip,
    ),
    # official DINOv3
    KnownLayout(
        (r"storage_tokens$", r"blocks\.0\.attn\.qkv\.weight$"),
        as_trunk(dinov3_to_timm),
    ),
    # Hugging Face DINOv3
    KnownLayout(
        (r"embeddings\.register_tokens$", r"(model\.)?layer\.0\.attention\.q_proj\.weight$"),
        as_trunk(hf_dinov3_to_timm),
    ),
    # official DINOv2 or TIPS
    KnownLayout(
        (r"register_tokens$", r"pos_embed$", r"blocks\.0\.attn\.qkv\.weight$"),
        as_trunk(dinov2_to_timm),
    ),
    # official TIPS
    KnownLayout(
        (r"temperature$", r"token_embedding(\.weight)?$"),
        tips_text_to_open_clip,
    ),
    # official Talk2DINO
    KnownLayout(
        (r"linear_layer\.weight$", r"hidden_layers\.0\.weight$"),
        talk2dino_to_open_clip,
    ),
    # original MobileCLIP
    KnownLayout(
        (r"image_encoder\.model\.(patch_emb\.0\.block|patch_embed\.0\.rbr_conv)\.",),
        mobileclip_to_open_clip,
    ),
    # timm's trunk alone
    KnownLayout(
        (r"(reg_token|attn_pool\.latent)$", r"blocks\.0\.attn\.qkv\.weight$"), timm_to_open_clip
    ),
)

_PLAIN = "give the weights of a plain CLIP or SigLIP, such as open_clip's"
_TWO_TOWERS = "give a file of the whole model, or that of open_clip"
#: Known and not read: what it is, pattern of a name that tells it, and what to do.
_UNREAD = (
    (
        "a Hugging Face BLIP",
        r"vision_model\.encoder\.layers\.0\.self_attn\.qkv\.weight$|qformer\.",
        _PLAIN,
    ),
    (
        "a Hugging Face Chinese-CLIP or AltCLIP",
        r"text_model\.(embeddings\.word_embeddings|roberta\.)",
        _PLAIN,
    ),
    (
        "a vision-language model with its image tower inside",
        r"(model\.)?(vision_tower|visual_model|vision_model)\.vision_model\.|language_model\.",
        _PLAIN,
    ),
    (
        "a Hugging Face CLIP that was trained for another task (CLIPSeg, OWL-ViT)",
        r"(clip|owlvit|owlv2)\.(vision|text)_model\.",
        _PLAIN,
    ),
    (
        "a Hugging Face CLIP tower without its projection, which does not reach the joint space",
        r"((vision|text)_model\.)?(embeddings\.class_embedding|encoder\.layers\.0\.self_attn)",
        _TWO_TOWERS,
    ),
    (
        "a re-parameterised MobileCLIP",
        r"(.*\.)?reparam_conv\.",
        "give the file before the re-parameterisation, which open_clip and Apple release",
    ),
    (
        "a RADIO, a vision model without a text tower",
        r"radio_model\.",
        "use TimmVFM(model='radio-v3-B') for it",
    ),
    (
        "a bare ViT, such as a DINOv2 without registers, which reaches no space of texts",
        r"(blocks\.0\.attn\.qkv\.weight|encoder\.layer\.0\.attention\.)",
        "give the file of the whole model, of DINOv2 that with registers (reg4), or use TimmVFM",
    ),
)
#: Text towers beside an image tower that is read: pattern of a name -> what it is.
_UNREAD_TEXTS = (
    (
        r"(.*\.)?text\.transformer\.(?!resblocks\.)",
        "a text tower of Hugging Face (XLM-R, RoBERTa, mT5 or NLLB)",
    ),
    (r"bert\.", "Chinese-CLIP's BERT as text tower"),
)


def find_layout(names: Collection[str]) -> KnownLayout | None:
    """The first layout whose signs are all among ``names``."""
    return next((one for one in LAYOUTS if all(_found(sign, names) for sign in one.signs)), None)


def refuse_unread(names: Collection[str], source: str) -> None:
    """Refuse a file of a layout that is known and not read.

    Raises:
        ValueError: naming the layout and what to do.
    """
    for title, pattern, remedy in _UNREAD:
        if _found(pattern, names):
            raise ValueError(f"{source!r} holds {title}, which is not read; {remedy}")


def unread_text(names: Collection[str]) -> str:
    """The text tower of ``names`` that is not read, in words; empty if there is none."""
    return next((title for pattern, title in _UNREAD_TEXTS if _found(pattern, names)), "")


def _found(pattern: str, names: Collection[str]) -> bool:
    return any(map(re.compile(pattern).match, names))
