"""Licences of published weights, by family: what their cards and repositories say.

Where they contradict each other, both are named; what nobody was found to say is None here.
"""

from __future__ import annotations

import re

#: (pattern of the arch, pattern of the tag or ``""`` for files without one, licence), in order.
_LICENCES = (
    (r"Talk2DINO-", r".*", None),  # its repository has no licence file
    (r"TIPSv2-", r".*", "CC-BY-4.0 by its README, Apache-2.0 by timm's card"),
    (r"dinotxt-v2-", r".*", "Apache-2.0"),
    (r"dinotxt-v3-", r".*", "DINOv3 License (gated)"),
    (r"ViT-.*-SigLIP", r"webli|", "Apache-2.0"),
    (r"PE-Core-", r"meta|", "Apache-2.0"),
    (r"MobileCLIP", r"datacompdr.*|dfndr2b|", "apple-amlr (research only)"),
    (r"ViT-.*", r"metaclip.*", "CC-BY-NC-4.0"),
    (r"ViT-.*-worldwide", r"", "CC-BY-NC-4.0"),
    (r"ViT-H-14", r"dfn5b", "apple-ascl (Apple sample code)"),
    (r"ViT-(B|L)-\d+(-256)?$", r"(datacomp|commonpool)_.*", "Apache-2.0"),
    (r"(ViT|RN)", r"openai", "MIT"),
    (r"EVA02-(B-16|L-14)", r"merged2b_s[68]b_.*", "MIT"),
)


def licence_of(arch: str, tag: str = "") -> str | None:
    """Licence of the weights ``tag`` of ``arch``; None where it is not known.

    Args:
        arch: Config name.
        tag: open_clip's tag; empty for the files of a family that has one licence.
    """
    for name, weights, licence in _LICENCES:
        if re.match(name, arch) and re.fullmatch(weights, tag):
            return licence
    return None
