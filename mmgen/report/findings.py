"""What a run suffers from, in plain words, with what to try; nothing about a healthy one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmgen import shell
from mmgen.brief import OneLine
from mmgen.formatting import counted, number

COLLAPSED = 0.1
"""A KL to the prior below this, in nats, says that z tells nothing."""

TELLS_NOTHING = 0.05
"""A modality that its own z makes likelier by fewer nats than this is ignored."""

STILL_FALLING = 0.02
"""A share of all that the validation loss fell: more in the last tenth of the epochs is much."""

Metrics = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, repr=False)
class Finding(OneLine):
    """Something to look at.

    Attributes:
        title: What it is, in a few words.
        text: How it shows.
        advice: What to try.
    """

    title: str
    text: str
    advice: str


def of_training(metrics: Metrics, epochs: int, folder: str) -> list[Finding]:
    """Looks at the metrics: not finite, stopped early, overfitting, still falling.

    Args:
        metrics: One dictionary an epoch.
        epochs: How many the experiment asks for.
        folder: The run, for the command that goes on with it.
    """
    if broken := _not_finite(metrics):
        return [broken]
    findings = []
    if len(metrics) < epochs:
        findings.append(
            Finding(
                "Stopped early",
                f"{counted(len(metrics), 'epoch')} of {epochs:,} are done.",
                f"Go on where it stopped: {shell.resume(Path(folder))}",
            )
        )
    if can_judge(metrics):
        validated = _validated(metrics)
        findings += _overfitting(validated) or _still_falling(validated, epochs)
    return findings


def can_judge(metrics: Metrics) -> bool:
    """Tells whether there are epochs enough to tell overfitting from learning."""
    return len(_validated(metrics)) >= 3


def _validated(metrics: Metrics) -> Metrics:
    return [m for m in metrics if "loss" in m["validation"]]


def _not_finite(metrics: Metrics) -> Finding | None:
    for m in metrics:
        terms = [*m["validation"].items(), *m["train"].items()]
        if bad := dict.fromkeys(term for term, value in terms if not math.isfinite(value)):
            return Finding(
                "Not finite",
                f"{', '.join(bad)} is not a finite number since epoch {m['epoch']}.",
                "Try a smaller train.learning_rate, or train.gradient_clip=5.",
            )
    return None


def _overfitting(metrics: Metrics) -> list[Finding]:
    losses = [m["validation"]["loss"] for m in metrics]
    best = min(range(len(losses)), key=losses.__getitem__)
    risen = losses[-1] - losses[best]
    long_ago = len(losses) - 1 - best >= max(2, len(losses) // 10)
    falling = _training_loss(metrics[-1]) < _training_loss(metrics[best])
    # Against all that was learned: losses in nats have no zero to measure shares from.
    if not (long_ago and falling and risen > 0.02 * (max(losses) - losses[best])):
        return []
    return [
        Finding(
            "Overfitting",
            f"The validation loss is {number(risen, 3)} nats above its lowest, of epoch "
            f"{metrics[best]['epoch']}, while the training loss went on falling. The weights that "
            f"this page shows are those of epoch {metrics[best]['epoch']}.",
            "Try more data, smaller nets, train.weight_decay=1e-5, or "
            f"train.epochs={metrics[best]['epoch']}.",
        )
    ]


def _training_loss(m: Mapping[str, Any]) -> float:
    """The training loss as if β were 1, so that epochs of the warm-up compare."""
    prior = sum(v for t, v in m["train"].items() if t == "kl/prior" or t.startswith("kl/z"))
    return float(m["train"]["loss"] + (1 - m["beta"]) * prior)


def _still_falling(metrics: Metrics, epochs: int) -> list[Finding]:
    losses = [m["validation"]["loss"] for m in metrics]
    tail = max(1, len(losses) // 10)
    fell, all_in_all = losses[-1 - tail] - losses[-1], losses[0] - losses[-1]
    if len(metrics) < epochs or losses[-1] > min(losses) or fell < STILL_FALLING * all_in_all:
        return []
    return [
        Finding(
            "Not converged yet",
            f"The last epoch is the best one, and the validation loss still fell by "
            f"{number(fell, 3)} nats in the last {'epoch' if tail == 1 else f'{tail} epochs'}.",
            f"Train longer: train.epochs={2 * epochs}.",
        )
    ]


def of_direction(
    metrics: Metrics, given: str, prior: str, active: int, led: Mapping[str, float]
) -> list[Finding]:
    """Looks at a model of one direction: whether z adds to what is given, and whether that leads.

    Args:
        metrics: One dictionary an epoch.
        given: What it generates from, in words.
        prior: The prior of z: ``"N(0, I)"``, or ``"p(z | label)"``.
        active: Active dimensions of z.
        led: How much likelier what is given makes each target, in nats, see
            :func:`mmgen.evaluation.latent.given_gains`.
    """
    last = (metrics[-1]["validation"] or metrics[-1]["train"]) if metrics else {}
    kl = last.get("kl/prior", math.inf)
    findings = []
    if active == 0 or kl < COLLAPSED:
        distance = f", and its KL to {prior} is {number(kl, 2)} nats" if last else ""
        findings.append(
            Finding(
                f"z adds nothing to {given}",
                f"{counted(active, 'dimension')} of z {'is' if active == 1 else 'are'} active"
                f"{distance}: beside {given}, z says nothing of what is generated.",
                f"That is right where {given} decides the rest. Else try a longer "
                "train.warmup_epochs, or weaker decoders.",
            )
        )
    findings += [
        Finding(
            f"{name} does not follow from {given}",
            f"{name} is no likelier from its own {given} than from another observation's "
            f"({number(nats, 2)} nats).",
            f"Try more epochs, or wider nets of {given}; check that it has to do with {name}.",
        )
        for name, nats in led.items()
        if nats < TELLS_NOTHING
    ]
    return findings


def of_latent(
    metrics: Metrics,
    active: Mapping[str, int],
    told: Mapping[str, float],
    silent: Sequence[str],
) -> list[Finding]:
    """Looks at z: collapsed layers, and modalities that it tells nothing of.

    Args:
        metrics: One dictionary an epoch.
        active: Active dimensions by layer: ``{"z": 12}``, or ``{"z1": 12, "z2": 3}``.
        told: How much likelier z makes each modality, in nats, see
            :func:`mmgen.evaluation.latent.own_gains`.
        silent: Modalities whose own encoder gives the same posterior whatever they are.
    """
    findings = []
    last = (metrics[-1]["validation"] or metrics[-1]["train"]) if metrics else {}
    for layer, count in active.items():
        kl = last.get("kl/prior" if layer == "z" else f"kl/{layer}", math.inf)
        if count == 0 or kl < COLLAPSED:
            distance = f", and its KL to the prior is {number(kl, 2)} nats" if last else ""
            findings.append(
                Finding(
                    f"Posterior collapse of {layer}",
                    f"{counted(count, 'dimension')} of {layer} "
                    f"{'is' if count == 1 else 'are'} active{distance}: "
                    "it is nearly the same for every observation.",
                    "Try a longer train.warmup_epochs, "
                    + ("a smaller model.alpha if there is one, " if layer == "z" else "")
                    + ("fewer layers, " if layer not in ("z", "z1") else "")
                    + "or weaker decoders.",
                )
            )
    ignored = [n for n, nats in told.items() if nats < TELLS_NOTHING]
    findings += [
        Finding(
            f"{name} is ignored",
            f"{name} is no likelier from its own z than from another observation's "
            f"({number(told[name], 2)} nats): z knows nothing of it, or its decoder does not look.",
            f"Try a longer train.warmup_epochs, or a wider encoder and decoder of {name}; check "
            "that it has to do with the other modalities.",
        )
        for name in ignored
    ]
    findings += [
        Finding(
            f"{name} alone leads nowhere",
            f"q(z | {name}) is the same whatever {name} is, so nothing can be generated from it "
            "alone.",
            "Try a larger model.alpha, or more epochs.",
        )
        for name in silent
        if name not in ignored
    ]
    return findings
