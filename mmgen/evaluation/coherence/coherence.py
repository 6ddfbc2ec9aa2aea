"""Coherence: is what was generated recognised as what was given?

For each direction, S given and T generated, over held-out rows:

- a target with choices is read, and compared with the row's own value;
- any other target (a picture, a sound) is shown to a classifier, one for each of S that has
  choices, and what that sees is compared with what was given.

z is the posterior's mean, or sampled; of p(x_T|z) the mean is looked at.

From nothing, all is generated from one z of the prior: is what each other modality shows what is
generated of the one with choices?
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.data.batches import Batches
from mmgen.data.store import Dataset, Split
from mmgen.errors import listed
from mmgen.evaluation.coherence.classifier import Recipe, classifier
from mmgen.evaluation.coherence.decoding import ROWS, Reader, draw, read_decoded, seed_draws
from mmgen.evaluation.coherence.judge import all_equal
from mmgen.evaluation.coherence.readout import Readout, readouts
from mmgen.evaluation.coherence.scores import Measure, scores
from mmgen.evaluation.directions import Direction, all_directions
from mmgen.inference.sample import sample_latent
from mmgen.memory import check_fits
from mmgen.model import Model
from mmgen.seeding import random_state
from mmgen.subsets import Subset, name

Latents = Literal["mean", "sampled"]


@dataclass(frozen=True, repr=False)
class Row(OneLine):
    """One measurement.

    Attributes:
        given: S; empty from nothing.
        target: The modality that is generated from it; from nothing, all that are looked at for
            ``about``, joined by ``+``.
        about: The modality whose value is compared: the target itself if that has choices, else
            one of S, seen in the target by a classifier. From nothing, one that is generated too.
        measure: ``accuracy`` or ``F1``, see :class:`mmgen.evaluation.coherence.scores.Score`.
        z: ``mean`` of the posterior, or ``sampled``.
        value: Between 0 and 1.
        error: Its standard error over rows.
        baseline: What the best constant answer scores; ``None`` from nothing, where none is right.
        ceiling: What the classifier scores on the target's real observations of the same rows;
            ``None`` where none takes part.
        rows: How many; from nothing, how many z.
    """

    given: Subset
    target: str
    about: str
    measure: Measure
    z: Latents
    value: float
    error: float
    baseline: float | None
    ceiling: float | None
    rows: int


@dataclass(frozen=True, repr=False)
class Coherence(OneLine):
    """What was measured of a run.

    Attributes:
        rows: The measurements, direction by direction.
        notes: What could not be measured and why, and what became of classifiers.
        samples: Samples of z a row.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    samples: int


@dataclass(frozen=True)
class _Look:
    """One thing to compare: what ``about`` is in generated ``target``, given S."""

    given: Subset
    target: str
    about: str

    @property
    def members(self) -> Subset:
        """The modalities that a row must have."""
        return tuple(dict.fromkeys((*self.given, self.target, self.about)))


@torch.no_grad()
def coherence(
    model: Model,
    dataset: Dataset,
    rows: Split,
    directions: Sequence[Direction] | None = None,
    *,
    from_nothing: bool = False,
    samples: int = 10,
    iterations: int | None = None,
    temperature: float = 1.0,
    chunk: int = 1000,
    seed: int = 0,
    recipe: Recipe | None = None,
    say: Callable[[str], object] = lambda _: None,
    done: Callable[[int], object] = lambda _: None,
) -> Coherence:
    """Measures how well what a model generates agrees with what it was given.

    The caller's random state is left as it is. Each set of given modalities has draws of its own,
    so that a number does not depend on what else was asked for.

    Args:
        model: In eval mode.
        dataset: Its split ``train`` is what classifiers are trained on, and its folder where they
            are kept; see :mod:`mmgen.evaluation.coherence.classifier`.
        rows: The held-out rows.
        directions: The directions; all that the model can go by default.
        from_nothing: Whether what is generated from nothing is looked at too, if the model does.
        samples: Samples of z a row; 0 leaves them out.
        iterations: See :func:`mmgen.inference.sample.sample_latent`.
        temperature: Of the samples of z, see :func:`mmgen.latent.base.sample`.
        chunk: The most latents decoded at a time. Bounds memory, changes no number.
        seed: Fixes all draws.
        recipe: How classifiers are trained.
        say: Called with a few words before a classifier is trained.
        done: Called with the number of rows done after each block of them.

    Returns:
        The measurements; none, and a note, if nothing can be compared.

    Raises:
        DataError: If the rows lack a modality of the model.
    """
    device = next(model.parameters()).device
    modalities = model.modalities
    batches = Batches(rows, modalities, device=device, batch_size=ROWS)
    trained = "train" in dataset.splits
    with random_state(device, seed):
        found = readouts(modalities, dataset.splits["train"] if trained else rows)
        known = {n: replace(r, codes=r.codes.to(device)) for n, r in found.items()}
        looks, notes = _looks(model, directions, known, trained)
        alike = _alike(model, known) if from_nothing and samples and trained else {}
        numbers = sum(
            8 if known[k.about].sort == "multiclass" else len(known[k.about].choices) for k in looks
        )
        check_fits(
            f"comparing {samples:,} samples of z of each of {rows.count:,} rows",
            # z of one block, and two copies of what was read of all
            (1 + samples) * (8 * min(rows.count, ROWS) * model.latent + 2 * rows.count * numbers),
            "fewer --samples, fewer --rows",
            device,
        )
        asked = [(k.target, k.about) for k in looks if k.target not in known]
        asked += [(target, about) for about, targets in alike.items() for target in targets]
        judges = {
            (target, about): classifier(
                dataset, modalities, target, about, known[about], device, recipe=recipe, say=say
            )
            for target, about in dict.fromkeys(asked)
        }
        readers = {key: judge.predict for key, judge in judges.items()}
        readers |= {(n, n): readout.read for n, readout in known.items()}
        seen = _Seen(looks, alike, model, readers, {*judges})
        stream = batches.epoch(None, 0)
        for block in range(len(batches) if looks or alike else 0):
            seed_draws(seed, "observations", block)
            read = next(stream)
            seen.note_real(read)
            for given, of in _by_given(looks).items():
                seed_draws(seed, "given", *given, block)
                # What is absent is zeros there, of rows that count nowhere.
                here = Batch(read.tensors).select(given)
                z = _latents(model, here, samples, iterations, temperature)
                reads = {look: (look.target, readers[look.target, look.about]) for look in of}
                seen.note_generated(read_decoded(model, z, here, reads, chunk))
            if alike:
                seed_draws(seed, "given", block)
                z = draw(model, Batch({}), samples * read.rows, None, temperature)
                z = z.unflatten(0, (samples, read.rows))
                pairs = [(n, about) for about, targets in alike.items() for n in (about, *targets)]
                who = {pair: (pair[0], readers[pair]) for pair in pairs}
                seen.note_alike(read_decoded(model, z, Batch({}), who, chunk))
            done(min((block + 1) * ROWS, batches.count))
    notes += [note for judge in judges.values() for note in judge.notes]
    if temperature != 1:
        notes.append(f"z sampled at a temperature of {temperature:g}")
    result = [row for look in looks for row in seen.compared(look, seed)]
    found_any = {(row.given, row.target, row.about) for row in result}
    lost = [k for k in looks if (k.given, k.target, k.about) not in found_any]
    if lost:
        told = "; ".join(f"{k.about} in {k.target} from {listed(k.given)}" for k in lost)
        notes.append(f"not measured, since no row has what it takes: {told}")
    if any(row.rows < rows.count for row in result):
        notes.append(f"of {rows.count:,} rows, each line is of those that have what it takes")
    result += [seen.from_nothing(about, targets) for about, targets in alike.items()]
    return Coherence(tuple(result), tuple(notes), samples)


def _alike(model: Model, known: Mapping[str, Readout]) -> dict[str, Subset]:
    """Lists who is to show the same from one z: who has choices, and all who have none.

    Two that have choices are not compared: one need not tell the other, as thickness no digit.
    """
    others = tuple(n for n in model.names if n not in known)
    if not others or not model.generates([], model.names):
        return {}
    return dict.fromkeys((n for n in model.names if n in known), others)


class _Seen:
    """What was read of all rows so far.

    Args:
        looks: What is compared.
        alike: Who is to show the same from one z: see :func:`_alike`.
        model: In eval mode.
        readers: What reads a modality off another's observations, by both.
        judges: Those that are classifiers.
    """

    def __init__(
        self,
        looks: Sequence[_Look],
        alike: Mapping[str, Subset],
        model: Model,
        readers: Mapping[tuple[str, str], Reader],
        judges: Set[tuple[str, str]],
    ) -> None:
        self.looks, self.alike, self.modalities = looks, alike, model.modalities
        self.readers, self.judges = readers, judges
        self.truth: dict[str, list[Tensor]] = defaultdict(list)
        self.known: dict[str, list[Tensor]] = defaultdict(list)
        self.real: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
        self.generated: dict[_Look, list[Tensor]] = defaultdict(list)
        self.has: dict[_Look, list[Tensor]] = defaultdict(list)
        self.agreed: dict[str, list[Tensor]] = defaultdict(list)
        self.agreed_real: dict[str, list[Tensor]] = defaultdict(list)

    def note_real(self, x: Batch) -> None:
        """Reads what is true of rows, and which of them have what each look takes."""
        every = torch.ones(x.rows, dtype=torch.bool)
        for look in self.looks:
            has = x.having(look.members)
            self.has[look].append(every if has is None else has.cpu())
        for about in {*(look.about for look in self.looks), *self.alike}:
            truth = self.readers[about, about](x[about])
            self.truth[about].append(truth)
            known = self.modalities[about].known(x[about]) if truth.dim() > 1 else None
            if known is not None:
                self.known[about].append(known.flatten(1).cpu())
        for target, about in self.judges:
            self.real[target, about].append(self.readers[target, about](x[target]))
        for about, targets in self.alike.items():
            has = x.having((about, *targets))
            shown = [self.truth[about][-1], *(self.real[n, about][-1] for n in targets)]
            agreed = all_equal(shown).cpu()
            self.agreed_real[about].append(agreed if has is None else agreed[has.cpu()])

    def note_generated(self, read: Mapping[_Look, Tensor]) -> None:
        """Takes what was read of what was generated from the same rows, ``(S, B, ...)``."""
        for look, values in read.items():
            self.generated[look].append(values)

    def note_alike(self, read: Mapping[tuple[str, str], Tensor]) -> None:
        """Takes what was read of what was generated from nothing, by who and whom about."""
        for about, targets in self.alike.items():
            self.agreed[about].append(all_equal([read[n, about] for n in (about, *targets)]))

    def from_nothing(self, about: str, targets: Subset) -> Row:
        """Returns the share of z of which all show the same, beside that of real rows.

        Args:
            about: Who has choices; of attributes each counts.
            targets: Who is seen by classifiers.
        """
        each = torch.cat(self.agreed[about], 1).cpu().double().flatten(0, 1)
        share = each if each.ndim == 1 else each.mean(1)
        real = torch.cat(self.agreed_real[about]).double()
        return Row(
            given=(),
            target=name(targets),
            about=about,
            measure="accuracy",
            z="sampled",
            value=share.mean().item(),
            error=share.std(correction=0).item() / math.sqrt(len(share)),
            baseline=None,
            ceiling=real.mean().item() if len(real) else None,
            rows=len(share),
        )

    def compared(self, look: _Look, seed: int) -> Iterator[Row]:
        """Compares, over the rows that have what it takes; yields nothing if there are none."""
        has = torch.cat(self.has[look])
        known = torch.cat(self.known[look.about]) if look.about in self.known else None
        if known is not None:
            has = has & known.any(1)
        if not has.any():
            return
        truth = torch.cat(self.truth[look.about]).cpu()[has]
        generated = torch.cat(self.generated[look], 1).cpu()[:, has]
        known = None if known is None else known[has]
        judge, ceilings = (look.target, look.about), {}
        if judge in self.judges:
            real = torch.cat(self.real[judge]).cpu()[has]
            ceilings = {s.measure: s.value for s in scores(truth, real[None], known=known)}
        parts: tuple[tuple[Latents, Tensor], ...] = (
            ("mean", generated[:1]),
            ("sampled", generated[1:]),
        )
        for z, part in parts:
            for score in scores(truth, part, seed, known) if len(part) else ():
                yield Row(
                    given=look.given,
                    target=look.target,
                    about=look.about,
                    measure=score.measure,
                    z=z,
                    value=score.value,
                    error=score.error,
                    baseline=score.baseline,
                    ceiling=ceilings.get(score.measure),
                    rows=len(truth),
                )


def _looks(
    model: Model,
    directions: Sequence[Direction] | None,
    known: Mapping[str, Readout],
    trained: bool,
) -> tuple[list[_Look], list[str]]:
    """Lists what can be compared, and says what cannot and why."""
    looks, blind, untrained = [], [], False
    singles = (
        Direction((target,), direction.given)
        for direction in (all_directions(model) if directions is None else directions)
        for target in direction.targets
    )
    for direction in dict.fromkeys(singles):
        (target,), given = direction.targets, direction.given
        abouts = [target] if target in known else [n for n in given if n in known]
        if not abouts:
            blind.append(f"{target} from {listed(given)}")
        elif target in known or trained:
            looks += [_Look(given, target, about) for about in abouts]
        else:
            untrained = True
    notes = []
    if blind and not known:
        notes.append(
            f"nothing can be recognised: none of {listed(model.names)} has choices that its "
            "observations can be told apart by"
        )
    elif blind:
        notes.append(
            f"not measured, since neither the target nor what is given has choices: "
            f"{'; '.join(blind)}"
        )
    if untrained:
        notes.append("the data set has no split 'train' to train classifiers on")
    return looks, notes


def _by_given(looks: Iterable[_Look]) -> dict[Subset, list[_Look]]:
    sorted_out: dict[Subset, list[_Look]] = defaultdict(list)
    for look in looks:
        sorted_out[look.given].append(look)
    return sorted_out


def _latents(
    model: Model, given: Batch, samples: int, iterations: int | None, temperature: float
) -> Tensor:
    """Returns z at the posterior's mean, then samples: ``(1 + samples, B, *event)``."""
    z = [sample_latent(model, given, 1, temperature=0.0, iterations=iterations)]
    if samples:
        z.append(draw(model, given, samples, iterations, temperature))
    return torch.cat(z)
