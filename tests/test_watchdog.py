"""Whatever a process is at, it ends within seconds of SIGTERM or Ctrl-C, and of the end of a stage's time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from retinue.cli import main
from tests.stages.runs import orders, words

MOST_SECONDS = 5.0

# PyDLL keeps Python's own lock while C runs: no thread and no handler of the process can do anything
DEAF = """
import ctypes, sys
from retinue import cli

def deaf(words, screen):
    print("deaf", flush=True)
    {call}

cli._command = deaf
sys.exit(cli.main(["run"]))
"""
CALLS = {
    "C holds the lock of Python": "ctypes.PyDLL(None).sleep(60)",
    "C without the lock": "ctypes.CDLL(None).sleep(60); ctypes.CDLL(None).sleep(60)",
    "Python": "import time; time.sleep(60)",
}


def ended(process: subprocess.Popen[str], number: int) -> float:
    """Seconds from the signal to the end."""
    os.kill(process.pid, number)
    began = time.monotonic()
    process.wait(20)
    return time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", CALLS)
def test_a_signal_ends_the_command_wherever_it_stands(where: str, number: int) -> None:
    command = [sys.executable, "-c", DEAF.format(call=CALLS[where])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "deaf\n"
        assert ended(process, number) < MOST_SECONDS
        assert (
            process.stderr.read()
            == "stopped; finished stages are kept, the same command goes on from there\n"
        )
        assert process.returncode in (130, -signal.SIGKILL)


def test_a_polars_query_is_left_at_once(tmp_path: Path) -> None:
    query = "import polars as pl; pl.select(pl.int_range(0, 4_000_000_000).sin().sort().sum())"
    command = [sys.executable, "-c", DEAF.format(call=query)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "deaf\n"
        time.sleep(0.5)
        assert ended(process, signal.SIGTERM) < MOST_SECONDS


def test_an_orderly_end_needs_no_watchdog_and_leaves_none() -> None:
    program = (
        "import os, sys; from retinue import cli; cli._command = lambda words, screen: 0; print(cli.main(['run']));"
        "from pathlib import Path; print(len(Path(f'/proc/self/task/{os.getpid()}/children').read_text().split()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("0\n0\n", "")


def test_a_stage_beyond_its_time_is_ended_with_one_line_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    orders().write_parquet(tmp_path / "orders.parquet")
    command = [
        "features",
        *words(tmp_path / "orders.parquet", tmp_path / "out")[1:],
        "run.stage_timeout_minutes=0.05",
    ]

    def slow(*_: object, **__: object) -> None:
        time.sleep(30)

    assert main(["prepare", *command[1:-1]]) == 0
    with monkeypatch.context() as patched:
        patched.setattr("retinue.pipeline.build", slow)
        began = time.monotonic()
        assert main(command) == 1
        assert time.monotonic() - began < 20
    shown = capsys.readouterr().err.splitlines()
    line = next(line for line in shown if line.startswith("error"))
    assert line.startswith(
        "error features: took longer than run.stage_timeout_minutes=0.05 and was ended at: "
    )
    assert "Traceback" not in "".join(shown)
    assert main([*command[:-1], "run.stage_timeout_minutes=10"]) == 0
    assert "prepare: unchanged, kept" in capsys.readouterr().err
    assert pl.read_parquet(tmp_path / "out" / "features.parquet").height > 0


DEAF_STAGE = """
import ctypes
from retinue.watchdog import time_limit

with time_limit(1.0, "error forecast: ended at: {at}") as limit:
    limit.at("fold 3, 40%")
    ctypes.PyDLL(None).sleep(60)
"""


def test_a_stage_that_is_deaf_is_killed_and_named() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEAF_STAGE], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode < 0
    assert done.stderr == "error forecast: ended at: fold 3, 40%\n"


def test_the_lock_of_a_killed_run_is_taken_over(tmp_path: Path) -> None:
    orders().write_parquet(tmp_path / "orders.parquet")
    command = [
        sys.executable,
        "-m",
        "retinue.cli",
        "features",
        *words(tmp_path / "orders.parquet", tmp_path / "out")[1:],
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        lock = tmp_path / "out" / ".lock"
        deadline = time.monotonic() + 60
        while (
            not (lock.exists() and (tmp_path / "out" / "config.yaml").exists())
            and time.monotonic() < deadline
        ):
            time.sleep(0.02)
        first.kill()
    assert first.returncode == -signal.SIGKILL
    assert main(command[3:]) == 0
