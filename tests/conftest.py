"""What all tests share: no test touches the user's cache or another test's registry scope.

A test that starts a process or runs over a data set in a loop is marked ``slow``, most by what they
refer to; ``make test-fast`` leaves these out, and one that does so without the mark fails there.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.popen_forkserver import Popen as ForkServerPopen
from multiprocessing.popen_spawn_posix import Popen as SpawnPopen
from pathlib import Path
from typing import NoReturn

import mmengine.config.config
import pytest
import yapf.yapflib.yapf_api
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

import mmclipdis  # noqa: F401  (first: mmseg and mmdet need what it puts in place of mmcv._ext)
from tests.clip.text.toy_tokenizers import write_tokenizer
from tests.slow import LOOPS, is_slow

#: Bytes that a process of tests and those that it starts may take.
MEMORY = 3 * 2**30


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What ``-n auto`` means: one process for each core, fewer where memory is short."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), memory // MEMORY))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is slow; files with most of it come first, so that all processes end together."""
    for item in items:
        if is_slow(item):
            item.add_marker("slow")
    if config.getoption("dist", "no") != "no":
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish() -> None:
    """Spare the garbage collector what imports left: every data set of mmengine runs it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def marked_if_slow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run of the fast tests nothing unmarked starts a Python or loops over a data set."""
    if request.config.option.markexpr != "not slow":
        return

    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("this test starts a process or runs a loop: mark it with pytest.mark.slow")

    for name in LOOPS:
        monkeypatch.setattr(Runner, name, refuse)
    for kind in (SpawnPopen, ForkServerPopen):
        monkeypatch.setattr(kind, "__init__", refuse)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Text embeddings of the tests, and of the processes they start, go to a temporary place."""
    before = os.environ.get("MMCLIPDIS_CACHE")
    os.environ["MMCLIPDIS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["MMCLIPDIS_CACHE"]
    else:
        os.environ["MMCLIPDIS_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def unformatted_configs() -> Iterator[None]:
    """No config is laid out by yapf, which takes most of the time of a run as short as ours.

    A run writes its config four times and once into each checkpoint; mmengine's text is valid
    Python before the formatter sees it.
    """
    with pytest.MonkeyPatch.context() as patch:
        for place in (mmengine.config.config, yapf.yapflib.yapf_api):  # the fork has it from there
            patch.setattr(place, "FormatCode", lambda text, **_: (text, False), raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def unsynced_files() -> Iterator[None]:
    """No test waits for the disk: what is synced, and when, is watched by those of whole files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@contextmanager
def _scopes_kept() -> Iterator[None]:
    # mmengine puts another dict in place whenever it switches scopes: no reference to one is kept
    before = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict = before


@pytest.fixture(autouse=True)
def own_scope() -> Iterator[None]:
    """A test that works in mmdet's scope must not leave it to the next one."""
    with _scopes_kept():
        yield


@pytest.fixture(scope="module", autouse=True)
def module_scope() -> Iterator[None]:
    """Nor may what a module's fixtures set up outlive the module."""
    with _scopes_kept():
        yield


@pytest.fixture
def toy_tokenizer(tmp_path: Path) -> str:
    """File of a tokenizer of a few words, as SigLIP's text towers read one."""
    return str(write_tokenizer(tmp_path / "tokenizer.json"))
