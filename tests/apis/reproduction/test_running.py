"""Cells are run once, kept by what they depend on, and one that fails stops none of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmclipdis.apis.reproduction import kept, running
from mmclipdis.apis.reproduction.cells import Cell
from mmclipdis.apis.reproduction.needs import Needs
from mmclipdis.apis.reproduction.places import Places
from mmclipdis.apis.reproduction.running import Runner, file_name
from tests.apis.reproduction.cells import MODEL, TRAINING, Pretended, cell

HERE = Needs(())


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights are fetched, and the code has a commit that a test can change."""
    monkeypatch.setattr(running, "put_weights", lambda *_: None)
    commit(monkeypatch, "abc")
    monkeypatch.chdir(tmp_path)


def commit(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in (kept, running):
        monkeypatch.setattr(module, "code_state", lambda: name)


def run(pool: Pretended, *cells: Cell, needs: Needs = HERE, **more: Any) -> list[running.Outcome]:
    runner = Runner(Places(work=Path("work")), pool, say=lambda _: None, **more)
    return runner.run(cells, {one.name: needs for one in cells})


def test_a_cell_is_a_test_by_its_own_config_with_the_hook_that_measures() -> None:
    pool = Pretended()
    (outcome,) = run(pool, cell("a row", "VOC20", options=("model.test_cfg.window_batch_size=3",)))
    ((tool, words),) = pool.started
    path = Path("work/toy/one/a-row/VOC20") / f"{MODEL}.py"
    assert (tool, words) == ("test", [str(path), "--work-dir", str(path.parent / "run")])
    found: dict[str, Any] = {}
    exec(path.read_text(), found)
    assert found["model"]["test_cfg"]["window_batch_size"] == 3
    assert found["custom_hooks"][-1] == {
        "type": "CostHook", "path": str(path.parent / "measured.json")
    }  # fmt: skip
    assert outcome.result is not None and outcome.result.metrics["mIoU"] == 80.85
    assert outcome.result.commit == "abc"


def test_what_is_done_is_kept_and_what_depends_on_other_words_is_done_again() -> None:
    pool, one = Pretended(), cell("a row", "VOC20")
    assert run(pool, one) == run(pool, one) and len(pool.started) == 1
    run(pool, cell("a row", "VOC20", options=("model.test_cfg.window_batch_size=3",)))
    assert len(pool.started) == 2


def test_another_commit_is_kept_unless_it_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool, one = Pretended(), cell("a row", "VOC20")
    run(pool, one)
    commit(monkeypatch, "def")
    (outcome,) = run(pool, one)
    assert outcome.result is not None and outcome.result.commit == "abc" and len(pool.started) == 1
    (outcome,) = run(pool, one, again=True)
    assert outcome.result is not None and outcome.result.commit == "def" and len(pool.started) == 2
    run(pool, one, again=True)  # it is of this commit now
    assert len(pool.started) == 2


def test_a_cell_that_fails_or_was_interrupted_is_run_again_and_stops_no_other() -> None:
    pool = Pretended(problems=["no CUDA", None])
    cells = cell("a row", "VOC20"), cell("a row", "ADE20K")
    failed, done = run(pool, *cells)
    assert failed.result is None and done.result is not None
    assert failed.problem == "no CUDA (work/toy/one/a-row/VOC20/log.txt)"
    folder = Path("work/toy/one/a-row/VOC20")
    (folder / "measured.json").write_text(json.dumps({"metrics": {"mIoU": 1.0}}))  # half a run
    again, _ = run(pool, *cells)
    assert again.result is not None and again.result.metrics["mIoU"] == 80.85
    assert len(pool.started) == 3


def test_an_interruption_ends_the_run_and_leaves_no_result() -> None:
    class Interrupted(Pretended):
        def run(self, *_: Any) -> str | None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(), cell("a row", "VOC20"))
    assert not Path("work/toy/one/a-row/VOC20/done.json").exists()
    pool = Pretended()
    (outcome,) = run(pool, cell("a row", "VOC20"))
    assert outcome.result is not None and len(pool.started) == 1


def test_a_training_is_run_once_for_all_that_test_it_and_goes_on_where_it_ended() -> None:
    late = ("load_from={checkpoint}",)
    cells = (
        cell("a row", "VOC20", training=TRAINING, options=late),
        cell("a row", "ADE20K", training=TRAINING, checkpoint=True),
    )
    pool = Pretended(problems=["killed"])
    needs = Needs((), trains=True)
    first = run(pool, *cells, needs=needs)
    assert [o.problem.startswith("not trained: killed (") for o in first] == [True, True]
    assert [tool for tool, _ in pool.started] == ["train"]
    begun = Path("work/trainings")
    (folder,) = begun.iterdir()
    (folder / "run").mkdir()
    torch.save({"state_dict": {"a": torch.zeros(1)}}, folder / "run" / "iter_1.pth")
    second = run(pool, *cells, needs=needs)
    assert all(outcome.result is not None for outcome in second)
    assert [tool for tool, _ in pool.started] == ["train", "train", "test", "test"]
    trained = str(folder / "run" / "iter_2.pth")
    assert pool.started[1][1][-1] == "--resume"
    assert pool.started[2][1][-2:] == ["--cfg-options", f"load_from={trained}"]
    assert pool.started[3][1][1] == trained
    run(pool, *cells, needs=needs)
    assert len(pool.started) == 4


def test_a_checkpoint_that_is_there_is_tested_without_a_training() -> None:
    Path("given.pth").write_bytes(b"weights")
    pool = Pretended()
    needs = Needs((), checkpoint="given.pth")
    run(pool, cell("a row", "VOC20", training=TRAINING, checkpoint=True), needs=needs)
    ((tool, words),) = pool.started
    assert tool == "test" and words[1] == "given.pth"


def test_what_cannot_be_downloaded_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    def refused(*_: Any) -> None:
        tried.append(1)
        raise FileNotFoundError("cannot download")

    monkeypatch.setattr(running, "put_weights", refused)
    outcomes = run(Pretended(), cell("a row", "VOC20"), cell("a row", "ADE20K"))
    assert [o.problem for o in outcomes] == ["cannot download"] * 2 and len(tried) == 1


def test_a_test_without_a_metric_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pretended()
    monkeypatch.setattr(pool, "run", lambda *_: None)
    (outcome,) = run(pool, cell("a row", "VOC20"))
    assert outcome.problem.startswith("the test ended without a metric (")


def test_titles_become_names_of_folders() -> None:
    assert file_name("SCLIP, B/16 (its own)") == "SCLIP-B-16-its-own"
    assert file_name("..") == "cell"
