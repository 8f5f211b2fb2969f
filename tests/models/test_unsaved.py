"""Parts that checkpoints leave out, also of a model that was pickled."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from mmclipdis.engine.random_weights import before_use, watch_weights
from mmclipdis.models.unsaved import leave_out_of_checkpoints


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.learns, self.none = nn.Linear(2, 2), nn.Linear(2, 1), None
        leave_out_of_checkpoints(self, ("frozen", "none"))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_leave_out_their_own_parts(again) -> None:
    model = Model()
    copied = again(model)
    assert set(copied.state_dict()) == {"learns.weight", "learns.bias"}
    kept = copied.frozen.weight.clone()
    state = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    copied.load_state_dict(state, strict=True)
    assert torch.equal(copied.frozen.weight, kept)
    assert copied.learns.weight.eq(1).all() and not model.learns.weight.eq(1).all()


def test_a_part_that_is_left_out_asks_for_a_source_and_for_no_checkpoint() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Sequential(nn.Linear(2, 2))
            watch_weights(self.frozen[0], taken_away=True)
            leave_out_of_checkpoints(self, ("frozen",))

    model = Holder().eval()
    model.load_state_dict(model.state_dict())
    line = (
        r"Linear are random: its init_cfg is None, .* leave out the frozen of Holder\. Name a sour"
    )
    with pytest.raises(RuntimeError, match=line) as found:
        before_use(model.frozen[0])
    assert "Give a checkpoint" not in str(found.value)
