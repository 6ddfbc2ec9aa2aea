"""How good a run is, beside plain baselines: what the report says of it, in bounded time.

Of each modality given alone, and each that is generated:

- what has choices is an *answer*: it is right or wrong, and beside it stand what the best constant
  says, logistic regression on what was given, and a small net that reads it, trained on the same
  rows as the run;
- what has none is *shown*: a classifier tells whether it is of what was given, and beside it stands
  what that sees in real ones;
- from nothing, all that is generated of one z is to be of one class.

The shares are those of :mod:`mmgen.evaluation.coherence`, and so are the small nets: what judges a
picture of a label is what a label from a picture is measured by.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.data.batches import Batches
from mmgen.data.store import Dataset, Split
from mmgen.errors import MmgenError, RunError, WriteError, listed
from mmgen.evaluation.coherence.classifier import Recipe, classifier, network
from mmgen.evaluation.coherence.coherence import Row, coherence
from mmgen.evaluation.coherence.decoding import ROWS, seed_draws
from mmgen.evaluation.coherence.readout import Readout, readouts
from mmgen.evaluation.coherence.scores import Measure, scores
from mmgen.evaluation.directions import Direction
from mmgen.files.atomic import write
from mmgen.files.reading import Reader, exists
from mmgen.inference.sample import inferred, sample_latent
from mmgen.run import Run
from mmgen.seeding import random_state
from mmgen.subsets import Subset

FORMAT = 1

FILE = "quality.json"
"""In the run folder: what was measured, with all that decides it."""

MOST, FEWEST, SAMPLES = 2_000, 200, 4
"""Held-out rows, and samples of z for each: of 2,000 rows a share has an error of one point."""

TRAINING, LOOKING = 4e12, 1e12
"""Floating-point operations on the CPU that baselines are trained with, all together, and that are
spent on looking at the run: 45 and 12 seconds of one core of 2020, half of it on two. What two
pictures of 28 × 28 with a label and attributes need for a classifier's whole training is within."""

LEAST_STEPS = 100
"""Of fewer steps a classifier is no judge of anything, whatever time they take."""

BACKWARD = 3
"""A step of training is as much work as so many looks."""

MOST_NETS = 24
"""Of more pairs of modalities, the first are measured."""

SEED = 0

Share = Annotated[float, Field(ge=0, le=1)]
Error = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, repr=False)
class Rate(OneLine):
    """A share and its standard error over rows.

    Attributes:
        value: From 0 to 1.
        error: Of the value.
    """

    value: Share
    error: Error


@dataclass(frozen=True, repr=False)
class Measured(OneLine):
    """One way through the model.

    Attributes:
        given: S: one modality, or all that a conditional model is given; empty from nothing.
        target: What is generated.
        about: Whose value is compared: the target's own, or that of what was given, seen in it.
        measure: ``accuracy``, or ``F1`` of attributes.
        run: Of an answer, with z at its mean; of what is shown, with z sampled.
        at_mean: Of what is shown, with z at its mean.
        constant: The best constant answer.
        linear: Logistic regression on what was given.
        net: The small net that reads what was given.
        real: What the classifier sees in real rows, of what is shown.
        encoded: Whether z is drawn from a distribution given S, not by iterative sampling.
    """

    given: Subset
    target: str
    about: str
    measure: Measure
    run: Rate
    at_mean: Rate | None
    constant: Share | None
    linear: Rate | None
    net: Rate | None
    real: Share | None
    encoded: bool

    @property
    def sort(self) -> Literal["answer", "shown", "nothing"]:
        """Which of the three questions it answers."""
        if not self.given:
            return "nothing"
        return "answer" if self.about == self.target else "shown"


@dataclass(frozen=True, repr=False)
class Quality(OneLine):
    """What was measured of a run.

    Attributes:
        measured: Answers, what is shown, and from nothing.
        notes: What was not measured, and why.
        split: Which split the rows are of.
        rows: How many.
        samples: Samples of z per row.
        seen: Rows that baselines were trained on, each counted as often as it was seen.
    """

    measured: tuple[Measured, ...]
    notes: tuple[str, ...]
    split: str
    rows: int
    samples: int
    seen: int


@dataclass(frozen=True)
class _Kept:
    format: int
    key: str
    quality: Quality


_KEPT = TypeAdapter(_Kept)
_FILES = Reader(RunError)


def quality(
    run: Run,
    dataset: Dataset,
    split: str,
    weights: str = "best",
    say: Callable[[str], object] = lambda _: None,
) -> Quality:
    """Returns what was measured of a run before, if nothing changed since, or measures it.

    What is measured is kept in the run folder; classifiers are kept beside the data set. A folder
    that cannot be written costs the file alone.

    Args:
        run: The trained run.
        dataset: What it was trained on.
        split: Which rows are held out.
        weights: Which weights the run was loaded with.
        say: Told what takes time.

    Raises:
        MmgenError: If a plugin's choices cannot be read, or the memory is not there.
    """
    file, key = run.path / FILE, _key(run, dataset, split, weights)
    kept = _read(file)
    if kept is not None and (kept.format, kept.key) == (FORMAT, key):
        return kept.quality
    found = measure(run, dataset, split, say)
    text = json.dumps(asdict(_Kept(FORMAT, key, found)), indent=1, ensure_ascii=False)
    with suppress(WriteError):
        write(file, text + "\n")
    return found


def _key(run: Run, dataset: Dataset, split: str, weights: str) -> str:
    """Hashes all that decides what is measured."""
    with (run.path / f"{weights}.safetensors").open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    decides = {
        "weights": content,
        "data": dataset.hash,
        "split": split,
        "modalities": {n: m.to_config() for n, m in run.modalities.items()},
        "device": run.device.type,
        "settings": [MOST, FEWEST, SAMPLES, TRAINING, LOOKING, LEAST_STEPS, MOST_NETS, SEED],
        "recipe": asdict(Recipe()),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _read(file: Path) -> _Kept | None:
    """Reads what was kept; ``None`` if nothing was, or it is damaged: it is measured anew."""
    if not exists(file):
        return None
    try:
        return _KEPT.validate_python(_FILES.json(file))
    except (MmgenError, ValidationError):
        return None


def measure(
    run: Run, dataset: Dataset, split: str, say: Callable[[str], object] = lambda _: None
) -> Quality:
    """Measures a run; the caller's random state is left as it is.

    Args:
        run: The trained run.
        dataset: What it was trained on.
        split: Which rows are held out.
        say: Told what takes time.

    Raises:
        MmgenError: If a plugin's choices cannot be read, or the memory is not there.
    """
    held_out = dataset.splits[split]
    trained_on = dataset.splits.get("train")
    names = run.model.names
    known = readouts({n: run.modalities[n] for n in names}, trained_on or held_out)
    directions, notes = _directions(run, known)
    nothing = run.model.generates([], names) and 0 < len(known) < len(names)
    if not directions and not nothing:
        return Quality((), tuple(notes), split, 0, 0, 0)
    pairs = _pairs(directions, known)
    recipe = _recipe(run, pairs, known, trained_on)
    rows = held_out.spread(_rows(run, directions, pairs, known), names)
    say("looking at what it generates")
    found = coherence(
        run.model,
        dataset,
        rows,
        directions,
        from_nothing=True,
        samples=SAMPLES,
        seed=SEED,
        recipe=recipe,
        say=say,
    )
    plain = {}
    if trained_on is not None:
        asked = [(g, t) for g, t in pairs if t in known and Direction((t,), (g,)) in directions]
        plain = _baselines(run, dataset, rows, asked, known, recipe, say)
    seen = (
        0
        if trained_on is None
        else min(recipe.steps * recipe.batch_size, recipe.epochs * trained_on.count)
    )
    return Quality(
        tuple(_measured(run, found.rows, plain)),
        (*notes, *found.notes),
        split,
        rows.count,
        SAMPLES,
        seen,
    )


def _directions(run: Run, known: dict[str, Readout]) -> tuple[list[Direction], list[str]]:
    """Lists each modality from each other one alone, as far as one of the two has choices."""
    model = run.model
    if model.directions is not None:
        C, T = model.directions.given, model.directions.targets
        ways = [Direction((t,), C) for t in T]
    else:
        ways = [Direction((t,), (g,)) for g in model.names for t in model.names if g != t]
    told = [d for d in ways if known.keys() & {*d.targets, *d.given}]
    if not known:
        return [], [f"none of {listed(model.names)} has choices that it could be told by"]
    notes = []
    if len(told) > MOST_NETS:
        notes.append(f"of {len(told)} ways from one modality to another, {MOST_NETS} were measured")
    return told[:MOST_NETS], notes


Pair = tuple[str, str]
"""What is looked at, and what is to be told of it."""


def _pairs(directions: Iterable[Direction], known: dict[str, Readout]) -> list[Pair]:
    """Lists what classifiers are for: answers from one modality alone, and what is shown."""
    pairs: dict[Pair, None] = {}
    for direction in directions:
        (target,), given = direction.targets, direction.given
        if target not in known:
            pairs |= {(target, about): None for about in given if about in known}
        elif len(given) == 1:
            pairs[given[0], target] = None
    return [*pairs]


def _recipe(
    run: Run, pairs: Iterable[Pair], known: dict[str, Readout], trained_on: Split | None
) -> Recipe:
    """Returns how classifiers are trained: as for ``mmgen coherence``, or for fewer steps.

    The work of a step is counted, not timed: the same run has the same baselines on any machine.
    """
    recipe = Recipe()
    if run.device.type != "cpu" or trained_on is None:
        return recipe
    step = BACKWARD * recipe.batch_size * sum(_net_work(run, *pair, known) for pair in pairs)
    steps = int(TRAINING / step) if step else recipe.steps
    return replace(recipe, steps=min(recipe.steps, max(steps, LEAST_STEPS)))


def _net_work(run: Run, seen: str, about: str, known: dict[str, Readout]) -> int:
    """Counts what the small net takes for one row."""
    modality = run.modalities[seen]
    with random_state(run.device, SEED):
        net = network(modality, len(known[about].choices)).eval()
    return work(lambda: net(torch.zeros(1, *modality.shape)))


def _rows(
    run: Run, directions: Iterable[Direction], pairs: Iterable[Pair], known: dict[str, Readout]
) -> int:
    """Returns how many rows are looked at: fewer where each takes many steps of sampling."""
    if run.device.type != "cpu":
        return MOST
    each = (2 + SAMPLES) * sum(_net_work(run, *pair, known) for pair in pairs)
    for given in dict.fromkeys(direction.given for direction in directions):
        x = run.model.blank(given)
        each += (1 + SAMPLES) * work(lambda x=x: _generate(run, x))  # type: ignore[misc]
    return int(min(MOST, max(FEWEST, LOOKING / max(each, 1))))


def _generate(run: Run, x: Batch) -> None:
    with random_state(run.device, SEED):
        run.model.decode(sample_latent(run.model, x, 1), x)


def work(call: Callable[[], Any]) -> int:
    """Counts the floating-point operations of matrix products and convolutions.

    Examples:
        >>> work(lambda: torch.zeros(2, 3) @ torch.zeros(3, 5))
        60
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


Plain = dict[tuple[str, str, bool, Measure], Rate]
"""By what is given, what is told, whether it is linear, and the measure."""


@torch.no_grad()
def _baselines(
    run: Run,
    dataset: Dataset,
    rows: Split,
    pairs: Iterable[Pair],
    known: dict[str, Readout],
    recipe: Recipe,
    say: Callable[[str], object],
) -> Plain:
    """Trains baselines, or takes those that are kept, and asks them of the rows that have both."""
    names, device = run.model.names, run.device
    modalities = {n: run.modalities[n] for n in names}
    known = {n: replace(r, codes=r.codes.to(device)) for n, r in known.items()}
    nets = {
        (given, target, linear): classifier(
            dataset, modalities, given, target, known[target], device,
            linear=linear, recipe=recipe, say=say,
        )
        for given, target in pairs
        for linear in (True, False)
    }  # fmt: skip
    seen: dict[tuple[str, str, bool], list[tuple[Tensor, Tensor, Tensor]]]
    seen = {key: [] for key in nets}
    batches = Batches(rows, modalities, device=device, batch_size=ROWS)
    with random_state(device, SEED):
        stream = batches.epoch(None, 0)
        for block in range(len(batches) if nets else 0):
            seed_draws(SEED, "observations", block)  # the same that the run was shown
            x = next(stream)
            for (given, target, linear), parts in seen.items():
                has = x.having((given, target))
                asked, right = (x[n] if has is None else x[n][has] for n in (given, target))
                truth, said = known[target].read(right), nets[given, target, linear].predict(asked)
                counted = modalities[target].known(right) if truth.dim() > 1 else None
                every = torch.ones_like(truth, dtype=torch.bool) if counted is None else counted
                parts.append((truth.cpu(), said.cpu(), every.reshape(truth.shape).cpu()))
    found: Plain = {}
    for key, parts in seen.items():
        truth, said, counted = (torch.cat(each) for each in zip(*parts, strict=True))
        counted = counted if truth.dim() > 1 else None
        if len(truth) and (counted is None or counted.any()):
            for score in scores(truth, said[None], SEED, counted):
                found[*key, score.measure] = Rate(score.value, score.error)
    return found


def _measured(run: Run, rows: tuple[Row, ...], plain: Plain) -> Iterable[Measured]:
    """Yields a line for each way: of attributes F1 alone, if there is any."""
    by_way: dict[tuple[Subset, str, str], dict[tuple[Measure, str], Row]] = {}
    for row in rows:
        by_way.setdefault((row.given, row.target, row.about), {})[row.measure, row.z] = row
    for (given, target, about), found in by_way.items():
        measure: Measure = "F1" if any(m == "F1" for m, _ in found) else "accuracy"
        answer = about == target and bool(given)
        mean, shown = found.get((measure, "mean")), found[measure, "mean" if answer else "sampled"]
        alone = given[0] if answer and len(given) == 1 else ""
        yield Measured(
            given=given,
            target=target,
            about=about,
            measure=measure,
            run=Rate(shown.value, shown.error),
            at_mean=None if answer or mean is None else Rate(mean.value, mean.error),
            constant=shown.baseline,
            linear=plain.get((alone, target, True, measure)),
            net=plain.get((alone, target, False, measure)),
            real=shown.ceiling,
            encoded=inferred(run.model, given) is not None,
        )
