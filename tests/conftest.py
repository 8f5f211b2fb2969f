"""What all tests share: no test touches the user's cache or another test's registry scope."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from mmengine.registry import DefaultScope

import mmclipdis  # noqa: F401  (first: mmseg and mmdet need what it puts in place of mmcv._ext)


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


@contextmanager
def _scopes_kept() -> Iterator[None]:
    scopes = DefaultScope._instance_dict
    before = dict(scopes)
    yield
    scopes.clear()
    scopes.update(before)


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
