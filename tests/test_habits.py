"""What is written twice agrees: versions of the hooks and of the package, Pythons tried."""

from __future__ import annotations

import re

import pytest
import yaml

from mmclipdis.version import __version__
from tests.paths import ROOT

HOOKS = {
    hook["id"]: hook
    for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repo["hooks"]
}
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
SETUP = (ROOT / "setup.py").read_text()


def pinned(package: str) -> str:
    """``package==version`` as constraints.txt has it."""
    (line,) = re.findall(rf"(?m)^{package}==\S+$", (ROOT / "constraints.txt").read_text())
    return line


@pytest.mark.parametrize("hook", ["ruff-check", "ruff-format"])
def test_the_hooks_run_ruff_at_the_version_of_the_constraints(hook):
    assert HOOKS[hook]["additional_dependencies"] == [pinned("ruff")]


def test_the_hook_runs_the_mypy_that_make_installs_at_the_version_of_the_constraints():
    assert pinned("mypy")
    venv = re.search(r"(?m)^VENV := (\S+)$", (ROOT / "Makefile").read_text())[1]
    assert HOOKS["mypy"]["entry"] == f"{venv}/bin/mypy"


def test_every_hook_that_is_installed_is_pinned():
    tools = [hook["additional_dependencies"][0] for hook in HOOKS.values() if hook["id"] != "mypy"]
    assert tools
    assert [tool for tool in tools if "==" not in tool] == []


def test_continuous_integration_tries_the_pythons_that_setup_promises():
    promised = re.findall(r"Python :: (3\.\d+)", SETUP)
    assert promised
    assert f'python_requires=">={promised[0]}"' in SETUP
    assert WORKFLOW["jobs"]["fast"]["strategy"]["matrix"]["python"] == promised
    for job in ("full", "newest"):
        python = WORKFLOW["jobs"][job]["strategy"]["matrix"]["python"]
        assert python == [promised[0], promised[-1]]


def test_continuous_integration_may_only_read():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert [job for job in WORKFLOW["jobs"].values() if "permissions" in job] == []


def test_the_version_to_cite_is_that_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert f'license="{citation["license"]}"' in SETUP
