"""A run measured on held-out rows: its likelihoods, or how coherent what it generates is.

What ``mmgen evaluate`` and ``mmgen coherence`` do, from Python::

    run = mmgen.load("runs/demo")
    print(measure_likelihoods(run, Request(given=["label"], rows=1000)).markdown())
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from mmgen import build
from mmgen.brief import OneLine
from mmgen.errors import ConfigError, GenerationError
from mmgen.evaluation.coherence.agreement import Agreement, agreement
from mmgen.evaluation.coherence.coherence import Coherence, coherence
from mmgen.evaluation.directions import Direction, chosen_directions
from mmgen.evaluation.likelihood.estimates import SamplingBudget, notes_of, rows_note
from mmgen.evaluation.likelihood.estimators import DRAWS, ROWS, likelihoods
from mmgen.evaluation.likelihood.parallel import Measurement, likelihoods_in_parallel
from mmgen.evaluation.likelihood.tables import Evaluation
from mmgen.formatting import size
from mmgen.held_out import Rows, rows_of
from mmgen.memory import check_fits
from mmgen.registry.loading import Registry
from mmgen.run import Run
from mmgen.training import run_folder

Done = Callable[[int, int], object]
"""Called with the rows done and all of them: at first, and after each block of rows."""


@dataclass(frozen=True, repr=False)
class Request(OneLine):
    """What to measure of a run.

    Attributes:
        targets: T, taken together; each modality by itself if empty.
        given: S; every subset of the others if empty.
        data: The folder of another data set.
        split: Which of its splits.
        rows: So many of them, evenly spread; all by default.
        samples: Samples of z per row: of Monte Carlo (eq. 11), or of coherence; 0 leaves them out.
        importance: Samples of z per row of importance sampling (IWAE), of each distribution that
            they are drawn from; 0 leaves it out.
        iterations: Iterative sampling in so many rounds, even where a subset has an encoder.
        temperature: Of samples of z, but for importance sampling.
        chunk: The most z decoded at a time; by default 1,000, and 10,000 on CUDA.
        seed: Fixes all draws.
        plugins: One-file plugins that the run needs, as ``mmgen -p``.
    """

    targets: Sequence[str] = ()
    given: Sequence[str] = ()
    data: Path | None = None
    split: str = "test"
    rows: int | None = None
    samples: int = 10
    importance: int = 100
    iterations: int | None = None
    temperature: float = 1.0
    chunk: int | None = None
    seed: int = 0
    plugins: Sequence[str] = ()


def measure_likelihoods(
    run: Run,
    request: Request | None = None,
    *,
    jobs: int = 1,
    weights: str = "best",
    done: Done = lambda _done, _all: None,
) -> Evaluation:
    """Estimates a run's likelihoods, see :mod:`mmgen.evaluation.likelihood.estimators`.

    Args:
        run: The trained run.
        request: What to measure; all directions by default.
        jobs: How many processes measure side by side, on the CPU; the numbers stay the same.
        weights: Which weights the run was loaded with, for those processes.
        done: Is told how far it is.

    Raises:
        MmgenError: If something is asked for that the run, its data or the memory do not have.
    """
    request = request or Request()
    if not request.samples and not request.importance:
        raise ConfigError("--samples 0 --importance 0: nothing is left to estimate")
    if jobs > 1 and run.device.type != "cpu":
        raise ConfigError(f"--jobs is for the CPU; one process fills {run.device}")
    directions, budget, rows = _opened(run, request)

    def tell(count: int) -> None:
        done(count, rows.split.count)

    tell(0)
    if jobs > 1:
        each = psutil.Process().memory_info().rss
        check_fits(
            f"--jobs {jobs}: with this process' {size(each)} each, that", jobs * each, "fewer"
        )
        what = Measurement(
            run=run.path,
            weights=weights,
            plugins=tuple(request.plugins),
            data=request.data,
            split=request.split,
            rows=request.rows,
            directions=tuple(directions),
            budget=budget,
        )
        estimates = likelihoods_in_parallel(what, run, rows.split, jobs, tell)
    else:
        estimates = likelihoods(run.model, rows.split, directions, budget, tell)
    return Evaluation(
        run=str(run.path),
        model=run.experiment.model.kind,
        data=rows.dataset.name,
        split=request.split,
        rows=rows.split.count,
        budget=budget,
        estimates=estimates,
        notes=(
            *rows.notes,
            *rows_note(estimates, rows.split.count),
            *notes_of(estimates, budget.importance),
        ),
    )


def measure_coherence(
    run: Run,
    request: Request | None = None,
    *,
    say: Callable[[str], object] = lambda _: None,
    done: Done = lambda _done, _all: None,
) -> Coherence:
    """Measures how coherent what a run generates is, see :mod:`mmgen.evaluation.coherence`.

    Args:
        run: The trained run.
        request: What to measure; all directions, and from nothing, by default. ``importance`` has
            no part in it.
        say: Is told when a classifier is trained.
        done: Is told how far it is.

    Raises:
        MmgenError: If something is asked for that the run, its data or the memory do not have.
    """
    request = request or Request()
    directions, budget, rows = _opened(run, request)
    done(0, rows.split.count)
    found = coherence(
        run.model,
        rows.dataset,
        rows.split,
        directions,
        from_nothing=not (request.targets or request.given),
        samples=budget.samples,
        iterations=budget.iterations,
        temperature=budget.temperature,
        chunk=budget.chunk,
        seed=budget.seed,
        say=say,
        done=lambda count: done(count, rows.split.count),
    )
    return replace(found, notes=(*rows.notes, *found.notes))


def measure_agreement(
    run: Run,
    judge: str,
    request: Request | None = None,
    *,
    subsets: int = 20,
    say: Callable[[str], object] = lambda _: None,
    done: Done = lambda _done, _all: None,
) -> Agreement:
    """Measures whether all that a run generates is of one class, whichever modality is asked.

    Args:
        run: The trained run.
        judge: A modality with choices, of the run or of its data set alone.
        request: What to measure; it names no targets and nothing given, since all are looked at.
        subsets: The most sets of n given modalities, for each n.
        say: Is told when a classifier is trained.
        done: Is told how far it is.

    Raises:
        MmgenError: If something is asked for that the run, its data or the memory do not have.
    """
    request = request or Request()
    if request.targets or request.given:
        raise ConfigError("--judge looks at all directions: leave out --targets and --given")
    if not request.samples:
        raise ConfigError("--judge looks at samples of z: ask for one at least, not --samples 0")
    registry = build.registry(request.plugins)
    known = judge in run.model.names
    budget, rows = _rows_and_budget(run, request, registry, beside=() if known else (judge,))
    about = run.modalities[judge] if known else rows.beside[judge]
    done(0, rows.split.count)
    found = agreement(
        run.model,
        rows.dataset,
        rows.split,
        judge,
        about,
        samples=budget.samples,
        subsets=subsets,
        iterations=budget.iterations,
        temperature=budget.temperature,
        chunk=budget.chunk,
        seed=budget.seed,
        say=say,
        done=lambda count: done(count, rows.split.count),
    )
    return replace(found, notes=(*rows.notes, *found.notes))


def _opened(run: Run, request: Request) -> tuple[list[Direction], SamplingBudget, Rows]:
    """Checks a request and opens its rows."""
    directions = chosen_directions(run, request.targets, request.given)
    budget, rows = _rows_and_budget(run, request, build.registry(request.plugins))
    return directions, budget, rows


def _rows_and_budget(
    run: Run, request: Request, registry: Registry, beside: Sequence[str] = ()
) -> tuple[SamplingBudget, Rows]:
    """Checks what a request says of rows and samples, and opens the rows."""
    if request.iterations is not None and run.model.directions is not None:
        raise GenerationError(f"a {run.experiment.model.kind} has one direction: no iterations")
    if request.chunk is not None:
        what = f"--chunk {request.chunk}: decoding up to that many z at once"
        run.check_fits(what, min(request.chunk, ROWS * DRAWS), "a smaller one")
    rows = rows_of(
        run,
        registry,
        run_folder.environment(run.path),
        names=run.model.names,
        beside=beside,
        data=request.data,
        split=request.split,
        count=request.rows,
        other=True,
    )
    budget = SamplingBudget(
        samples=request.samples,
        importance=request.importance,
        iterations=request.iterations,
        temperature=request.temperature,
        chunk=request.chunk or (10_000 if run.device.type == "cuda" else 1_000),
        seed=request.seed,
    )
    return budget, rows
