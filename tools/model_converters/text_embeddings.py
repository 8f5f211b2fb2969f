r"""Write the text embeddings of a vocabulary to a file, or compare a file with a text tower.

    python tools/model_converters/text_embeddings.py coco_eva_b.safetensors --arch EVA02-B-16 \
        --checkpoint merged2b_s8b_b131k --vocabulary data/coco/annotations/panoptic_val2017.json
    python tools/model_converters/text_embeddings.py official.npy --compare --arch EVA02-B-16 ...

A ``.safetensors`` also holds the names and a fingerprint of the text tower; a ``.npy`` (C, D) is
what the code of DeCLIP and CLIPSelf reads. ``text_embeddings=FILE`` of a RegionClassifier and
``embeddings=FILE`` of a CosineSegHead take both. They have no text tower then, and can compare no
more than rows, width and names; ``--compare`` also compares the text tower and the values.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mmclipdis.apis.cli import run as run_tool
from mmclipdis.apis.resources import line_of
from mmclipdis.clip.text.embeddings_file import read_embeddings, write_embeddings
from mmclipdis.clip.text.templates import Templates
from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.clip.weights.loading import Arch
from mmclipdis.models.text_encoder import OpenCLIPTextEncoder, build_vocabulary
from mmclipdis.utils.device import usable_device
from mmclipdis.utils.whole_files import refuse_existing, whole_file

#: Rows of the same tower and prompts are nearer than that, also those computed in float16.
SAME_ROW = 0.99


def vocabulary_of(source: str, templates: Templates, first_only: bool = False) -> Vocabulary:
    """The classes of a json with ``categories`` (in the order of their ids), or of any other source
    that :func:`~mmclipdis.models.text_encoder.build_vocabulary` reads.

    Raises:
        FileNotFoundError, ValueError: no such source, or one that names no classes.
    """
    names: Any = source
    if source.endswith(".json"):
        if not Path(source).is_file():
            raise FileNotFoundError(f"{source!r} does not exist")
        content = json.loads(Path(source).read_text(encoding="utf-8"))
        categories = content.get("categories") if isinstance(content, dict) else content
        if not categories or not all(
            isinstance(c, dict) and c.keys() >= {"id", "name"} for c in categories
        ):
            raise ValueError(f"{source!r} lists no categories with id and name")
        names = [c["name"] for c in sorted(categories, key=lambda c: c["id"])]
    found = build_vocabulary(names, templates, first_only=first_only)
    if found is None:
        raise ValueError(f"vocabulary {source!r} names no classes; give a file or a data set")
    return found


def write(
    target: Path, embeddings: Tensor, names: Sequence[str], fingerprint: str, overwrite: bool
) -> None:
    """Write ``.safetensors`` or ``.npy``, completely or not at all.

    Raises:
        FileExistsError: the target exists and is not to be replaced.
        ValueError: another suffix.
    """
    if target.suffix != ".npy":
        write_embeddings(target, embeddings, names, fingerprint, overwrite)
        return
    with whole_file(target, overwrite) as file:
        np.save(file, embeddings.cpu().numpy())


def compare(path: Path, embeddings: Tensor, names: Sequence[str], fingerprint: str) -> float:
    """Lowest cosine of a row of the file with that of the text tower.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_embeddings`; also for a row that differs.
    """
    stored = read_embeddings(path, embeddings.shape[1], names, fingerprint)
    cosines = (stored * embeddings.cpu()).sum(dim=1)
    row = int(cosines.argmin())
    if cosines[row] < SAME_ROW:
        raise ValueError(
            f"text embeddings in {str(path)!r} differ from those of this text tower: row {row} "
            f"({names[row]!r}) has the cosine {cosines[row]:.3f}; it is of another CLIP, of other "
            "--templates or of another order of the classes"
        )
    return float(cosines[row])


def run(
    target: Path,
    arch: Arch,
    checkpoint: str,
    vocabulary: Vocabulary,
    *,
    only_compare: bool = False,
    overwrite: bool = False,
    device: str = "cpu",
    tokenizer: Path | None = None,
    dense: bool = False,
) -> str:
    """Embed ``vocabulary`` and write it to, or compare it with, ``target``; returns what was done.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: as the parts, or weights that do not fit.
    """
    place = usable_device(device)
    if not only_compare:
        refuse_existing(target, overwrite)
    init_cfg = dict(type="Pretrained", checkpoint=checkpoint)
    encoder = OpenCLIPTextEncoder(arch, init_cfg=init_cfg, tokenizer=tokenizer)
    encoder.init_weights()
    embeddings = encoder.to(place).embed(vocabulary, dense=dense).float()
    names, fingerprint = vocabulary.queries, encoder.tower.fingerprint()
    if only_compare:
        lowest = compare(target, embeddings, names, fingerprint)
        return f"{target} is of this text tower: lowest cosine of {len(names)} rows {lowest:.5f}"
    write(target, embeddings, names, fingerprint, overwrite)
    shape = " x ".join(map(str, embeddings.shape))
    return f"{target}: {shape} embeddings of the text tower {fingerprint[:12]}"


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", type=Path, help=".safetensors or .npy")
    parser.add_argument("--arch", required=True, help="such as EVA02-B-16")
    parser.add_argument("--checkpoint", required=True, help="tag of open_clip, or a file")
    parser.add_argument(
        "--tokenizer", type=Path, help="tokenizer.json of an arch that has another than CLIP's"
    )
    parser.add_argument(
        "--dense", action="store_true", help="for dense maps: the half of dino.txt's channels"
    )
    parser.add_argument(
        "--vocabulary",
        required=True,
        help="json with categories, class file, name of a class file of the package, or a "
        "registered data set",
    )
    parser.add_argument(
        "--templates", nargs="+", default=["vild63"], help="name of a set, or patterns with {}"
    )
    parser.add_argument("--first-only", action="store_true", help="leave synonyms out")
    parser.add_argument("--device", default="cpu")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--compare", action="store_true", help="compare TARGET, write nothing")
    action.add_argument("--overwrite", action="store_true", help="replace TARGET")
    args = parser.parse_args(argv)
    named = args.templates[0] if len(args.templates) == 1 else args.templates
    try:
        vocabulary = vocabulary_of(args.vocabulary, named, args.first_only)
        print(
            run(
                *(args.target, args.arch, args.checkpoint, vocabulary),
                only_compare=args.compare,
                overwrite=args.overwrite,
                device=args.device,
                tokenizer=args.tokenizer,
                dense=args.dense,
            )
        )
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(line_of(error)) from None


if __name__ == "__main__":
    run_tool(lambda _: main(), None)
