"""Class embeddings: prompts encoded from scratch, and read back from the caches.

    python tools/benchmarks/text_embedding.py --write

Cold, the 80 ImageNet prompts of ``--classes`` names of ADE20K in three ways: as the package does
it (token sequences cut at the end of the text), by the same functions on sequences of all 77
tokens, and by open_clip's own forward pass, which always takes 77. Cached, the 150 names of
ADE20K: from memory, from disk, and from disk for the first time in a process, when the weights
have to be hashed to know whose embeddings these are. Weights are random.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from bench import Claim, clock_of, interleave, make_parser, report

from mmclipdis.clip.text.embedding_cache import MemoryCache
from mmclipdis.clip.text.encoder import TextTower, build_text_tower, embed_vocabulary
from mmclipdis.clip.text.vocabulary import Vocabulary

FULL = 77  # context length of CLIP
PART = 4


def cold_rows(
    tower: TextTower, vocabulary: Vocabulary, rounds: int, batch_size: int, clock: Any
) -> tuple[list[dict[str, Any]], list[Claim]]:
    """Embeddings of ``vocabulary`` computed in the three ways, in prompts a second.

    At 77 tokens every prompt costs the same, so one in ``PART`` of them stands for all.
    """
    sentences = [sentence for group in vocabulary.prompts() for sentence in group]
    tokens = tower.tokenize(sentences[::PART])
    padded = torch.zeros(len(tokens), FULL, dtype=torch.long)
    padded[:, : tokens.shape[1]] = tokens
    batches = padded.split(batch_size)

    def cut() -> Any:
        tower.memory = MemoryCache()
        return embed_vocabulary(
            tower, vocabulary, batch_size=batch_size, progress=False, cache_dir=False
        )

    cases: dict[str, Callable[[], Any]] = {
        "tokens cut": cut,
        "77 tokens": lambda: [tower.encode(batch) for batch in batches],
        "77 tokens, open_clip": lambda: [tower.text(batch) for batch in batches],
    }
    times = interleave(cases, rounds, warmup=0, clock=clock)
    count = {name: len(sentences) if name == "tokens cut" else len(padded) for name in cases}
    rows = [
        {
            "name": f"prompts, {name}",
            "metrics": {"prompts_per_second": count[name] / times.median(name)},
        }
        for name in cases
    ]
    share = count["77 tokens"] / count["tokens cut"]
    gain = times.ratio("77 tokens", "tokens cut") / share
    return rows, [Claim("prompts cold, tokens cut / 77 tokens, speed", gain, at_least=6)]


def cached_rows(
    tower: TextTower, vocabulary: Vocabulary, rounds: int, clock: Any
) -> tuple[list[dict[str, Any]], list[Claim]]:
    """The embedding of ``vocabulary`` from memory and from disk, in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:

        def embed() -> Any:
            return embed_vocabulary(tower, vocabulary, progress=False, cache_dir=folder)

        def from_disk() -> Any:
            tower.memory = MemoryCache()
            return embed()

        def from_disk_first() -> Any:
            tower._fingerprint = None
            return from_disk()

        expected = embed()
        cases = {"disk, first": from_disk_first, "disk": from_disk, "memory": embed}
        for case in cases.values():
            if not torch.equal(case(), expected):
                raise RuntimeError("the cache gave other embeddings than those put in")
        times = interleave(cases, rounds, clock=clock)
    count = vocabulary.num_classes
    names = {name: f"{count}-class embedding from {name}, ms" for name in ("memory", "disk")}
    first = f"{count}-class embedding from disk, first in a process"
    rows = [{"name": first, "metrics": {"time_ms": 1e3 * times.median("disk, first")}}]
    return rows, [
        Claim(title, 1e3 * times.median(name), at_most=50) for name, title in names.items()
    ]


def main() -> None:
    """Read the command line, measure, report."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--arch", default="ViT-B-16-quickgelu")
    parser.add_argument("--tokenizer", help="file of the tokenizer, unless it is CLIP's")
    parser.add_argument("--classes", type=int, default=8, help="classes encoded cold")
    parser.add_argument("--batch-size", type=int, default=256, help="prompts a batch")
    parser.add_argument(
        "--cached-templates", default="single", help="templates of the cached vocabulary"
    )
    args = parser.parse_args()
    clock = clock_of(args)
    torch.manual_seed(0)
    tower = build_text_tower(args.arch, args.tokenizer).eval().requires_grad_(False)
    names = Vocabulary.bundled("ade20k")
    step = max(1, names.num_classes // args.classes)  # spread over the list
    few = replace(names, names=names.names[::step][: args.classes])
    many = Vocabulary.bundled("ade20k", args.cached_templates)
    with torch.inference_mode():
        rows, claims = cold_rows(tower, few, args.rounds, args.batch_size, clock)
    more = cached_rows(tower, many, 5 * args.rounds, clock)
    report(args, rows + more[0], claims + more[1])


if __name__ == "__main__":
    main()
