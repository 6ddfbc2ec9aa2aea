"""Commands of mmgen as processes side by side: small nets leave most of a machine idle."""

import os
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mmgen.brief import OneLine
from mmgen.errors import RunError
from mmgen.files.holding import check, make
from mmgen_suzuki2018.measured import FILES

POLL = 0.25
"""Seconds between two looks at the processes."""


@dataclass(frozen=True, repr=False)
class Job(OneLine):
    """One command.

    Attributes:
        name: The run that it belongs to.
        command: The words after ``mmgen``.
        log: Where its output goes.
    """

    name: str
    command: tuple[str, ...]
    log: Path


@dataclass(frozen=True, repr=False)
class Look(OneLine):
    """A look at the jobs.

    Attributes:
        running: Those under way.
        done: Those that ended well since the look before.
    """

    running: tuple[Job, ...]
    done: tuple[Job, ...]


def run(jobs: Sequence[Job], at_once: int) -> Generator[Look]:
    """Runs jobs, so many at once, each with its share of the cores.

    A caller that stops looking, or is interrupted, stops them as Ctrl-C does: a training saves and
    can go on.

    Args:
        jobs: In the order in which they start.
        at_once: How many processes.

    Yields:
        A look every quarter of a second; the last when all are done.

    Raises:
        RunError: If a job fails, with its own message; the others are stopped.
    """
    waiting = list(jobs)
    running: dict[Job, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                running[job] = _start(job, at_once)
            for job in running:
                check(job.log)  # where the jobs' folder no longer is, they have nothing to say
            ended = {job: p.returncode for job, p in running.items() if p.poll() is not None}
            for job, code in ended.items():
                del running[job]
                if code:
                    raise RunError(f"{job.name}: {_message(job)}\n  Its output: {job.log}")
            yield Look(tuple(running), tuple(ended))
            if not ended:
                time.sleep(POLL)
    finally:
        _stop(list(running.values()))


def _start(job: Job, at_once: int) -> "subprocess.Popen[bytes]":
    threads = max(1, (os.cpu_count() or 1) // at_once)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "COLUMNS": "100"}
    make(job.log.parent)
    with job.log.open("wb") as log:
        # A session of its own: Ctrl-C reaches the caller alone, which then stops all in one way.
        return subprocess.Popen(
            [sys.executable, "-m", "mmgen", *job.command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _stop(processes: "Sequence[subprocess.Popen[bytes]]") -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            process.terminate()  # of a training the same as Ctrl-C, which a parent may have barred
    for process in processes:
        process.wait()


def _message(job: Job) -> str:
    """Returns what a job said last: its error, or the last line of its output."""
    text = FILES.text(job.log, errors="replace").strip()
    _, found, error = text.rpartition("error: ")
    return error if found else (text.splitlines() or ["ended without a word"])[-1]
