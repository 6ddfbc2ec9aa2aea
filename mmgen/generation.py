"""given → targets: any subset of modalities generates any other."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from torch.distributions import Distribution

from mmgen import build, checkpoint
from mmgen.config import Experiment
from mmgen.errors import GenerationError, RunError, listed, nearest
from mmgen.inventory import sample_memory
from mmgen.memory import check_fits
from mmgen.modality import Modality
from mmgen.models import Batch, Model
from mmgen.models.iterative import Start, iterate
from mmgen.training import random_state

ITERATIONS = 50
"""T where a model has no encoder for the given subset and the caller names no T."""


@torch.no_grad()
def sample_latent(
    model: Model,
    given: Batch,
    samples: int,
    *,
    temperature: float = 1.0,
    iterations: int | None = None,
    start: Start = "zero",
) -> Tensor:
    """Draws z given any non-empty subset of modalities.

    Args:
        model: In eval mode.
        given: Observations ``(B, *shape)``.
        samples: How many z a row.
        temperature: See :func:`mmgen.nets.posterior.draw`: 0 takes the mean instead of a sample.
        iterations: T of iterative sampling. Without it, the subset's own encoder is used if there
            is one, and T = 50 if not.
        start: Where missing values start: ``"zero"``, or ``"prior"``.

    Returns:
        z ``(samples, B, Z)``.

    Raises:
        GenerationError: If the temperature is below 0 or not finite.
    """
    _check(temperature)
    if iterations is None and model.encodes(given):
        return model.infer(given, samples, temperature=temperature)
    *_, z = iterate(
        model,
        given,
        samples,
        iterations=iterations or ITERATIONS,
        start=start,
        temperature=temperature,
    )
    return z


def _check(temperature: float) -> None:
    if not 0 <= temperature < math.inf:
        raise GenerationError(f"a temperature of {temperature:g}: it is 0 or more")


@dataclass(frozen=True)
class Run:
    """A trained model and its modalities, ready to generate.

    Attributes:
        path: The run folder.
        experiment: The resolved configuration.
        modalities: The modalities by name.
        model: In eval mode, on :attr:`device`.
        device: Where the model is.
        sample_memory: What generating one sample takes, in bytes; 0 if that is not known.
    """

    path: Path
    experiment: Experiment
    modalities: dict[str, Modality]
    model: Model
    device: torch.device
    sample_memory: float = 0

    @torch.no_grad()
    def generate(
        self,
        given: Mapping[str, str | Tensor] | None = None,
        targets: Sequence[str] | None = None,
        samples: int = 16,
        *,
        temperature: float = 1.0,
        iterations: int | None = None,
        start: Start = "zero",
    ) -> dict[str, Distribution]:
        """Generates targets from one given observation, or from the prior if nothing is given.

        Args:
            given: Raw values as on the command line (``{"label": "7"}``, ``{"image": "7.png"}``),
                or observations ``(*shape)`` as the nets see them.
            targets: What to generate; all that is not given if left out.
            samples: How many z are drawn.
            temperature: Of z: below 1, samples differ less; 0 takes the mean of z.
            iterations: See :func:`sample_latent`.
            start: See :func:`sample_latent`.

        Returns:
            p(x_k | z) for each target, of batch shape ``(samples,)``: ``.mean``, ``.sample()``.

        Raises:
            GenerationError: If a name or value is wrong.
        """
        given = given or {}
        wanted = self.targets(given, targets)
        if samples < 1:
            raise GenerationError(f"{samples} samples: ask for at least one")
        if iterations is not None and iterations < 1:
            raise GenerationError(f"{iterations} iterations: ask for at least one")
        if iterations is not None and self.model.given is not None:
            raise GenerationError(
                f"a {self.experiment.model.kind} has one direction: no iterations"
            )
        _check(temperature)
        check_fits(
            f"generating {samples:,} samples",
            samples * self.sample_memory,
            "fewer, several times",
            self.device,
            GenerationError,
        )
        if start not in get_args(Start):
            raise GenerationError(f"start={start!r}: there are {listed(get_args(Start))}")
        x = {name: self._observation(name, value).unsqueeze(0) for name, value in given.items()}
        if x:
            z = sample_latent(
                self.model, x, samples, temperature=temperature, iterations=iterations, start=start
            )[:, 0]
        else:
            like = next(self.model.parameters())
            z = self.model.prior(samples, like, temperature=temperature)
        return self.model.decode(z, wanted)

    def targets(self, given: Iterable[str], targets: Sequence[str] | None = None) -> list[str]:
        """Returns what to generate, after a check of all names.

        Raises:
            GenerationError: If a name is unknown, or both given and a target.
        """
        given = list(given)
        for name in [*given, *(targets or [])]:
            if name not in self.modalities:
                raise GenerationError(
                    f"{self.path} has no modality {name!r}; it has "
                    f"{listed(self.modalities)}{nearest(name, self.modalities)}"
                )
        missing = [n for n in self.modalities if n not in given]
        possible = [n for n in missing if self.model.can(given, [n])]
        wanted = possible if targets is None else [*targets]
        if both := [n for n in wanted if n in given]:
            raise GenerationError(f"{listed(both)}: given and asked for; leave it out of one side")
        if targets is not None and not wanted:
            raise GenerationError("no targets: name one, or leave targets out for all the others")
        if not missing:
            raise GenerationError("all modalities are given; leave out the one to be generated")
        if not wanted or not self.model.can(given, wanted):
            raise GenerationError(
                f"{self.path} is a {self.experiment.model.kind} of one direction: it generates "
                f"{self.model.direction()}, not {listed(wanted or missing)} from "
                f"{listed(given) if given else 'nothing'}"
            )
        return wanted

    def _observation(self, name: str, value: str | Tensor) -> Tensor:
        modality = self.modalities[name]
        if isinstance(value, str):
            try:
                stored = modality.parse(value)
            except (ValueError, OSError) as error:
                raise GenerationError(f"{name}={value}: {error}") from None
            return modality.observe(stored.unsqueeze(0).to(self.device))[0]
        if tuple(value.shape) != modality.shape:
            raise GenerationError(
                f"{name}: an observation has the shape {modality.shape}, not {tuple(value.shape)}"
            )
        return value.to(self.device, next(self.model.parameters()).dtype)


def load(
    path: str | Path,
    *,
    weights: str = "best",
    device: str = "auto",
    plugin_modules: Sequence[str] = (),
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
    """
    path = Path(path)
    experiment = checkpoint.experiment(path)
    environment = checkpoint.environment(path)  # refuses a run of a newer version
    registry = build.registry(plugin_modules)
    where = build.device(device)
    with build.since_training(registry, environment.get("plugins", {})):
        modalities = build.modalities(experiment, registry, experiment.modalities)
        with random_state(where, 0):  # weights come from the file: spare the caller's random state
            # Sizes come from a file that anyone may have written: the weights show that they are
            # true before memory is taken for them.
            sketch = build.sketch(experiment, modalities)
            checkpoint.check_weights(path, sketch, weights)
            each = sample_memory(sketch, modalities)
            check_fits(
                f"{path}: the model of experiment.json",
                sum(t.nbytes for t in (*sketch.parameters(), *sketch.buffers())) + each,
                "another device, or a machine with more memory",
                where,
                RunError,
            )
            model = build.model(experiment, modalities, where)
        checkpoint.load_weights(path, model, weights)
    model.eval()
    return Run(path, experiment, modalities, model, where, each)
