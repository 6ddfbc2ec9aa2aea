"""given → targets: any subset of modalities generates any other."""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from mmgen import build
from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.errors import GenerationError, RunError, listed, nearest
from mmgen.experiment import Experiment
from mmgen.generated import Generated
from mmgen.given import observations
from mmgen.inference.iterative import ITERATIONS, Start
from mmgen.inference.sample import check_temperature, sample_latent
from mmgen.latent.base import Latent
from mmgen.memory import check_fits
from mmgen.modality import Modality
from mmgen.model import Model
from mmgen.prediction import Prediction
from mmgen.rows import inference
from mmgen.rows.gathered import Gathered
from mmgen.rows.reading import CHUNK, Rows, read
from mmgen.seeding import random_state
from mmgen.training import run_folder
from mmgen.training.memory import sample_memory

FEW = 2**20
"""Observed numbers that are generated without a look at what memory that takes."""


@dataclass(frozen=True, repr=False)
class Run(OneLine):
    """A trained model and its modalities, ready to generate, and to encode and predict rows.

    Attributes:
        path: The run folder.
        experiment: The resolved configuration.
        modalities: The modalities by name.
        model: In eval mode, on :attr:`device`.
        device: Where the model is.
        sketch: The model on the ``meta`` device, which has its shapes alone.
    """

    path: Path
    experiment: Experiment
    modalities: dict[str, Modality]
    model: Model
    device: torch.device
    sketch: Model | None = None

    @torch.no_grad()
    def generate(
        self,
        given: Mapping[str, Any] | None = None,
        targets: str | Sequence[str] | None = None,
        samples: int = 16,
        *,
        temperature: float = 1.0,
        iterations: int | None = None,
        start: Start = "zero",
        seed: int | None = None,
    ) -> Generated:
        """Generates targets from what is given; if nothing is, from the prior or what was fitted.

        Args:
            given: Values by modality: text as on the command line (``{"label": "7"}``), a path, a
                number, a list or array, a picture, a dictionary, as the kind takes it; or a tensor
                of floating-point numbers ``(*shape)``, an observation as the nets see it. Several
                at once, one for each row: a list of them, or an array or tensor with one more
                dimension. One value beside several stands for all rows. See :mod:`mmgen.given`.
            targets: What to generate; all that is not given if left out.
            samples: How many z are drawn for each row.
            temperature: Of z: below 1, samples differ less; 0 takes the mean of z.
            iterations: See :func:`sample_latent`.
            start: See :func:`sample_latent`.
            seed: Fixes z; torch's random state is then as it was before. What is sampled from the
                result follows torch's random state as always.

        Returns:
            p(x_k | z) for each target, of batch shape ``(samples,)``, or ``(samples, rows)`` if
            several rows were given: ``["image"].mean``, ``["image"].sample()``; and ``z``.

        Raises:
            GenerationError: If a name or value is wrong.
        """
        given = _mapping(given)
        wanted = self.targets(given, targets)
        samples = _whole("samples", samples, least=1, most=2**31 - 1)
        if iterations is not None:
            iterations = _whole("iterations", iterations, least=1, most=2**31 - 1)
        if iterations is not None and self.model.directions is not None:
            raise GenerationError(
                f"a {self.experiment.model.kind} has one direction: no iterations"
            )
        check_temperature(temperature)
        if not isinstance(start, str) or start not in get_args(Start):
            raise GenerationError(f"start={start!r}: there are {listed(get_args(Start))}")
        like = self.model.like
        if seed is None:
            state: AbstractContextManager[None] = nullcontext()
        else:
            state = random_state(self.device, _whole("seed", seed, least=0, most=2**63 - 1))
        with state:
            observed, rows = observations(self.modalities, given, self.device, like.dtype)
            x = Batch(observed)
            each = "" if rows is None else f" for each of {rows:,} rows"
            what = f"generating {samples:,} samples{each}"
            self.check_fits(what, samples * (rows or 1), "fewer, several times")
            z = sample_latent(
                self.model,
                x,
                samples,
                temperature=temperature,
                iterations=iterations,
                start=start,
            )
        if x and rows is None:
            z = z[:, 0]
        return Generated(self.model.decode(z, x, wanted), z)

    @torch.no_grad()
    def encode(
        self,
        rows: Any,
        *,
        iterations: int | None = None,
        seed: int = 0,
        chunk: int = CHUNK,
    ) -> Latent:
        """Returns q(z | x_S) of rows, S being what each has.

        Args:
            rows: A mapping of columns (lists of raw values, ``None`` where a row has none; arrays;
                tensors), a frame of pandas or polars, or a split of a data set. See
                :func:`mmgen.rows.reading.read`.
            iterations: T of iterative sampling; without it, an encoder is used where S has one, and
                T = 50 if not. z of a row that has nothing are those of :meth:`generate`.
            seed: Of what is drawn, the same for every row: pictures that are binarised, and
                iterative sampling. A row comes out the same whatever rows are beside it.
            chunk: How many rows are read and encoded at a time.

        Returns:
            A distribution of batch shape ``(rows,)`` in the order of the rows, with ``mean``,
            ``stddev``, ``sample`` and, but for iterative sampling, ``log_prob``.

        Raises:
            GenerationError: If a name or a value is wrong.
        """
        known = self._rows(rows, seed)
        event = self.model.prior(self._blank()).event_shape
        parts = []
        for start, x in known.chunks(_whole("chunk", chunk, least=1, most=2**31 - 1)):
            here = min(chunk, known.count - start)
            found = inference.encode(self.model, x, here, iterations=iterations, seed=seed)
            parts += [(numbers + start, q) for numbers, q in found]
        like = self.model.like
        return Gathered(parts, event, device=like.device, dtype=like.dtype)

    @torch.no_grad()
    def predict(
        self,
        rows: Any,
        targets: str | Sequence[str] | None = None,
        *,
        samples: int | None = None,
        iterations: int | None = None,
        seed: int = 0,
        chunk: int = CHUNK,
    ) -> dict[str, Prediction]:
        """Says what rows most probably are, and how sure that is, given what else they have.

        Args:
            rows: As of :meth:`encode`. What they have of the targets is not looked at.
            targets: What to predict; all that the rows have no column of if left out.
            samples: How many z of each row are averaged over; 0 takes the mean of z, which is
                faster, and surer than it should be. If left out, 16, and 512 given no more than
                classes or a few attributes.
            iterations: As of :meth:`encode`.
            seed: Of the noise, which is the same for every row.
            chunk: How many rows are read at a time.

        Returns:
            By target the most probable values in the modality's own words and their probability or
            deviation; and the mean and deviation of the observation, ``(rows, *shape)``.

        Raises:
            GenerationError: If a name or a value is wrong.
        """
        known = self._rows(rows, seed)
        wanted = self.targets([n for n in known.columns if n not in _names(targets or [])], targets)
        if samples is not None:
            samples = _whole("samples", samples, least=0, most=2**31 - 1)
        found = []
        for start, x in known.chunks(_whole("chunk", chunk, least=1, most=2**31 - 1)):
            here, given = min(chunk, known.count - start), x.select({*x} - {*wanted})
            how = {"samples": samples, "iterations": iterations, "seed": seed}
            found.append(inference.moments_of_rows(self.model, given, here, wanted, **how))
        return {n: self._prediction(n, [chunk[n] for chunk in found]) for n in wanted}

    def _prediction(self, name: str, chunks: Sequence[tuple[Tensor, Tensor]]) -> Prediction:
        modality, none = self.modalities[name], self.model.like.new_zeros(0)
        both = [torch.cat(each) for each in zip(*chunks, strict=True)]
        mean, deviation = both or [none.new_zeros(0, *modality.shape)] * 2
        told = modality.tell(mean, deviation)
        return Prediction({column or name: each for column, each in told.items()}, mean, deviation)

    @torch.no_grad()
    def sample(
        self,
        rows: Any,
        targets: str | Sequence[str] | None = None,
        n: int = 1,
        *,
        iterations: int | None = None,
        seed: int | None = None,
    ) -> dict[str, Tensor]:
        """Draws what rows may be, given what else they have: x ~ p(x | z), z ~ q(z | x_S).

        Args:
            rows: As of :meth:`encode`. What they have of the targets is not looked at.
            targets: What to draw; all that the rows have no column of if left out.
            n: How many draws of each row.
            iterations: As of :meth:`encode`.
            seed: Fixes the draws; torch's random state is then as it was before. Each row has noise
                of its own, by its number.

        Returns:
            Observations by target, ``(n, rows, *shape)``: they can be given back.

        Raises:
            GenerationError: If a name or a value is wrong, or memory does not suffice.
        """
        known = self._rows(rows, 0)
        wanted = self.targets([m for m in known.columns if m not in _names(targets or [])], targets)
        count = _whole("samples", n, least=1, most=2**31 - 1)
        numbers = known.count * count * sum(math.prod(self.modalities[m].shape) for m in wanted)
        if numbers > FEW:
            itemsize, what = self.model.like.itemsize, f"{count:,} samples of {known.count:,} rows"
            check_fits(what, 2.0 * numbers * itemsize, "fewer", self.device, GenerationError)
        like = self.model.like
        out = {m: like.new_empty(count, known.count, *self.modalities[m].shape) for m in wanted}
        whole = None if seed is None else _whole("seed", seed, least=0, most=2**63 - 1)
        state = nullcontext() if whole is None else random_state(self.device, whole)
        size = max(1, inference.DECODED["cpu"] // count)  # fixed: draws follow from rows' numbers
        with state:
            for start, x in known.chunks(size):
                here, given = min(size, known.count - start), x.select({*x} - {*wanted})
                for at, had in inference.groups(given, here):
                    drawn = inference.draw(
                        self.model, had, len(at), wanted, count, iterations=iterations
                    )
                    for m, values in drawn.items():
                        out[m][:, at.to(out[m].device) + start] = values.to(out[m])
        return out

    @torch.no_grad()
    def log_prob(
        self,
        rows: Any,
        *,
        samples: int = 100,
        iterations: int = ITERATIONS,
        seed: int = 0,
        chunk: int = CHUNK,
    ) -> Tensor:
        """Estimates log p(x_S) of rows in nats, S being what each has; ``(rows,)``.

        By importance sampling, see :func:`mmgen.rows.inference.log_prob`: on average from below.
        Values of different S do not compare; of a model of one direction it is log p(x_T | x_C).

        Args:
            rows: As of :meth:`encode`.
            samples: How many z of each row: the more, the closer.
            iterations: T of iterative sampling, where S has no encoder.
            seed: Of the noise, which is the same for every row.
            chunk: How many rows are read at a time.

        Raises:
            GenerationError: If a name or a value is wrong.
        """
        known = self._rows(rows, seed)
        samples = _whole("samples", samples, least=1, most=2**31 - 1)
        how = {"samples": samples, "iterations": iterations, "seed": seed}
        found = [
            inference.log_prob(self.model, x, min(chunk, known.count - start), **how)
            for start, x in known.chunks(_whole("chunk", chunk, least=1, most=2**31 - 1))
        ]
        return torch.cat(found) if found else self.model.like.new_zeros(0)

    def _rows(self, rows: Any, seed: int) -> Rows:
        _whole("seed", seed, least=0, most=2**63 - 1)
        return read(self.modalities, rows, self.model.like, seed)

    def _blank(self) -> Batch:
        return self.model.blank(self.model.directions.given if self.model.directions else ())

    @cached_property
    def sample_memory(self) -> float:
        """What generating one sample takes, in bytes; 0 if that is not known."""
        return 0 if self.sketch is None else sample_memory(self.sketch, self.modalities)

    def check_fits(self, what: str, samples: int, advice: str) -> None:
        """Checks that there is memory enough to generate so many samples.

        Args:
            what: The work, in words: ``"generating 1,000 samples"``.
            samples: How many z are decoded at once.
            advice: What to try where there is not.

        Raises:
            GenerationError: If there is not.
        """
        numbers = samples * sum(math.prod(m.shape) for m in self.modalities.values())
        if numbers > FEW:  # measuring takes longer than generating a few
            check_fits(what, samples * self.sample_memory, advice, self.device, GenerationError)

    def targets(
        self, given: Iterable[str], targets: str | Iterable[str] | None = None
    ) -> list[str]:
        """Returns what to generate, after a check of all names.

        Raises:
            GenerationError: If a name is unknown, or both given and a target.
        """
        given = list(given)
        if targets is not None:
            targets = _names(targets)
        for name in [*given, *(targets or [])]:
            if not isinstance(name, str):
                raise GenerationError(f"modalities have names, not {type(name).__name__}")
            if name not in self.modalities:
                raise GenerationError(
                    f"{self.path} has no modality {name!r}; it has "
                    f"{listed(self.modalities)}{nearest(name, self.modalities)}"
                )
        missing = [n for n in self.modalities if n not in given]
        possible = [n for n in missing if self.model.generates(given, [n])]
        wanted = possible if targets is None else targets
        if both := [n for n in wanted if n in given]:
            raise GenerationError(f"{listed(both)}: given and asked for; leave it out of one side")
        if targets is not None and not wanted:
            raise GenerationError("no targets: name one, or leave targets out for all the others")
        if not missing:
            raise GenerationError("all modalities are given; leave out the one to be generated")
        if not wanted or not self.model.generates(given, wanted):
            raise GenerationError(
                f"{self.path} is a {self.experiment.model.kind} of one direction: it generates "
                f"{self.model.direction()}, not {listed(wanted or missing)} from "
                f"{listed(given) if given else 'nothing'}"
            )
        return wanted


def _mapping(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise GenerationError(
            f'given is a dictionary, such as {{"label": "7"}}, not {type(given).__name__}'
        )
    return dict(given)


def _names(targets: Any) -> list[str]:
    if isinstance(targets, str):
        return [targets]
    if not isinstance(targets, Iterable):
        raise GenerationError(f"targets are a list of names, not {type(targets).__name__}")
    return list(targets)


def _whole(what: str, value: Any, *, least: int, most: int) -> int:
    try:
        number = least - 1 if isinstance(value, bool) else index(value)
    except TypeError:
        raise GenerationError(f"{what} is a whole number, not {type(value).__name__}") from None
    if not least <= number <= most:
        shown = f"{value!r}" if isinstance(value, bool) else f"{number:.6g}"
        wanted = "ask for at least one" if number < least else f"at most {most:,}"
        raise GenerationError(f"{shown} {what}: {wanted}")
    return number


def load(
    path: str | Path,
    *,
    weights: str = "best",
    device: str = "auto",
    plugin_modules: Sequence[str | Path] = (),
) -> Run:
    """Loads a trained run.

    Args:
        path: The run folder.
        weights: ``"best"`` (lowest validation loss) or ``"last"``.
        device: ``"auto"``, or a torch device.
        plugin_modules: One-file plugins, as ``mmgen -p``.

    Raises:
        RunError: If the folder holds no run, or one that is damaged.
        PluginError: If a plugin that it needs is gone.

    Examples:
        >>> import mmgen
        >>> run = mmgen.load("runs/demo")  # doctest: +SKIP
        >>> run.generate({"label": "A"}, ["image"], 16)["image"].mean.shape  # doctest: +SKIP
        torch.Size([16, 1, 28, 28])
        >>> run.generate({"label": ["A", "B"]}, ["image"], 16)  # doctest: +SKIP
        Generated(image (16, 2, 1, 28, 28), z (16, 2, 64))
    """
    path = Path(path)
    experiment = run_folder.experiment(path)
    environment = run_folder.environment(path)  # refuses a run of a newer version
    registry = build.registry(plugin_modules)
    where = build.device(device)
    with build.note_plugin_changes(registry, environment):
        modalities = build.modalities(experiment, registry, experiment.modalities)
        with random_state(where, 0):  # weights come from the file: spare the caller's random state
            # Sizes come from a file that anyone may have written: the weights show that they are
            # true before memory is taken for them.
            sketch = build.sketch(experiment, modalities, registry)
            run_folder.check_shapes(path, sketch, weights)
            check_fits(
                f"{path}: the model of experiment.json",
                sum(t.nbytes for t in (*sketch.parameters(), *sketch.buffers())),
                "another device, or a machine with more memory",
                where,
                RunError,
            )
            model = build.model(experiment, modalities, where, registry)
        run_folder.load_weights(path, model, weights)
    model.eval()
    return Run(path, experiment, modalities, model, where, sketch)
