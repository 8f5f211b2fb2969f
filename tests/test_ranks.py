"""Ranks of a test: results in order, a failure at once, an end to those that hang."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from tests import ranks
from tests.ranks import group_of_one, launch, run_ranks


def meet(rank: int, number: int) -> tuple[int, int, torch.Tensor]:
    if rank == 0:
        time.sleep(0.2)  # the first to be started is the last to end
    total = torch.tensor(float(rank + number))
    dist.all_reduce(total)
    return rank, dist.get_world_size(), total


def test_results_come_in_the_order_of_the_ranks() -> None:
    assert run_ranks(meet, 3, 10) == [(rank, 3, torch.tensor(33.0)) for rank in range(3)]


def surroundings(rank: int) -> tuple[int, str | None, str | None]:
    return torch.get_num_threads(), os.environ.get("OF_THIS_TEST"), os.environ.get("OF_ANOTHER")


def test_a_rank_has_one_thread_and_the_environment_of_its_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("OF_ANOTHER", "kept by the server, were it not replaced")
        run_ranks(surroundings, 1)
    monkeypatch.setenv("OF_THIS_TEST", "yes")
    assert run_ranks(surroundings, 1) == [(1, "yes", None)]


def write_pid(folder: Path, rank: int) -> None:
    (folder / f"pid.{rank}").write_text(str(os.getpid()))


def assert_all_ended(folder: Path, ranks: int) -> None:
    pids = [int(path.read_text()) for path in folder.glob("pid.*")]
    assert len(pids) == ranks
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def fail_alone(rank: int, folder: Path, failing: int) -> None:
    write_pid(folder, rank)
    dist.barrier()
    if rank == failing:
        raise KeyError("lost share")
    dist.barrier()  # raises in its turn when the failing rank has gone


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_the_first_to_fail_is_reported_at_once_and_the_others_end(
    failing: int, tmp_path: Path
) -> None:
    with pytest.raises(ProcessRaisedException, match="KeyError: 'lost share'") as caught:
        run_ranks(fail_alone, 3, tmp_path, failing, timeout=3600)
    assert f"Process {failing} terminated" in str(caught.value)
    assert re.search(r'test_ranks\.py", line \d+, in fail_alone', str(caught.value))
    assert_all_ended(tmp_path, 3)


def raise_nothing(rank: int) -> None:
    with pytest.raises(ValueError, match="never raised"):
        pass


def test_a_failure_of_pytest_itself_is_one() -> None:
    with pytest.raises(ProcessRaisedException, match="DID NOT RAISE"):
        run_ranks(raise_nothing, 1)


def die(rank: int) -> None:
    if rank == 1:
        os._exit(7)
    time.sleep(3600)


def test_a_rank_that_dies_is_a_failure() -> None:
    with pytest.raises(ProcessExitedException, match="process 1 terminated with exit code 7"):
        run_ranks(die, 2, timeout=3600)


def hang(rank: int, folder: Path) -> None:
    write_pid(folder, rank)
    if rank != 1:
        time.sleep(3600)


def test_ranks_that_hang_are_named_and_killed(tmp_path: Path) -> None:
    run_ranks(surroundings, 1)  # the server has started and the limit is for the ranks alone
    with pytest.raises(TimeoutError, match=r"hang: ranks \[0, 2\] of 3 were still running after 5"):
        run_ranks(hang, 3, tmp_path, timeout=5)
    assert_all_ended(tmp_path, 3)


def test_a_group_of_one_ends_with_its_block() -> None:
    with group_of_one():
        assert dist.get_world_size() == 1
    assert not dist.is_initialized()


def test_a_launcher_that_hangs_ends_with_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "hang.sh").write_text("echo waiting >&2; sleep 3600 & wait")
    monkeypatch.setattr(ranks, "ROOT", tmp_path)
    with pytest.raises(TimeoutError, match=r"(?s)hang\.sh was still running after 2 s.*waiting"):
        launch("hang.sh", timeout=2)  # returns when nobody can write into its pipes: sleep, too
