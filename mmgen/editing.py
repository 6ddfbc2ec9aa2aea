"""A photograph changed by what a model says of it: x + (x'_mean − x_mean).

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 859–873, 2018, section 4.6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.build import sketch_likelihood
from mmgen.data.cells import number, switch
from mmgen.data.pixels import decoded
from mmgen.errors import GenerationError, listed, nearest
from mmgen.modality import Box, Modality
from mmgen.run import Run

LONGEST = 4096
"""A photograph of more than some four times as many pixels on its shorter side is made smaller."""

MARGIN = 0.08
"""Of the part of a photograph that is changed: over how much of it a change fades out."""

MOST = 100
"""The most changes of one photograph at a time."""

DRAWS = 4000
"""Rows that a model generates from nothing, to tell how its numbers go together."""


@dataclass(frozen=True, eq=False, repr=False)
class Edit(OneLine):
    """A photograph, what a model infers from it, and what it makes of that when it is changed.

    Pictures are ``(3, H, W)`` in [0, 1].

    Attributes:
        picture: The modality of the photograph.
        photograph: Upright, ``(3, H, W)`` uint8, in its own size.
        part: What the model saw of it: left, top, right and bottom in pixels.
        inferred: The mean of each other modality ``(*shape)``, given the picture.
        changed: The same with what was asked for, and what follows it, n times: ``(n, *shape)``.
        asked: The numbers that were asked for themselves, of each modality.
        reconstruction: Of the picture, from the mean of z given the picture.
        before: From the mean of z given what was inferred.
        after: From the means of z given what was changed, ``(n, 3, h, w)``.
    """

    picture: str
    photograph: Tensor
    part: Box
    inferred: Mapping[str, Tensor]
    changed: Mapping[str, Tensor]
    asked: Mapping[str, frozenset[int]]
    reconstruction: Tensor
    before: Tensor
    after: Tensor

    @property
    def seen(self) -> Tensor:
        """The part of the photograph, ``(3, h, w)`` uint8 of its own size."""
        left, top, right, bottom = self.part
        return self.photograph[:, top:bottom, left:right]

    def edited(self, number: int = 0) -> Tensor:
        """Returns the photograph ``(3, H, W)`` uint8 with one of the changes.

        The difference that the change makes to the mean is brought to the photograph's own size,
        added to the part that the model saw, and cut off at black and white. Where that part ends
        within the photograph the difference ends gently, so that no seam is seen.
        """
        whole = self.photograph.clone()
        left, top, right, bottom = self.part
        part = whole[:, top:bottom, left:right]
        difference = 255 * (self.after[number] - self.before)
        size = part.shape[1:]
        height, width = whole.shape[1:]
        down = _fading(bottom - top, top > 0, bottom < height)
        across = _fading(right - left, left > 0, right < width)
        for colour, small in zip(part, difference, strict=True):  # large ones fit one by one
            change = small
            if small.shape != size:
                change = F.interpolate(small[None, None], size, mode="bicubic")[0, 0]
            change = change * down[:, None] * across
            colour.copy_(change.add_(colour).round_().clamp_(0, 255))
        return whole


def _fading(length: int, first: bool, last: bool) -> Tensor:
    """Returns weights ``(length,)``: 1, but rising from 0 over the margin at some ends."""
    margin = max(1, round(MARGIN * length))
    steps = torch.arange(length, dtype=torch.float32, device="cpu") + 0.5
    rise = (steps / margin).clamp(max=1)
    rise = rise * rise * (3 - 2 * rise)
    ones = torch.ones(length, device="cpu")
    return (rise if first else ones) * (rise.flip(0) if last else ones)


def edit(
    run: Run,
    photograph: str | Path,
    changes: Sequence[Mapping[str, str | float]],
    *,
    crop: str | None = None,
    picture: str | None = None,
    follow: float = 1.0,
    iterations: int | None = None,
    seed: int = 0,
) -> Edit:
    """Changes what a model infers from a photograph, and the photograph with it.

    All other modalities are inferred from the picture; the picture is then generated from them as
    they are, and as they are when something is changed, each at the mean of z.

    What is asked for alone seldom shows: of a face that is not to smile, cheeks and mouth were
    inferred too, and hold it as it is. So the numbers that were not asked for follow, by
    ``follow`` times the linear regression on those that were, in what the model generates from
    nothing. The paper lets none follow: ``follow=0``.

    Args:
        run: A run with a modality of pictures, and others.
        photograph: Its file.
        changes: One or several, each a dictionary. ``{"Smiling": "yes"}`` turns an attribute on;
            a number is one of the kind's own scale: of Gaussian attributes −1 is off and 1 on, 2 is
            more. ``{"label": "B"}`` sets a modality to what its kind reads. A name that two
            modalities have is written ``"attributes.bold"``.
        crop: Which part of the photograph is seen, other than by the run's own setting.
        picture: The modality of the photograph, if several are pictures.
        follow: By how much other numbers follow, from 0 to 1.
        iterations: See :func:`mmgen.inference.sample.sample_latent`.
        seed: Fixes what is random: binarised pictures, iterative sampling.

    Raises:
        GenerationError: If the photograph cannot be read or shows no face, a name or a value is
            wrong, or the model does not generate in both directions.
    """
    name = _picture(run, picture)
    others = [other for other in run.modalities if other != name]
    if not changes or len(changes) > MOST:
        raise GenerationError(f"{len(changes)} changes of a photograph: from 1 to {MOST}")
    if not 0 <= follow <= 1:
        raise GenerationError(f"follow={follow:g}: by how much others follow is from 0 to 1")
    found = [_found(run, others, each) for each in changes]
    run.targets([name], others)  # refuses a model of one direction
    run.targets(others, [name])
    pixels, stored, part = part_of(run.modalities[name], name, Path(photograph), crop)

    def generated(
        given: Mapping[str, Tensor], targets: Sequence[str]
    ) -> tuple[dict[str, Tensor], Tensor]:
        p = run.generate(given, targets, 1, temperature=0.0, iterations=iterations, seed=seed)
        return {target: p[target].mean[0] for target in targets}, p.z

    inferred, z = generated({name: stored}, others)
    with torch.no_grad():
        own = run.model.decode(z, Batch({}), [name])[name].mean[0]
    together = covariance(run, others, seed) if follow else None
    changed = [_changed(run, inferred, each, follow, together) for each in found]
    rows = {other: torch.stack([each[other] for each in changed]) for other in others}
    before, _ = generated(inferred, [name])
    # Each by itself, so that iterative sampling has the same noise for all.
    after = torch.stack([generated(each, [name])[0][name] for each in changed])
    return Edit(
        picture=name,
        photograph=pixels,
        part=part,
        inferred={other: x.cpu() for other, x in inferred.items()},
        changed={other: x.cpu() for other, x in rows.items()},
        asked={
            other: frozenset(
                at for each in found for n, at, _ in each if n == other and at is not None
            )
            for other in others
        },
        reconstruction=_drawn(run.modalities[name], own[None])[0],
        before=_drawn(run.modalities[name], before[name][None])[0],
        after=_drawn(run.modalities[name], after),
    )


def changeable(run: Run, picture: str | None = None) -> dict[str, tuple[float, float]]:
    """Returns the names of what can be changed number by number, each with its off and on."""
    others = [run.modalities[n] for n in run.modalities if n != _picture(run, picture)]
    return {name: ends for modality in others for name, ends in modality.switches().items()}


def _picture(run: Run, wanted: str | None) -> str:
    """Returns the modality of the photograph."""
    if wanted is not None:
        run.targets([wanted])  # refuses an unknown name
    pictures = [n for n, m in run.modalities.items() if type(m).locate is not Modality.locate]
    if not pictures or wanted not in {None, *pictures}:
        raise GenerationError(
            f"{wanted or run.path}: there is no photograph to edit: pictures are "
            f"{listed(pictures)}, of {listed(run.modalities)}"
        )
    if wanted is None and len(pictures) > 1:
        raise GenerationError(f"{run.path}: {listed(pictures)} are pictures; name one: --picture")
    return wanted or pictures[0]


def part_of(
    modality: Modality, name: str, path: Path, crop: str | None = None
) -> tuple[Tensor, Tensor, Box]:
    """Reads a photograph as a modality of pictures sees it.

    Args:
        modality: Of pictures.
        name: What it is called.
        path: The photograph's file.
        crop: Which part is seen, other than by the modality's own setting.

    Returns:
        The photograph ``(3, H, W)`` uint8, what is stored of it, and the part that is.

    Raises:
        GenerationError: If it cannot be read, or shows no face where one is looked for.
    """
    try:
        values = decoded(path, 3, LONGEST)
    except ValueError as error:  # it names the file
        raise GenerationError(str(error)) from None
    try:
        stored, part = modality.locate(values, crop)
    except ValueError as error:
        raise GenerationError(f"{name}={path}: {error}") from None
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1))), stored, part


Change = tuple[str, int | None, float | Tensor]
"""A modality, which of its numbers (``None``: all), and to what."""


def _found(run: Run, others: Sequence[str], changes: Mapping[str, str | float]) -> list[Change]:
    return [_one(run, others, name, value) for name, value in changes.items()]


def _one(run: Run, others: Sequence[str], name: str, value: str | float) -> Change:
    """Finds what a name stands for, and reads its value."""
    owners = {other: [*run.modalities[other].switches()] for other in others}
    known = [
        (other, each)
        for other, names in owners.items()
        for each in names
        if name in (each, f"{other}.{each}")
    ]
    if len(known) > 1:
        told = listed(f"{other}.{each}" for other, each in known)
        raise GenerationError(f"{name}: it may be {told}; write one of these")
    if known:
        [(owner, own)] = known
        return owner, owners[owner].index(own), _number(run.modalities[owner], name, own, value)
    if name not in others:
        words = [*others, *(each for names in owners.values() for each in names)]
        raise GenerationError(
            f"{name}: there is nothing of this name to change{nearest(name, words)}; there are "
            f"{listed(words)}"
        )
    modality = run.modalities[name]
    try:
        return name, None, modality.observe(modality.accept(value).unsqueeze(0))[0]
    except ValueError as error:
        raise GenerationError(f"{name}={value}: {error}") from None


def _number(modality: Modality, name: str, own: str, value: str | float) -> float:
    """Reads on, off, or a number that the likelihood allows."""
    off, on = modality.switches()[own]
    said = switch(value) if isinstance(value, str) else None
    if said is not None:
        return on if said else off
    wanted = number(str(value))
    if wanted is None or abs(wanted) > MOST or not _possible(modality, own, wanted):
        raise GenerationError(
            f"{name}={value}: it is on (1, yes) or off (0, no), or a number that its likelihood "
            f"allows, of which {off:g} is off and {on:g} on"
        )
    return wanted


def _possible(modality: Modality, own: str, wanted: float) -> bool:
    """Returns whether an observation may hold a number, by the likelihood of its kind."""
    ends = modality.switches()
    x = torch.tensor([wanted if name == own else off for name, (off, _) in ends.items()])
    support, known = sketch_likelihood(modality).support, modality.known(x.unsqueeze(0))
    if known is not None and not known.all() and support is not None and support.is_discrete:
        return False  # what stands for a state that is unknown is none
    return support is None or bool(support.check(x.reshape(modality.shape)).all())


def covariance(run: Run, names: Sequence[str], seed: int = 0) -> Tensor | None:
    """Returns how numbers go together that can be changed one by one, ``(n, n)``.

    They are those of some modalities, one after the other, in the means of what a run generates
    from nothing.

    Args:
        run: A run.
        names: Modalities; of those without such numbers there are none.
        seed: Fixes the draws.

    Returns:
        The covariance of the means; ``None`` if the model generates nothing from nothing.
    """
    counted = [name for name in names if run.modalities[name].switches()]
    if not counted or not run.model.generates([], counted):
        return None
    drawn = run.generate({}, counted, DRAWS, seed=seed)
    means = torch.cat([drawn[name].mean.float().flatten(1) for name in counted], dim=1)
    together: Tensor = torch.atleast_2d(torch.cov(means.T))
    return together


def slopes(together: Tensor, asked: Sequence[int]) -> Tensor:
    """Returns the linear regression of all numbers on those that are asked for ``(n, asked)``.

    Directions in which these hardly vary together are left out: nothing is known of them.
    """
    own = together[asked][:, asked]
    inverse: Tensor = torch.linalg.pinv(own, rtol=1e-3, hermitian=True)
    return together[:, asked] @ inverse


def followed(x: Tensor, step: Tensor, modality: Modality) -> Tensor:
    """Moves numbers that follow others, each at most to what is off or on for it.

    A regression on what is rare would move them to where nothing was ever seen.

    Args:
        x: ``(..., *shape)``.
        step: By how much they would move.
        modality: Its :meth:`mmgen.modality.Modality.switches` are the numbers.
    """
    ends = torch.tensor(list(modality.switches().values())).to(x)
    off, on = (end.reshape(modality.shape) for end in (ends.amin(1), ends.amax(1)))
    return (x + step).clamp(torch.minimum(off, x), torch.maximum(on, x))


def _changed(
    run: Run,
    inferred: Mapping[str, Tensor],
    changes: Sequence[Change],
    follow: float,
    together: Tensor | None,
) -> dict[str, Tensor]:
    result = {name: x.clone() for name, x in inferred.items()}
    own: dict[tuple[str, int], float] = {}
    for name, at, value in changes:
        if isinstance(value, Tensor):
            result[name] = value.to(inferred[name])
        else:
            assert at is not None
            own[name, at] = value
    if own and together is not None:
        _let_follow(run, result, own, follow, together)
    for (name, at), value in own.items():
        result[name].view(-1)[at] = value
    return result


def _let_follow(
    run: Run,
    x: dict[str, Tensor],
    asked: Mapping[tuple[str, int], float],
    follow: float,
    together: Tensor,
) -> None:
    """Moves all numbers that can be changed one by one as they go together with those asked for."""
    places = [(name, at) for name in x for at in range(len(run.modalities[name].switches()))]
    rows = [places.index(place) for place in asked]
    moved = [value - float(x[name].flatten()[at]) for (name, at), value in asked.items()]
    steps = follow * slopes(together, rows) @ together.new_tensor(moved)
    for name in {name for name, _ in places}:
        mine = [row for row, (owner, _) in enumerate(places) if owner == name]
        step = steps[mine].reshape(x[name].shape).to(x[name])
        x[name] = followed(x[name], step, run.modalities[name])


def _drawn(modality: Modality, means: Tensor) -> Tensor:
    drawn = modality.render(means)
    assert drawn is not None, "what is taken of photographs is drawn"
    return drawn.detach().float().cpu()
