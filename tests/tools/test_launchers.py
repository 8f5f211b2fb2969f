"""Launchers and make hand their arguments on, and explain themselves when some are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.paths import ROOT

TOOLS = ROOT / "tools"


def launch(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": "echo", **variables}
    command = ["bash", str(TOOLS / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "script", ["dist_train.sh", "dist_test.sh", "slurm_train.sh", "slurm_test.sh"]
)
def test_usage_is_shown_when_arguments_are_missing(script: str) -> None:
    result = launch(script, "one")
    assert result.returncode == 2
    assert f"usage: tools/{script}" in result.stderr


def test_dist_train_hands_options_on_unsplit() -> None:
    result = launch("dist_train.sh", "c.py", "3", "--cfg-options", "a=b c", PORT="123", NNODES="2")
    line = result.stdout.strip()
    assert line.startswith("-m torch.distributed.run --nnodes=2 --node_rank=0")
    assert "--master_port=123 --nproc_per_node=3" in line
    assert line.endswith("tools/train.py c.py --launcher pytorch --cfg-options a=b c")


def test_runs_on_one_machine_meet_at_a_free_port_unless_one_is_chosen() -> None:
    unset = {"PORT": "", "MASTER_ADDR": "", "NNODES": ""}
    line = launch("dist_train.sh", "c.py", "2", **unset).stdout
    assert line.startswith("-m torch.distributed.run --standalone --nproc_per_node=2 ")
    assert "port" not in line
    line = launch("dist_train.sh", "c.py", "2", **{**unset, "PORT": "123"}).stdout
    assert "--nnodes=1 --node_rank=0 --master_addr=127.0.0.1 --master_port=123 " in line
    line = launch("dist_test.sh", "c.py", "", "2", **{**unset, "NNODES": "2"}).stdout
    assert "--nnodes=2 " in line and "--master_port=29500 " in line and "standalone" not in line


def test_launchers_know_their_folder_and_add_no_other_to_the_path(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$PYTHONPATH"\n')
    python.chmod(0o755)
    (tmp_path / "tools").mkdir()  # CDPATH would lead there
    link = tmp_path / "launcher tools"
    link.symlink_to(TOOLS)
    for before, expected in (("", [str(ROOT)]), ("/mine", [str(ROOT), "/mine"])):
        environment = {**os.environ, "PYTHON": str(python), "CDPATH": str(tmp_path)}
        environment["PYTHONPATH"] = before
        for script in ("tools/dist_train.sh", str(link / "dist_train.sh")):
            done = subprocess.run(
                ["bash", script, "c.py", "2"],
                env=environment,
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
            )
            folders = done.stdout.strip().split(":")
            assert [str(Path(folder).resolve()) for folder in folders] == expected, done.stderr


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("dist_train.sh", ["c.py", "2"]), ("slurm_train.sh", ["part", "job", "c.py"])],
)
def test_a_signal_to_the_launcher_reaches_what_it_started(
    tmp_path: Path, script: str, arguments: list[str]
) -> None:
    for name in ("python", "srun"):
        (tmp_path / name).write_text("#!/bin/sh\necho $$\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", str(TOOLS / script), *arguments],
        env={**os.environ, "PYTHON": "python", "PATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate(timeout=60)
    assert int(output) == process.pid  # it took the launcher's place


def test_dist_test_with_and_without_a_checkpoint() -> None:
    with_one = launch("dist_test.sh", "c.py", "w.pth", "2", "--tta").stdout.strip()
    assert with_one.endswith("tools/test.py c.py w.pth --launcher pytorch --tta")
    without = launch("dist_test.sh", "c.py", "", "2").stdout.strip()
    assert without.endswith("tools/test.py c.py --launcher pytorch")


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        (
            "slurm_train.sh",
            ("part", "job", "c.py", "--amp"),
            "train.py c.py --launcher slurm --amp",
        ),
        ("slurm_test.sh", ("part", "job", "c.py", "w.pth"), "test.py c.py w.pth --launcher slurm"),
        ("slurm_test.sh", ("part", "job", "c.py", ""), "test.py c.py --launcher slurm"),
    ],
)
def test_slurm_scripts_call_srun(
    script: str, arguments: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\necho "$@"\n')
    srun.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    line = launch(script, *arguments, GPUS="16", SRUN_ARGS="-x bad", PATH=path).stdout.strip()
    assert line.startswith("-p part --job-name=job --gres=gpu:8 --ntasks=16 --ntasks-per-node=8")
    assert "-x bad echo -u" in line
    assert line.endswith(expected)
    (tmp_path / "ab").touch()
    command = ["bash", str(TOOLS / script), *arguments]
    environment = {**os.environ, "PATH": path, "PYTHON": "echo", "SRUN_ARGS": "-w a[a-c] *"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert "-w a[a-c] * echo -u" in done.stdout  # node names, no pattern of files


FAKE_PYTHON = """#!/bin/sh
echo "$@" >> log
case "$*" in
  "-m venv .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python
    if [ -e no_ensurepip ]; then exit 1; fi; touch .venv/pip ;;
  "-m pip --version") test -e .venv/pip ;;
  *install*) echo "$PIP_CONSTRAINT $PIP_BUILD_CONSTRAINT" >> log ;;
esac
"""


def test_make_repairs_a_half_made_environment_and_keeps_a_whole_one(tmp_path: Path) -> None:
    shutil.copy(TOOLS.parent / "Makefile", tmp_path)
    for name in ("constraints.txt", "setup.py", "no_ensurepip"):
        (tmp_path / name).touch()
    (tmp_path / "python").write_text(FAKE_PYTHON)
    (tmp_path / "python").chmod(0o755)

    def make() -> tuple[int, str, str]:
        """Return code, output and what Python was called for."""
        (tmp_path / "log").write_text("")
        command = ["make", "install", "PYTHON=./python"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, (tmp_path / "log").read_text()

    assert make()[0] != 0 and (tmp_path / ".venv" / "bin" / "python").exists()
    (tmp_path / "no_ensurepip").unlink()
    code, output, log = make()
    assert code == 0 and "-m venv .venv" in log and "-c constraints.txt" in log
    assert "constraints.txt constraints.txt" in log  # for what packages are built with, too
    assert "is not used" not in output
    code, output, log = make()
    assert code == 0 and log == "" and "PYTHON=./python is not used" in output
    os.utime(tmp_path / "setup.py", (2**33, 2**33))
    assert "-m venv" not in make()[2]
