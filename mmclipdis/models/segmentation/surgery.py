r"""Feature surgery: what a score has in common for all classes is taken away (CLIP-Surgery).

With the image embedding :math:`F_{cls}` of a window, its patches :math:`F_i` and the queries
:math:`T_q`, all of unit norm, and their cosines :math:`c_{iq} = F_i \cdot T_q`:

.. math:: p = \mathrm{softmax}_q(2\, F_{cls} \cdot T_q), \quad w_q = p_q / \mathrm{mean}(p), \quad
          S_{iq} = w_q c_{iq} - \mathrm{mean}_{q'}(w_{q'} c_{iq'})

The released code forms the product of every patch, query and channel first; this is the same. For
words one by one there is the form with a redundant feature r, the embedding of the empty text:
:math:`S_{iq} = F_i \cdot (T_q - r)`.

What is subtracted is the same for all queries of a patch, so neither the arg max nor a softmax over
the queries sees it: labels change by :math:`w` alone, and with r not at all. Heat maps change.
The authors' numbers of segmentation are by plain arg max, without a threshold (``prob_thd=0``).

Source: Li et al., "A Closer Look at the Explainability of Contrastive Language-Image Pre-training"
(Pattern Recognition 2025), and its released code.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch.nn.functional as F
from torch import Tensor

#: What ``redundant`` may be: nothing, or the embedding of the empty text.
REDUNDANT = (None, "empty")


def query_weights(cls: Tensor, text: Tensor) -> Tensor:
    """Weights w (B, Q), 1 on average, of the unit queries (Q, E) in windows.

    Args:
        cls: Image embeddings (B, E) of the windows; their norm does not matter.
        text: Unit text embeddings (Q, E).
    """
    likely = (2 * F.normalize(cls, dim=1) @ text.T).softmax(dim=1)
    return likely * likely.shape[1]


def feature_surgery(cosines: Tensor, weights: Tensor) -> Tensor:
    """Scores (B, Q, h, w) of cosines (B, Q, h, w) and weights (B, Q); their sum over Q is 0."""
    weighted = cosines * weights[:, :, None, None]
    return weighted - weighted.mean(dim=1, keepdim=True)


def check_redundant(redundant: str | None, score_norm: str | None, text_encoder: Any) -> None:
    """Check the options of a head.

    Raises:
        ValueError: ``redundant`` is unknown, has no surgery, or no text encoder to embed it.
    """
    if redundant not in REDUNDANT:
        raise ValueError(f"redundant must be None or 'empty', got {redundant!r}")
    if redundant is None:
        return
    if score_norm != "surgery":
        raise ValueError(
            f"redundant={redundant!r} belongs to score_norm='surgery', and score_norm is "
            f"{score_norm!r}: set it, or leave redundant out"
        )
    if text_encoder is None:
        raise ValueError(
            "redundant='empty' is the embedding of the empty text, for which the head has no "
            "text_encoder: give it one, or leave redundant out"
        )


def check_several(class_names: tuple[str, ...]) -> None:
    """Refuse a single class, from which all that it has would be taken.

    Raises:
        ValueError: there is but one.
    """
    if len(class_names) < 2:
        raise ValueError(
            "score_norm='surgery' takes from every class what all have in common, and the only one "
            f"is {', '.join(class_names)!r}: name others as well, or set redundant='empty'"
        )


def check_image_embedding(backbone: Any) -> None:
    """Refuse a backbone that embeds no images beside its map.

    Raises:
        ValueError: naming it.
    """
    dense = getattr(backbone, "dense", None)
    if dense is None or "with_cls" not in inspect.signature(dense).parameters:
        raise ValueError(
            f"score_norm='surgery' needs the image embedding of every window, and backbone "
            f"{type(backbone).__name__} has none, dense(images, with_cls=True): use "
            "type='CLIPViT' or 'CLIPSurgeryViT', or leave score_norm out"
        )
