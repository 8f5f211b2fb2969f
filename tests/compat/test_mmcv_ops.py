"""The stand-in is a real module, and a compiled ``mmcv._ext`` always wins."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path

import pytest

from mmclipdis.compat import install, mmcv_ops
from mmclipdis.compat import python as compat_python
from tests.processes import run_code

needs_lite = pytest.mark.skipif(not mmcv_ops.uses_stand_in(), reason="the full mmcv is installed")


@needs_lite
def test_stand_in_has_a_real_module_spec() -> None:
    import mmcv._ext

    spec = importlib.util.find_spec("mmcv._ext")
    assert spec is mmcv._ext.__spec__ and spec.loader is not None
    assert pkgutil.find_loader("mmcv._ext") is spec.loader


@needs_lite
def test_private_names_are_no_ops() -> None:
    import mmcv._ext

    assert not hasattr(mmcv._ext, "__path__")
    with pytest.raises(AttributeError, match="_hidden"):
        _ = mmcv._ext._hidden


def test_install_twice_adds_one_finder() -> None:
    install()
    install()
    finders = [f for f in sys.meta_path if isinstance(f, mmcv_ops.StandInFinder)]
    assert len(finders) == 1


def test_finder_answers_only_for_the_compiled_ops() -> None:
    finder = mmcv_ops.StandInFinder()
    assert finder.find_spec("mmcv.ops", None) is None
    assert finder.find_spec("torch._ext", None) is None


def test_compiled_ops_are_used_untouched(tmp_path: Path) -> None:
    """A file ``_ext.py`` on mmcv's path stands for the compiled module."""
    (tmp_path / "_ext.py").write_text(
        "origin = 'compiled'\n"
        "def __getattr__(name):\n"
        "    if name.startswith('__'):\n        raise AttributeError(name)\n"
        "    return lambda *args, **kwargs: origin\n"
    )
    result = run_code(
        f"import mmcv; mmcv.__path__.insert(0, {str(tmp_path)!r})\n"
        "import mmclipdis.compat.mmcv_ops as stand_in\n"
        "import mmcv._ext, mmcv.ops\n"
        "assert mmcv._ext.nms() == 'compiled' and not stand_in.uses_stand_in()\n"
    )
    assert result.returncode == 0, result.stderr


def test_mmseg_and_mmdet_import_and_register_in_full() -> None:
    result = run_code(
        "import mmclipdis\n"
        "import mmcv.ops, mmseg.apis, mmdet.apis\n"
        "from mmseg.utils import register_all_modules as seg\n"
        "from mmdet.utils import register_all_modules as det\n"
        "seg(init_default_scope=False); det(init_default_scope=False)\n"
        "from mmseg.registry import MODELS as S\n"
        "from mmdet.registry import MODELS as D\n"
        "for name in ('EncoderDecoder', 'UPerHead', 'MixVisionTransformer', 'Mask2FormerHead'):\n"
        "    assert S.get(name) is not None, name\n"
        "for name in ('FasterRCNN', 'DeformableDETR', 'DINO', 'FCOSHead', 'DetDataPreprocessor'):\n"
        "    assert D.get(name) is not None, name\n"
    )
    assert result.returncode == 0, result.stderr


def test_find_loader_is_restored_where_python_removed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pkgutil, "find_loader", raising=False)
    compat_python.install_find_loader()
    assert pkgutil.find_loader("json") is importlib.util.find_spec("json").loader
    assert pkgutil.find_loader("no_such_module_anywhere") is None
    with pytest.raises(ImportError, match="cannot look for"):
        pkgutil.find_loader("no_such_package.module")
