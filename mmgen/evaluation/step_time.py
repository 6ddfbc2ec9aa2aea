"""How long a training step takes, measured on this machine: models in turn, a step of each."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from mmgen.batch import Batch
from mmgen.data.sources.synthetic import synthetic
from mmgen.memory import free_memory
from mmgen.modality import Modality
from mmgen.model import Model
from mmgen.seeding import random_state
from mmgen.settings import TrainConfig
from mmgen.training.loop import Training

STEPS = 5
"""Steps of each model that count; one before them, of which much is done for the first time."""

SHARE = 0.5
"""Of the memory that is free, what models that are measured may take together."""


def step_times(
    models: Sequence[Callable[[Modality], Model | None]],
    memory: Sequence[int | None],
    modality: Modality,
    device: torch.device,
    rows: int,
    steps: int = STEPS,
) -> list[float | None]:
    """Measures a training step of each of several models of copies of one modality.

    In each round, every model takes one step: what else the machine does meanwhile weighs on all of
    them, and their ratios say more than the times. The random state is left as it was.

    Args:
        models: Build each model of the modality.
        memory: The bytes that training each takes; one that is not known is not measured.
        modality: What all modalities are.
        device: Where to train.
        rows: Observations in a step.
        steps: Rounds.

    Returns:
        The median seconds of each; ``None`` if there is no memory for it beside smaller ones.
    """
    chosen = _that_fit(memory, SHARE * free_memory(device))
    with random_state(device, 0):
        stored = synthetic({"x": modality}, {"train": rows})["train"]["x"]
        x = modality.observe(stored.to(device))
        config = TrainConfig(batch_size=rows)
        trainings = {}
        for number in chosen:
            with device:
                model = models[number](modality)
            assert model is not None
            model.train()
            trainings[number] = Training(model, config, device)
        taken: dict[int, list[float]] = {number: [] for number in chosen}
        for _ in range(1 + steps):
            for number, training in trainings.items():
                batch = Batch(dict.fromkeys(training.model.names, x))
                started = time.perf_counter()
                float(training.step(batch, 1.0)["loss"])  # waits for the device
                taken[number].append(time.perf_counter() - started)
    return [
        statistics.median(taken[number][1:]) if number in taken else None
        for number in range(len(models))
    ]


def _that_fit(memory: Sequence[int | None], most: float) -> list[int]:
    """Returns the numbers of those that fit together, the smallest first, in their order."""
    left, chosen = most, []
    for number in sorted(range(len(memory)), key=lambda i: memory[i] or 0):
        needed = memory[number]
        if needed is not None and needed <= left:
            chosen.append(number)
            left -= needed
    return sorted(chosen)
