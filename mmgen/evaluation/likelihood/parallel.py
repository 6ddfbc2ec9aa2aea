"""Likelihoods by several processes, each measuring blocks of rows by itself.

A block of iterative sampling is a thousand chains through small nets, which leave most of a machine
idle: two threads on one block take 1.2 to 1.3 times as long as two processes on a block each.
"""

import os
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmgen import build, denormals
from mmgen.brief import OneLine
from mmgen.data.store import Split
from mmgen.errors import MmgenError, RunError
from mmgen.evaluation.directions import Direction
from mmgen.evaluation.likelihood.estimates import Estimate, SamplingBudget
from mmgen.evaluation.likelihood.estimators import ROWS, blocks_of, estimates, measured
from mmgen.held_out import rows_of
from mmgen.run import Run, load
from mmgen.stopping import shielded

Arrays = dict[Hashable, "np.ndarray[Any, Any]"]


@dataclass(frozen=True, repr=False)
class Measurement(OneLine):
    """What each process opens and measures; all of it is small and can be sent.

    Attributes:
        run: The run folder.
        weights: ``"best"`` or ``"last"``.
        plugins: One-file plugins that the run needs.
        data: The folder of another data set than the run names.
        split: Which of its splits.
        rows: So many of them, evenly spread; all if ``None``.
        directions: The directions.
        budget: How much is drawn.
    """

    run: Path
    weights: str
    plugins: tuple[str, ...]
    data: Path | None
    split: str
    rows: int | None
    directions: tuple[Direction, ...]
    budget: SamplingBudget


def likelihoods_in_parallel(
    what: Measurement,
    run: Run,
    split: Split,
    jobs: int,
    done: Callable[[int], object] | None = None,
) -> list[Estimate]:
    """Estimates what :func:`~mmgen.evaluation.likelihood.estimators.likelihoods` does, on the CPU.

    The draws are the same: they depend on the block. A script that calls this must guard its main
    part by ``if __name__ == "__main__"``, as with all processes that Python spawns.

    Args:
        what: What to measure.
        run: The same run, opened.
        split: The same rows, opened.
        jobs: How many processes, with an equal share of the cores each.
        done: Called with the number of rows done after each block of them.

    Raises:
        RunError: If a process was killed.
    """
    blocks = range(blocks_of(split))
    context = get_context("spawn")
    found: dict[int, Arrays] = {}
    workers: dict[Connection, tuple[BaseProcess, range]] = {}
    try:
        for first in blocks[:jobs]:
            receive, send = context.Pipe(duplex=False)
            share = blocks[first::jobs]
            process = context.Process(target=_measure, args=(what, share, jobs, send), daemon=True)
            with shielded():
                process.start()
            send.close()  # here: the process has its own
            workers[receive] = process, share
        while len(found) < len(blocks):
            for end in wait(list(workers)):
                assert isinstance(end, Connection)
                try:
                    block, values = end.recv()
                except EOFError:
                    if not found.keys() >= set(workers.pop(end)[1]):
                        raise RunError(
                            f"one of {jobs} processes was killed: was the memory used up? Try "
                            "fewer --jobs"
                        ) from None
                    continue
                if isinstance(values, MmgenError):
                    raise values
                found[block] = values
                if done is not None:
                    done(min(len(found) * ROWS, split.count))
    finally:
        for worker, _ in workers.values():
            worker.terminate()
            worker.join()
    values = {
        key: torch.from_numpy(np.concatenate([found[block][key] for block in blocks], -1))
        for key in found[0]
    }
    return estimates(run.model, what.directions, what.budget, values)


def _split(what: Measurement, run: Run) -> Split:
    return rows_of(
        run,
        build.registry(what.plugins),
        {},
        names=run.model.names,
        data=what.data,
        split=what.split,
        count=what.rows,
    ).split


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()  # killed, or it would have ended this one
        os._exit(1)


def _measure(what: Measurement, blocks: range, jobs: int, send: Connection) -> None:
    """Measures blocks in a process of its own, and sends each as ``(block, values)``."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    with denormals.flushed():
        _send_all(what, blocks, send)


def _send_all(what: Measurement, blocks: range, send: Connection) -> None:
    """Sends what was measured of each block, or ``(-1, error)``."""
    try:
        run = load(what.run, weights=what.weights, device="cpu", plugin_modules=what.plugins)
        split = _split(what, run)
        for block in blocks:
            values = measured(run.model, split, what.directions, what.budget, [block])
            send.send((block, {key: value.numpy() for key, value in values.items()}))
    except MmgenError as error:
        send.send((-1, error))
