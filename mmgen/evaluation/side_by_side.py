"""Likelihoods by several processes, each measuring blocks of rows by itself.

A block of iterative sampling is a thousand chains through small nets, which leave most of a machine
idle: two threads on one block take 1.2 to 1.3 times as long as two processes on a block each.
"""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmgen.data.store import Split, read_dataset
from mmgen.errors import RunError
from mmgen.evaluation.estimates import Effort, Estimate
from mmgen.evaluation.likelihood import ROWS, blocks_of, estimates, measured
from mmgen.evaluation.pairs import Pair
from mmgen.generation import Run, load


@dataclass(frozen=True)
class Measurement:
    """What each process opens and measures; all of it is small and can be sent.

    Attributes:
        run: The run folder.
        weights: ``"best"`` or ``"last"``.
        plugins: One-file plugins that the run needs.
        data: The data set's folder.
        split: Which of its splits.
        rows: So many of them, evenly spread; all if ``None``.
        pairs: The directions.
        effort: How much is drawn.
    """

    run: Path
    weights: str
    plugins: tuple[str, ...]
    data: Path
    split: str
    rows: int | None
    pairs: tuple[Pair, ...]
    effort: Effort


def likelihoods_side_by_side(
    what: Measurement, run: Run, jobs: int, done: Callable[[int], object] | None = None
) -> list[Estimate]:
    """Estimates what :func:`~mmgen.evaluation.likelihood.likelihoods` does, on the CPU.

    The draws are the same: they depend on the block. A script that calls this must guard its main
    part by ``if __name__ == "__main__"``, as with all processes that Python spawns.

    Args:
        what: What to measure.
        run: The same run, opened.
        jobs: How many processes, with an equal share of the cores each.
        done: Called with the number of rows done after each block of them.

    Raises:
        RunError: If a process was killed.
    """
    split = _split(what, run)
    blocks = blocks_of(split)
    with ProcessPoolExecutor(
        min(jobs, blocks), get_context("spawn"), initializer=_open, initargs=(what, jobs)
    ) as pool:
        futures = [pool.submit(_measure, block) for block in range(blocks)]
        try:
            parts = []
            for block, future in enumerate(futures):
                parts.append(future.result())
                if done is not None:
                    done(min((block + 1) * ROWS, split.count))
        except BrokenProcessPool:
            raise RunError(
                f"one of {jobs} processes was killed: was the memory used up? Try fewer --jobs"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    values = {
        key: torch.from_numpy(np.concatenate([part[key] for part in parts], -1)) for key in parts[0]
    }
    return estimates(run.model, what.pairs, what.effort, values)


def _split(what: Measurement, run: Run) -> Split:
    split = read_dataset(what.data).splits[what.split]
    return split if what.rows is None else split.spread(what.rows, run.model.names)


# In the processes.

_opened: list[tuple[Measurement, Run, Split]] = []


def _open(what: Measurement, jobs: int) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process decides
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    run = load(what.run, weights=what.weights, device="cpu", plugin_modules=what.plugins)
    _opened.append((what, run, _split(what, run)))


def _measure(block: int) -> dict[tuple[object, ...], "np.ndarray[Any, Any]"]:
    what, run, split = _opened[0]
    values = measured(run.model, split, what.pairs, what.effort, [block])
    return {key: value.numpy() for key, value in values.items()}
