"""One of several processes ends: the others do, too, and one of them says why.

Processes that train together wait for each other in every step. One that raises an error, or is
killed, would leave the others waiting: for minutes where data go over NCCL, and where the loss of a
connection is noticed at once, each would tell of it. So beside the training a thread of each gives
signs of life in the store by which they met, and looks for its neighbour's; and who ends with an
error claims there the right to say so, which one alone gets.
"""

import os
import platform
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

PERIOD = 1.0
"""Seconds between two signs of life."""

SILENT = 8
"""Signs in a row that a neighbour has missed to be suspected, where there is another reason to."""

DEAD = 20
"""Signs in a row that a neighbour has missed to be taken for dead. They are counted in own ones: of
processes that are all halted and go on none has missed any."""

GRACE = 4.0
"""Seconds that this process has to end by itself once another has ended."""

ENDED = "ended"


class Watch:
    """The signs of life of several processes, and the one error that is told.

    Args:
        store: Where processes met: a ``torch.distributed.Store``.
        rank: The number of this process, from 0.
        size: How many there are.
        end: Ends this process without a return, with an exit code; called by the thread, after
            :meth:`claim` where this process is to tell that another is gone.
    """

    def __init__(
        self, store: Any, rank: int, size: int, end: Callable[[int | None, int], object]
    ) -> None:
        self.store, self.rank, self.size, self.end = store, rank, size, end
        self.neighbour = (rank + 1) % size
        self.missed = 0
        self._done = threading.Event()
        # A connection of its own: the main thread may wait for long in the other.
        self._thread = threading.Thread(target=self._run, args=(store.clone(),), daemon=True)
        store.set(f"where/{rank}", f"{os.getpid()} {_here()}")

    def start(self) -> None:
        """Begins to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Ends watching: all processes are done, or this one is about to end."""
        self._done.set()

    def claim(self, code: int) -> bool:
        """Returns whether this process is to say why all of them end, the first that asks.

        Args:
            code: The exit code of all.
        """
        try:
            ours = f"{self.rank} {code}"
            return bool(self.store.compare_set(ENDED, "", ours).decode() == ours)
        except Exception:  # who launched them is gone, and the store with it
            return self.rank == 0

    def claimed(self) -> int | None:
        """Returns the exit code of all if another process says why they end."""
        return self._claimed(self.store)

    def _claimed(self, store: Any) -> int | None:
        with suppress(Exception):
            if store.check([ENDED]):
                rank, code = store.get(ENDED).decode().split()
                return None if int(rank) == self.rank else int(code)
        return None

    def gone(self) -> int | None:
        """Returns a process that ended without a word, if there is one: on this machine at once."""
        for rank in range(self.size):
            with suppress(Exception):
                if rank == self.rank or not self.store.check([f"where/{rank}"]):
                    continue
                number, where = self.store.get(f"where/{rank}").decode().split(maxsplit=1)
                if where == _here() and not _lives(int(number)):
                    return rank
        return self.neighbour if self.missed >= SILENT else None

    def wait(self, seconds: float) -> tuple[int | None, int | None]:
        """Waits for another process to say why all end, or for one that is gone.

        Returns:
            The exit code that another has claimed, and which one is gone; neither after a time.
        """
        until = time.monotonic() + seconds
        while True:
            code = self.claimed()
            gone = None if code is not None else self.gone()
            if gone is not None:
                time.sleep(GRACE / 4)  # it may have claimed, and ended, in between
                code = self.claimed()
            if code is not None or gone is not None or time.monotonic() > until:
                return code, gone
            time.sleep(PERIOD / 4)

    def _run(self, store: Any) -> None:
        seen = -1
        while not self._done.wait(PERIOD):
            code, lost = None, False
            try:
                store.add(f"alive/{self.rank}", 1)
                beat = store.add(f"alive/{self.neighbour}", 0)
                self.missed = self.missed + 1 if beat == seen else 0
                seen, code = beat, self._claimed(store)
            except Exception:  # the store is gone, and with it who launched all
                lost = True
            if code is None and not lost and self.missed < DEAD:
                continue
            if self._done.wait(GRACE):
                return
            self.end(code, -1 if lost else self.neighbour)


def _here() -> str:
    """Names the machine, or the container, in which a number of a process means that process."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return platform.node()


def _lives(number: int) -> bool:
    try:
        return bool(psutil.Process(number).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
