"""Class text: rows set by set, made when needed, forgotten when the weights change."""

from __future__ import annotations

import pytest
import torch
from mmengine.model import BaseModule

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.models.class_text import ClassText

NAMES = ["cat", "dog"]


class Letters(BaseModule):
    """An encoder whose embeddings tell what was asked."""

    embed_dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(()), requires_grad=False)
        self.asked: list[tuple[str, ...]] = []

    def embed(self, vocabulary: Vocabulary) -> torch.Tensor:
        prompts = [sentence for group in vocabulary.prompts() for sentence in group]
        self.asked.append(tuple(prompts))
        rows = [[len(group), len(group[0])] for group in vocabulary.prompts()]
        return torch.tensor(rows).float() + self.shift


def test_rows_come_set_by_set():
    text = ClassText(Letters(), NAMES, prompt_sets=("no {}", ["a {}", "the {}"]))
    rows = text.embeddings()
    assert text.encoder.asked == [
        ("no cat", "no dog"),
        ("a cat", "the cat", "a dog", "the dog"),
    ]
    assert rows.tolist() == [[1, 6], [1, 6], [2, 5], [2, 5]]
    assert text.embeddings() is rows


def test_without_sets_the_vocabularys_own_prompts_count():
    text = ClassText(Letters(), dict(names=NAMES, templates="my {}"), templates="a {}")
    text.embeddings()
    text.set_vocabulary(["sky"])
    text.embeddings()
    assert text.encoder.asked == [("my cat", "my dog"), ("a sky",)]


def test_the_same_classes_again_cost_nothing_and_other_weights_count():
    text = ClassText(Letters(), NAMES, prompt_sets=("no {}",))
    text.embeddings()
    text.set_vocabulary(NAMES)
    text.embeddings()
    assert len(text.encoder.asked) == 1
    text.load_state_dict({"encoder.shift": torch.tensor(5.0)})
    assert text.embeddings()[0].tolist() == [6, 11]


def test_what_contradicts_is_refused():
    with pytest.raises(ValueError, match="expected a list of prompts, got 'a {}'"):
        ClassText(Letters(), NAMES, prompt_sets="a {}")
    with pytest.raises(ValueError, match="expected a list of prompts, got ()"):
        ClassText(Letters(), NAMES, prompt_sets=())
    with pytest.raises(ValueError, match="one row a class, not one a prompt set"):
        ClassText(text_embeddings="x.npy", prompt_sets=("a {}",))
    with pytest.raises(ValueError, match="brings templates, which this model does not read"):
        ClassText(Letters(), dict(names=NAMES, templates="my {}"), prompt_sets=("a {}",))
