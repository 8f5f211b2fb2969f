"""Weights that never came are loaded, refused or told; those that came in any way are taken."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import BaseModel, BaseModule, ExponentialMovingAverage
from mmengine.runner import load_checkpoint, load_state_dict
from torch import nn

from mmclipdis.engine import random_weights
from mmclipdis.engine.random_weights import (
    NO_SOURCE,
    check_weights,
    is_random,
    redraw,
    take_as_meant,
    training_begins,
    watch_weights,
)
from mmclipdis.models.unsaved import leave_out_of_checkpoints
from tests.ranks import run_ranks


class Part(BaseModule):
    """A part of which a config names the weights."""

    def __init__(self, init_cfg: Any = NO_SOURCE, must_train: bool = False) -> None:
        super().__init__(init_cfg=init_cfg or None)
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
        taken_away = init_cfg is None
        entries = [self.inner[0]]
        watch_weights(self, entries=entries, taken_away=taken_away, must_train=must_train)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two channels of three."""
        out: torch.Tensor = self.inner(x)
        return out


class Model(BaseModel):
    """A part and something else."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part, self.other = part, nn.Linear(2, 1)

    def forward(self, x: torch.Tensor, *_: Any, mode: str = "predict", **__: Any) -> torch.Tensor:
        """One channel."""
        if mode == "predict":
            check_weights(self)
        else:
            training_begins(self)
        out: torch.Tensor = self.other(self.part(x))
        return out


X = torch.ones(2, 3)


@pytest.fixture
def source(tmp_path: Path) -> dict[str, str]:
    """Weights of a part, in a file."""
    torch.manual_seed(5)
    torch.save(Part().state_dict(), tmp_path / "part.pth")
    return {"type": "Pretrained", "checkpoint": str(tmp_path / "part.pth")}


def of(source: dict[str, str]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(source["checkpoint"], weights_only=True)
    return found


def holds(part: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    own = part.state_dict()
    return all(torch.equal(own[name].to(value), value) for name, value in state.items())


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model.eval()(X),
        lambda model: model.train()(X, mode="loss"),
        lambda model: torch.no_grad()(model)(X),
        lambda model: torch.inference_mode()(model)(X),
        lambda model: model.part.inner(X),
        lambda model: copy.deepcopy(model)(X) is None or model(X),
        lambda model: torch.autocast("cpu", torch.bfloat16)(model)(X),
    ],
    ids=["eval", "train", "no_grad", "inference", "inside", "copy", "autocast"],
)
def test_the_first_use_loads_what_init_cfg_names_and_says_so_once(
    source: dict[str, str], use: Callable[[nn.Module], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(random_weights, "print_log", lambda text, **_: lines.append(text))
    model = Model(Part(source))
    use(model)
    assert holds(model.part, of(source))
    said = len(lines)
    use(model)
    assert lines[0] == f"Part: loaded {source['checkpoint']!r} at its first use"
    assert len(lines) - said <= 1  # a copy of the loaded one has nothing to load
    assert all(p.requires_grad and not p.is_inference() for p in model.parameters())


def test_weights_are_loaded_in_the_type_of_the_part(source: dict[str, str]) -> None:
    model = Model(Part(source)).half()
    with torch.no_grad():
        model(X.half())
    assert model.part.inner[0].weight.dtype == torch.float16
    assert torch.equal(model.part.inner[0].weight, of(source)["inner.0.weight"].half())


def by_file(model: Model, state: dict[str, Any], folder: Path, start: str = "") -> None:
    whole = {f"{start}{name}": value for name, value in state.items()}
    torch.save({"state_dict": whole, "meta": {}}, folder / "model.pth")
    load_checkpoint(model, str(folder / "model.pth"))


def by_hand(model: Model, state: dict[str, Any], folder: Path) -> None:
    for name, parameter in model.named_parameters():
        parameter.data.copy_(state[name])


def assigned(model: Model, state: dict[str, Any], folder: Path) -> None:
    model.load_state_dict({k: v.clone() for k, v in state.items()}, assign=True)


WAYS: dict[str, Callable[[Model, dict[str, Any], Path], Any]] = {
    "of the model": lambda model, state, _: model.load_state_dict(state),
    "of the model, mmengine's": lambda model, state, _: load_state_dict(model, OrderedDict(state)),
    "a file": by_file,
    "a file of DDP": lambda model, state, folder: by_file(model, state, folder, "module."),
    "of the part": lambda model, state, _: model.part.load_state_dict(
        {k.removeprefix("part."): v for k, v in state.items() if k.startswith("part.")}
    ),
    "of what is in it": lambda model, state, _: model.part.inner.load_state_dict(
        {k.removeprefix("part.inner."): v for k, v in state.items() if "inner" in k}
    ),
    "assigned": assigned,
    "by hand": by_hand,
}


@pytest.mark.parametrize("again", [None, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_weights_that_came_stay_as_they_are(
    way: Callable[..., Any],
    again: Callable[[Model], Model] | None,
    source: dict[str, str],
    tmp_path: Path,
) -> None:
    given = Model(Part()).state_dict()
    wanted = {k.removeprefix("part."): v for k, v in given.items() if k.startswith("part.")}
    for part in (Part(source), Part(None), Part(), Part(must_train=True)):
        model = Model(part)
        if again is not None:
            model = again(model)
        way(model, given, tmp_path)
        model.eval()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model(X)
            copy.deepcopy(model)(X)
        assert holds(model.part, wanted)


def test_the_weights_of_a_model_that_is_the_same_as_before_came_too() -> None:
    model = Model(Part(None))
    model.load_state_dict(copy.deepcopy(model.state_dict()))
    model.eval()(X)


REFUSED = {
    "nothing": lambda model, state: None,
    "other parts only": lambda model, state: load_state_dict(
        model, OrderedDict((k, v) for k, v in state.items() if "part" not in k)
    ),
    "other shapes": lambda model, state: load_state_dict(
        model, OrderedDict((k, v[..., :1]) for k, v in state.items())
    ),
    "its own, left out of checkpoints": lambda model, state: (
        leave_out_of_checkpoints(model, ("part",)),
        model.load_state_dict(model.state_dict(), strict=True),
    ),
}


@pytest.mark.parametrize("way", REFUSED.values(), ids=list(REFUSED))
def test_a_part_whose_source_was_taken_away_stops_where_nothing_came(
    way: Callable[..., Any],
) -> None:
    model = Model(Part(None)).eval()
    way(model, Model(Part()).state_dict())
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"weights of Part are random: its init_cfg is None"):
            model(X)
    trained = Model(Part(must_train=True)).eval()
    way(trained, Model(Part()).state_dict())
    with pytest.raises(RuntimeError, match=r"no weights for part \(Part\) of Model: .* checkpoint"):
        trained(X)


def test_a_part_of_which_a_checkpoint_lacks_something_is_made_whole_or_stops(
    source: dict[str, str],
) -> None:
    state = OrderedDict(Model(Part()).state_dict())
    del state["part.inner.2.weight"], state["part.inner.1.bias"]
    whole = Model(Part(source)).eval()
    load_state_dict(whole, state)
    whole(X)
    assert torch.equal(whole.part.inner[0].weight, state["part.inner.0.weight"])
    assert torch.equal(whole.part.inner[2].weight, of(source)["inner.2.weight"])
    for init_cfg in (None, NO_SOURCE):
        model = Model(Part(init_cfg)).eval()
        load_state_dict(model, state)
        with pytest.raises(RuntimeError, match=r"checkpoint has no inner.1.bias .* 2 such of 6\. "):
            model(X)
    head = Model(Part(must_train=True)).eval()
    load_state_dict(head, state)
    with pytest.raises(RuntimeError, match=r"part \(Part; the checkpoint has no inner.1.bias of"):
        head(X)


def test_a_training_from_scratch_is_nobodys_business() -> None:
    for part in (Part(None), Part(), Part(must_train=True)):
        model = Model(part).train()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model(X, mode="loss").sum().backward()
            model.eval()(X)
    frozen = Model(Part(None)).train()
    frozen.part.requires_grad_(False)
    with pytest.raises(RuntimeError, match="are random"):
        frozen(X, mode="loss")


def test_a_few_tuned_weights_are_no_training_from_scratch() -> None:
    def tuned(init_cfg: Any) -> Model:
        model = Model(Part(init_cfg)).train()
        model.part.requires_grad_(False)
        model.part.inner[2].bias.requires_grad_(True)
        return model

    with pytest.raises(RuntimeError, match="weights of Part are random"):
        tuned(None)(X, mode="loss")
    with pytest.warns(UserWarning, match="Part uses random weights"):
        tuned(NO_SOURCE)(X, mode="loss")


def test_an_export_before_any_weights_says_what_to_do(source: dict[str, str]) -> None:
    part = Part(source).eval()
    with pytest.raises(RuntimeError, match="Part is exported before its weights came: call model"):
        torch.export.export(part, (X,), strict=False)
    part.init_weights()
    exported = torch.export.export(part, (X,), strict=False).module()
    torch.testing.assert_close(exported(X), part(X))


def test_random_weights_that_nobody_named_a_source_for_are_told_once() -> None:
    model = Model(Part()).eval()
    with pytest.warns(UserWarning, match=r"Part uses random weights: nothing was loaded, .*type="):
        model(X)
    meant = Model(Part()).eval()
    take_as_meant(meant)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(X), meant(X)


def test_an_average_of_trained_weights_is_trained() -> None:
    model = Model(Part(must_train=True))
    average = ExponentialMovingAverage(model, momentum=0.5)
    with pytest.raises(RuntimeError, match="no weights for part"):
        average(X)
    model(X, mode="loss").sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    average.update_parameters(model)  # the first is a copy
    average(X)


def test_weights_that_init_weights_draws_are_as_random() -> None:
    model = Model(Part(must_train=True))
    for layer in model.part.inner:
        layer.reset_parameters()
    redraw(model)
    assert is_random(model.part)
    with pytest.raises(RuntimeError, match="no weights for part"):
        model(X)


def test_a_source_of_the_model_is_one_of_its_trained_parts(tmp_path: Path) -> None:
    saved = Model(Part())
    torch.save(saved.state_dict(), tmp_path / "model.pth")
    model = Model(Part(must_train=True))
    model.init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "model.pth")}
    model.eval()(X)
    assert holds(model, saved.state_dict())
    other = Model(Part(must_train=True))
    other.init_cfg = model.init_cfg
    other.load_state_dict(Model(Part()).state_dict())
    kept = copy.deepcopy(other.state_dict())
    other.eval()(X)  # a checkpoint has come: the start of its training is not wanted
    assert holds(other, kept)
    plain = Model(Part())
    plain.init_cfg = model.init_cfg
    plain.eval()(X)
    assert holds(plain, saved.state_dict())


def test_a_part_that_must_be_trained_loads_its_own_source_at_any_use(
    source: dict[str, str],
) -> None:
    for use in (lambda model: model(X), lambda model: model.part(X)):
        model = Model(Part(source, must_train=True)).eval()
        use(model)
        assert holds(model.part, of(source))


def test_what_a_hand_has_set_of_a_part_stays_and_the_rest_is_loaded(
    source: dict[str, str],
) -> None:
    mine = nn.Linear(4, 2)

    def set_some(part: Part) -> Model:
        part.inner[2].load_state_dict(mine.state_dict())  # a load that only this module sees
        return Model(part).eval()

    model = set_some(Part(source))
    model(X)
    assert holds(model.part, {**of(source), **mine.state_dict(prefix="inner.2.")})
    with pytest.raises(RuntimeError, match="weights of Part are random"):
        set_some(Part(None))(X)
    with pytest.warns(UserWarning, match="Part uses random weights"):
        set_some(Part())(X)


def test_a_trace_counts_and_loads_nothing_and_says_so(source: dict[str, str]) -> None:
    for part in (Part(source), Part(None)):
        before = copy.deepcopy(part.state_dict())
        with pytest.warns(UserWarning, match="Part is traced with random weights: enough to"):
            torch.jit.trace(part.eval(), X, check_trace=False)
        assert holds(part, before)
    loaded = Part(None).eval()
    loaded.load_state_dict(of(source))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        torch.jit.trace(loaded, X, check_trace=False)
    with pytest.raises(RuntimeError, match="are random"):
        part(X)


def loads_in_a_group(rank: int, source: dict[str, str], of_model: bool) -> bool:
    torch.manual_seed(rank)
    model = Model(Part() if of_model else Part(source))
    if of_model:
        model.init_cfg = source
    wrapped = nn.parallel.DistributedDataParallel(model)  # hands out the weights of rank 0
    wrapped.eval()
    with torch.no_grad():
        wrapped(X)
    return holds(model if of_model else model.part, of(source))


@pytest.mark.parametrize("of_model", [False, True])
def test_every_process_of_a_group_loads(
    source: dict[str, str], tmp_path: Path, of_model: bool
) -> None:
    if of_model:
        torch.save(Model(Part()).state_dict(), source["checkpoint"])
    assert run_ranks(loads_in_a_group, 2, source, of_model) == [True, True]
