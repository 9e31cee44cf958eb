"""Commands as processes that share runs out under torchrun, or are killed, find what one process finds."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stn.experiments import read
from stn.experiments.__main__ import main

SMOKE = ["--schedule", "smoke", "--device", "cpu"]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


@pytest.fixture(autouse=True)
def as_users_run_it(monkeypatch):
    """Processes of their own do not interpret the kernels, as conftest.py asks for; and find this clone."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delenv("STN_DATA", raising=False)
    root = Path(__file__).parents[2]
    paths = [str(root), str(root / "kernels"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def finals(folder):
    names = sorted(path.name for path in folder.glob("*.json"))
    return {name: result["final"] for name, result in zip(names, read(folder), strict=True)}


def test_torchrun_shares_the_runs_out(tmp_path):
    words = ["table1", *SMOKE, "--sets", "R", "--models", "fcn", "st-fcn-aff", "--seeds", "0", "1"]
    main([*words, "--output", str(tmp_path / "one")])
    main([*words[:-1], "--output", str(tmp_path / "two")])  # half of them are there already
    command = [sys.executable, "-m", *TORCHRUN, "stn.experiments", *words]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "two")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(finals(tmp_path / "one")) == 4
    assert finals(tmp_path / "two") == finals(tmp_path / "one")
    assert done.stdout.count("2 of 4 runs are in") == done.stdout.count("To see them: ") == 1
    assert "2/2" in done.stderr  # the first process's share: one run, two parts
    assert "4/4" not in done.stderr


def test_jobs_do_not_go_with_torchrun(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "here")
    with pytest.raises(SystemExit) as left:
        main(["table1", *SMOKE, "--jobs", "2", "--output", str(tmp_path)])
    assert left.value.code == 2
    assert "argument --jobs: 1 under torchrun, whose processes are the jobs" in capsys.readouterr().err


def killed_after_a_checkpoint(command, folder):
    """Whether it was killed with a checkpoint and without its result, and not too late."""
    checkpoints = folder / "checkpoints"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not list(checkpoints.glob("*.pt")):
            time.sleep(0.001)
    finally:
        process.kill()
    assert process.wait() in (0, -signal.SIGKILL)
    return bool(list(checkpoints.glob("*.pt"))) and not list(folder.glob("*.json"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_command_that_is_killed_goes_on_with_the_same_figures(tmp_path):
    words = ["table1", *SMOKE, "--sets", "R", "--models", "fcn", "--seeds", "0"]
    main([*words, "--output", str(tmp_path / "whole")])
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        command = [sys.executable, "-m", "stn.experiments", *words, "--output", str(folder)]
        if killed_after_a_checkpoint(command, folder):
            break
    else:
        pytest.fail("each of 20 commands was finished before it could be killed")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "0/2" not in done.stderr  # it goes on, and does not start again
    assert finals(folder) == finals(tmp_path / "whole")
    assert not list((folder / "checkpoints").glob("*.pt"))
