"""Ends a process that no longer answers: a small process beside it, as a signal is not heard inside a long C++ call.

The process writes lines (what it is at, and "done" at its orderly end) to the watchdog's standard input; Python itself
writes the number of each signal there as it arrives. Run as a script, this file is the watchdog.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

GRACE_SECONDS = 4.0
DONE = b"done"
STOPS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def heard_within_grace() -> Iterator[None]:
    """Within it SIGTERM and Ctrl-C end this process at the latest `GRACE_SECONDS` after they arrived."""
    with _watchdog("", "stopped; finished stages are kept, the same command goes on from there") as stdin:
        os.set_blocking(stdin, False)
        before = signal.set_wakeup_fd(stdin, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)


class TimeLimit:
    """How long a piece of work may take, and what it is at."""

    def __init__(self, seconds: float, stdin: int) -> None:
        self._ends, self._stdin = time.monotonic() + seconds, stdin

    def at(self, text: str) -> None:
        """Keeps what the work is at, for the message at its end."""
        line = " ".join(text.split()).encode()[:400] + b"\n"
        with suppress(BrokenPipeError):  # somebody ended the watchdog: the work goes on without
            os.write(self._stdin, line)

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._ends


@contextmanager
def time_limit(seconds: float, message: str) -> Iterator[TimeLimit]:
    """Within it this process gets SIGTERM once the time is up, and is killed `GRACE_SECONDS` later.

    Args:
        seconds: from now on.
        message: what is printed where the process can no longer say it; `{at}` is what it was at.
    """
    with _watchdog(str(seconds), message) as stdin:
        yield TimeLimit(seconds, stdin)


@contextmanager
def _watchdog(seconds: str, message: str) -> Iterator[int]:
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), seconds, message]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    stdin = process.stdin.fileno()
    try:
        yield stdin
    finally:
        with suppress(BrokenPipeError):  # somebody ended the watchdog: there is nobody to be spoken to
            os.write(stdin, DONE + b"\n")
            process.stdin.close()
        process.wait()


def _watch(pid: int, seconds: float | None, message: str) -> None:
    """Waits for the end of standard input, a signal's number in it, or the end of the time."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    ends = None if seconds is None else time.monotonic() + seconds
    at, rest, killed_at = b"its start", b"", None
    while True:
        now = time.monotonic()
        waits = [moment - now for moment in (ends, killed_at) if moment is not None]
        ready = select.select([0], [], [], max(0.0, min(waits)) if waits else None)[0]
        if ready:
            read = os.read(0, 65_536)
            *lines, rest = (rest + read).split(b"\n")
            if not read:
                if DONE not in lines and killed_at is not None and ends is None and seconds is not None:
                    _say(message, at)
                return
            if DONE in lines:
                return
            if killed_at is None and seconds is None and any(number in read for number in STOPS):
                killed_at = time.monotonic() + GRACE_SECONDS
            at = lines[-1] if lines else at
        elif killed_at is not None and time.monotonic() >= killed_at:
            _say(message, at)
            os.kill(pid, signal.SIGKILL)
            return
        elif ends is not None and time.monotonic() >= ends:
            os.kill(pid, signal.SIGTERM)
            ends, killed_at = None, time.monotonic() + GRACE_SECONDS


def _say(message: str, at: bytes) -> None:
    sys.stderr.write(message.replace("{at}", at.decode(errors="replace")) + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    _watch(int(sys.argv[1]), float(sys.argv[2]) if sys.argv[2] else None, sys.argv[3])
