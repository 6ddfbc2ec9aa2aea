"""What a run suffers from, in plain words, with what to try; nothing about a healthy one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmgen import shell
from mmgen.adversarial import ACCURACY
from mmgen.brief import OneLine
from mmgen.formatting import counted, joined, number
from mmgen.objective import Term

COLLAPSED = 0.1
"""A distance from the prior below this, in nats, says that z tells nothing."""

TELLS_NOTHING = 0.05
"""A modality that its own z makes likelier by fewer nats than this is ignored."""

STILL_FALLING = 0.02
"""A share of all that the validation loss fell: more in the last tenth of the epochs is much."""

WON, WON_FOR = 0.98, 3
"""A critic that is right this often for so many epochs has won."""

Metrics = Sequence[Mapping[str, Any]]
Terms = Mapping[str, Term]


@dataclass(frozen=True, repr=False)
class Diagnostic(OneLine):
    """Something to look at.

    Attributes:
        title: What it is, in a few words.
        text: How it shows.
        advice: What to try.
    """

    title: str
    text: str
    advice: str


def ended_early(metrics: Metrics, early_stopping: int | None) -> bool:
    """Tells whether ``train.early_stopping`` ended a training: the last epochs were no better."""
    if early_stopping is None or len(metrics) <= early_stopping:
        return False
    return not any(m["best"] for m in metrics[-early_stopping:])


def of_training(metrics: Metrics, terms: Terms, epochs: int, folder: str) -> list[Diagnostic]:
    """Looks at the metrics: not finite, stopped early, overfitting, still falling.

    Args:
        metrics: One dictionary per epoch.
        terms: What the terms are.
        epochs: How many the experiment asks for.
        folder: The run, for the command that goes on with it.
    """
    if broken := _not_finite(metrics):
        return [broken]
    found = []
    if len(metrics) < epochs:
        found.append(
            Diagnostic(
                "Stopped early",
                f"{counted(len(metrics), 'epoch')} of {epochs:,} are done.",
                f"Go on where it stopped: {shell.resume(Path(folder))}",
            )
        )
    if can_judge(metrics):
        validated = _validated(metrics)
        found += _overfitting(validated, terms) or _still_falling(validated, epochs)
    return [*found, *_critic_wins(metrics)]


def _critic_wins(metrics: Metrics) -> list[Diagnostic]:
    """Looks at the critic beside a model, if there is one."""
    last = [m["train"].get(ACCURACY, 0.0) for m in metrics[-WON_FOR:]]
    if len(last) < WON_FOR or min(last) < WON:
        return []
    return [
        Diagnostic(
            "The critic wins",
            f"It tells what is generated from what is real in at least {min(last):.0%} of cases, "
            f"for {WON_FOR} epochs: the decoder beside it learns little from it.",
            "Try a larger model.adversarial.likelihood_weight, or a smaller "
            "model.adversarial.learning_rate.",
        )
    ]


def can_judge(metrics: Metrics) -> bool:
    """Tells whether there are epochs enough to tell overfitting from learning."""
    return len(_validated(metrics)) >= 3


def _validated(metrics: Metrics) -> Metrics:
    return [m for m in metrics if "loss" in m["validation"]]


def _not_finite(metrics: Metrics) -> Diagnostic | None:
    for m in metrics:
        terms = [*m["validation"].items(), *m["train"].items()]
        if bad := dict.fromkeys(term for term, value in terms if not math.isfinite(value)):
            return Diagnostic(
                "Not finite",
                f"{', '.join(bad)} is not a finite number since epoch {m['epoch']}.",
                "Try a smaller train.learning_rate, or train.gradient_clip=5.",
            )
    return None


def _overfitting(metrics: Metrics, terms: Terms) -> list[Diagnostic]:
    losses = [m["validation"]["loss"] for m in metrics]
    best = min(range(len(losses)), key=losses.__getitem__)
    risen = losses[-1] - losses[best]
    long_ago = len(losses) - 1 - best >= max(2, len(losses) // 10)
    falling = _training_loss(metrics[-1], terms) < _training_loss(metrics[best], terms)
    # Against all that was learned: losses in nats have no zero to measure shares from.
    if not (long_ago and falling and risen > 0.02 * (max(losses) - losses[best])):
        return []
    return [
        Diagnostic(
            "Overfitting",
            f"The validation loss is {number(risen, 3)} nats above its lowest, of epoch "
            f"{metrics[best]['epoch']}, while the training loss went on falling. The weights that "
            f"this page shows are those of epoch {metrics[best]['epoch']}.",
            "Try more data, smaller nets, train.weight_decay=1e-5, or "
            f"train.epochs={metrics[best]['epoch']}.",
        )
    ]


def _training_loss(m: Mapping[str, Any], terms: Terms) -> float:
    """The training loss as if β were 1, so that epochs of the warm-up compare."""
    warmed = {name: t.weight for name, t in terms.items() if t.warmed_up and t.bound}
    prior = sum(weight * m["train"].get(name, 0.0) for name, weight in warmed.items())
    return float(m["train"]["loss"] + (1 - m["beta"]) * prior)


def _still_falling(metrics: Metrics, epochs: int) -> list[Diagnostic]:
    losses = [m["validation"]["loss"] for m in metrics]
    tail = max(1, len(losses) // 10)
    fell, all_in_all = losses[-1 - tail] - losses[-1], losses[0] - losses[-1]
    if len(metrics) < epochs or losses[-1] > min(losses) or fell < STILL_FALLING * all_in_all:
        return []
    return [
        Diagnostic(
            "Not converged yet",
            f"The last epoch is the best one, and the validation loss still fell by "
            f"{number(fell, 3)} nats in the last {'epoch' if tail == 1 else f'{tail} epochs'}.",
            f"Train longer: train.epochs={2 * epochs}.",
        )
    ]


def of_direction(
    metrics: Metrics, terms: Terms, given: str, active: int, led: Mapping[str, float]
) -> list[Diagnostic]:
    """Looks at a conditional model: whether z adds to what is given, and whether that leads.

    Args:
        metrics: One dictionary per epoch.
        terms: What the terms are.
        given: What it generates from, in words.
        active: Active dimensions of z.
        led: How much likelier what is given makes each target, in nats, see
            :func:`mmgen.evaluation.latent.given_gains`.
    """
    (distance,) = _distances(metrics, terms, 1)
    found = []
    if active == 0 or distance[1] < COLLAPSED:
        found.append(
            Diagnostic(
                f"z adds nothing to {given}",
                f"{_in_use('z', active, *distance)}: beside {given}, z says nothing of what is "
                "generated.",
                f"That is right where {given} decides the rest. Else try a longer "
                "train.warmup_epochs, or weaker decoders.",
            )
        )
    found += [
        Diagnostic(
            f"{name} does not follow from {given}",
            f"{name} is no likelier from its own {given} than from another observation's "
            f"({number(nats, 2)} nats).",
            f"Try more epochs, or wider nets of {given}; check that it has to do with {name}.",
        )
        for name, nats in led.items()
        if nats < TELLS_NOTHING
    ]
    return found


def of_latent(
    metrics: Metrics,
    terms: Terms,
    active: Mapping[str, int],
    told: Mapping[str, float],
    silent: Sequence[str],
) -> list[Diagnostic]:
    """Looks at z: collapsed layers, and modalities that it tells nothing of.

    Args:
        metrics: One dictionary per epoch.
        terms: What the terms are.
        active: Active dimensions by layer: ``{"z": 12}``, or ``{"z1": 12, "z2": 3}``.
        told: How much likelier z makes each modality, in nats, see
            :func:`mmgen.evaluation.latent.own_gains`.
        silent: Modalities of which alone the posterior is the same whatever they are.
    """
    layers = zip(active.items(), _distances(metrics, terms, len(active)), strict=True)
    found = [
        Diagnostic(
            f"Posterior collapse of {layer}",
            f"{_in_use(layer, count, *distance)}: it is nearly the same for every observation.",
            f"Try a longer train.warmup_epochs, {'fewer layers, ' if len(active) > 1 else ''}"
            "or weaker decoders.",
        )
        for (layer, count), distance in layers
        if count == 0 or distance[1] < COLLAPSED
    ]
    ignored = [n for n, nats in told.items() if nats < TELLS_NOTHING]
    found += [
        Diagnostic(
            f"{name} is ignored",
            f"{name} is no likelier from its own z than from another observation's "
            f"({number(told[name], 2)} nats): z knows nothing of it, or its decoder does not look.",
            f"Try a longer train.warmup_epochs, or a wider encoder and decoder of {name}; check "
            "that it has to do with the other modalities.",
        )
        for name in ignored
    ]
    for name in (n for n in silent if n not in ignored):
        about = [t.title or t.name for t in terms.values() if t.about == (name,) and t.weight > 0]
        more = f", or a larger weight of {joined(about)}" if about else ""
        found.append(
            Diagnostic(
                f"{name} alone leads nowhere",
                f"The posterior given {name} alone is the same whatever {name} is, so nothing can "
                "be generated from it alone.",
                f"Try more epochs{more}.",
            )
        )
    return found


def _distances(metrics: Metrics, terms: Terms, layers: int) -> list[tuple[str, float]]:
    """Returns how far each layer of z is from its prior: a term's title, and its value in nats.

    They are the terms that are warmed up: one per layer, or all of them together. What is not
    known is infinite.
    """
    last = (metrics[-1]["validation"] or metrics[-1]["train"]) if metrics else {}
    warmed = [t for name, t in terms.items() if t.warmed_up and name in last]
    if len(warmed) == layers:
        return [(t.title or t.name, last[t.name]) for t in warmed]
    total = sum(last[t.name] for t in warmed) if warmed else math.inf
    return [("what is warmed up", total)] * layers


def _in_use(layer: str, count: int, title: str, nats: float) -> str:
    distance = f", and {title} is {number(nats, 2)} nats" if nats < math.inf else ""
    return f"{layer} has {counted(count, 'active unit')}{distance}"
