"""Published numbers on the pages are those of the metafiles: tables are made of them, prose held.

(Those in the comments of configs: ``test_metafiles.py``.)
"""

from __future__ import annotations

import re

from tests.paths import ROOT
from tests.published_tables import entries

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MADE = re.compile(r"<!-- table: .*?<!-- /table -->", re.S)
CODE = re.compile(r"```.*?```", re.S)
NUMBER = re.compile(r"(?<![\w.-])\d+\.\d+(?![\w.]*\w)")
#: What published numbers are of, in the head of a table or in a sentence.
METRIC = re.compile(r"\b(mIoU|mAP|mAcc|AP|AP50|AP_r|novel|average)\b")
WHERE = re.compile(r"\b(VOC|COCO|ADE20K|Cityscapes|Context|LVIS|Objects365|A-847|PC-459)")
WHOSE = re.compile(
    r"\b(papers?|published|publishes|abstract|authors?|user|README|notebook|logs|"
    r"re-implementations?|page that collects)\b",
    re.I,
)
#: Page -> numbers in such sentences that belong to no config: settings, differences, others.
OTHERS = {
    "dclip.md": {
        *(0.03, 93.2, 93.6, 0.05),  # DualCoOp's weights of ASL, and a user's and its mAP
        *(1.2, 0.8),  # differences of numbers in the metafile
        *(0.2, 0.9),  # thresholds of the author's scripts
    },
    "encoders.md": {25.06, 38.1, 30.2, 42.4, 65.8},  # TIPS' notebook; Talk2DINO, without a config
    "training_free.md": {50.7},  # OV-Stitcher's average, of which no row is published
}


def published() -> set[float]:
    """All numbers of all metafiles."""
    found: set[float] = set()
    for entry in entries().values():
        for result in entry.get("Results", ()):
            found |= {*result["Metrics"].values(), *result.get("Others", {}).values()}
    return found


def by_hand(text: str) -> str:
    """A page without the tables that are made, and without code."""
    return CODE.sub("", MADE.sub("", text))


def sentences(text: str) -> list[str]:
    """Of paragraphs and lists; rows of tables are none."""
    lines = [line for line in text.splitlines() if not line.startswith("|")]
    blocks = re.split(r"\n\s*\n|\n- ", "\n".join(lines))
    flat = (" ".join(block.split()) for block in blocks)
    return [sentence for block in flat for sentence in re.split(r"(?<=[.:;])\s", block)]


def test_no_table_of_published_numbers_is_typed_by_hand() -> None:
    for page in PAGES:
        for table in re.findall(r"(?m)(?:^\|.*\n)+", by_hand(page.read_text("utf-8"))):
            head = table.splitlines()[0]
            typed = NUMBER.findall(table) if METRIC.search(head) and "here" not in head else []
            assert not typed, (page.name, head, typed)


def test_published_numbers_in_sentences_stand_in_a_metafile() -> None:
    known = published()
    seen: dict[str, set[float]] = {}
    for page in PAGES:
        allowed = OTHERS.get(page.name, set())
        for sentence in sentences(by_hand(page.read_text("utf-8"))):
            if WHOSE.search(sentence) and (METRIC.search(sentence) or WHERE.search(sentence)):
                numbers = {float(text) for text in NUMBER.findall(sentence)}
                seen.setdefault(page.name, set()).update(numbers)
                assert numbers <= known | allowed, (page.name, sentence, numbers - known - allowed)
    assert {page: seen[page] & numbers for page, numbers in OTHERS.items()} == OTHERS
