"""What a friend would say of a run's quality: where it falls short, by how much, what to try.

A setting is named only if the model has it, does not have that value yet, and can be built with it.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mmgen import build, shell
from mmgen.evaluation.quality import Measured, Quality, Rate
from mmgen.formatting import joined
from mmgen.gallery.diagnostics import Diagnostic, Metrics, Terms
from mmgen.isolation import attempt
from mmgen.registry.loading import Registry
from mmgen.run import Run
from mmgen.settings import ModelConfig
from mmgen.template import MODEL

BELOW = 0.03
"""An answer that is right less often than a plain classifier's by more than this: for fewer points
nobody would change a model that does more than classify."""

MISSED = 0.1
"""Of ten that are sampled, one more than of real ones is not recognised: that is seen by eye in a
row of ten pictures."""

SURE = 2
"""So many standard errors lie between two shares that differ by more than chance."""

SEEN = 0.5
"""A classifier that finds less than half of what a constant answer misses in real rows is no judge
of what is generated."""

USED = 0.25
"""Fewer active units than this share of z: most of what z could hold is not asked for."""

WEIGHT = 10
"""A likelihood's weight to try where a modality of few numbers is beside one of many: what the
documentation of ``likelihood_weight`` has, and what brought three epochs of the glyphs from 58 to
89 % of labels right."""

UNUSUAL = 0.05
"""More held-out rows than this are unlike those trained on: five times what chance makes."""

FRACTIONS = {
    0.1: "a tenth",
    0.2: "a fifth",
    0.25: "a quarter",
    1 / 3: "a third",
    0.5: "half",
    2 / 3: "two thirds",
    0.75: "three quarters",
}
NEAR = 0.025
"""A share as near as this to a fraction is called by it."""


def fraction(share: float) -> str:
    """Writes a share in words, or in per cent.

    Examples:
        >>> [fraction(share) for share in (0.34, 0.5, 0.74)], fraction(0.43).split()
        (['a third', 'half', 'three quarters'], ['43', '%'])
    """
    nearest = min(FRACTIONS, key=lambda each: abs(each - share))
    return FRACTIONS[nearest] if abs(nearest - share) <= NEAR else per_cent(share)


def per_cent(share: float) -> str:
    """Writes a share as people read it, the sign on one line with its number."""
    return f"{100 * share:.0f}\u00a0%"


class Advice:
    """Settings that a run could have and has not.

    Args:
        run: The trained run.
        registry: The plugins there are.
        terms: What the terms of its objective are.
        metrics: One dictionary per epoch.
    """

    def __init__(self, run: Run, registry: Registry, terms: Terms, metrics: Metrics) -> None:
        self.run, self.registry = run, registry
        self.weighable = {t.likelihood_of for t in terms.values() if t.trains}
        self.improving = bool(metrics) and bool(metrics[-1]["best"])

    def possible(self, **changes: Any) -> bool:
        """Tells whether the run's model could be built with other settings, which it has not."""
        run, own = self.run, self.run.model.settings
        if all(getattr(own, name, None) == value for name, value in changes.items()):
            return False
        if not changes.keys() <= type(own).model_fields.keys():
            return False

        def built() -> None:
            settings = {"kind": run.model.kind, **run.experiment.model.settings, **changes}
            section = ModelConfig.model_validate(settings)
            experiment = run.experiment.model_copy(update={"model": section})
            build.model(experiment, run.modalities, torch.device("meta"), self.registry)

        return attempt(built).error is None

    def more_of(self, name: str) -> list[str]:
        """Returns what makes z know more of a modality: a weight of its likelihood."""
        weighs = name in self.weighable or self.run.model.weighs_likelihoods
        unset = self.run.modalities[name].likelihood_weight == 1
        return [f"modalities.{name}.likelihood_weight={WEIGHT}"] * (weighs and unset)

    def longer(self) -> list[str]:
        """Returns more epochs, if the last one was the best."""
        return [f"train.epochs={2 * self.run.experiment.train.epochs}"] * self.improving

    def encoders(self, measured: Measured) -> list[str]:
        """Returns what gives a subset a posterior, if it has none."""
        if measured.encoded:
            return []
        return ["model.subsets=all" if self.possible(subsets="all") else "model.kind=jmvae-kl"]

    def shape(self) -> list[str]:
        """Returns posteriors given a part that are no diagonal Gaussians."""
        if getattr(self.run.model.settings, "subset_posterior", "gaussian") != "gaussian":
            return []
        return ["model.subset_posterior=full"] * self.possible(subset_posterior="full")

    def afterwards(self, setting: str, what: str) -> list[str]:
        """Returns what a trained run can have fitted, if it has not: ``model.setting=fitted``."""
        if not self.possible(**{setting: "fitted"}):
            return []
        words = shell.resume(Path(self.run.path.name), f"model.{setting}=fitted")
        return [f"{what}, fitted after training, of this run too: {words}"]

    def predictions(self) -> list[str]:
        """Returns what trains answers for themselves, if nothing does."""
        if getattr(self.run.model.settings, "prediction", None) != 0:
            return []
        usual = MODEL["prediction"]
        return [f"model.prediction={usual}"] * self.possible(prediction=usual)


def of_quality(quality: Quality, advice: Advice) -> list[Diagnostic]:
    """Compares a run with plain baselines, and what it generates with real rows.

    Args:
        quality: What was measured.
        advice: What could be tried.
    """
    answers, shown, nothing = (
        [m for m in quality.measured if m.sort == sort] for sort in ("answer", "shown", "nothing")
    )
    return [
        *_worst(answers, lambda m: m.target, below, lambda m, also: _answer(m, also, advice)),
        *_worst(shown, lambda m: m.given, missed, lambda m, also: _shown(m, also, advice)),
        *_worst(nothing, lambda _: "", missed, lambda m, also: _nothing(m, also, advice)),
    ]


def _worst(
    measured: Iterable[Measured],
    key: Callable[[Measured], object],
    short: Callable[[Measured], float],
    told: Callable[[Measured, list[Measured]], Diagnostic],
) -> list[Diagnostic]:
    """Tells the worst of each key, with those that fall short likewise."""
    groups: dict[object, list[Measured]] = {}
    for each in measured:
        if short(each) > 0:
            groups.setdefault(key(each), []).append(each)
    ranked = [sorted(group, key=short, reverse=True) for group in groups.values()]
    return [told(group[0], group[1:]) for group in ranked]


def plain(measured: Measured) -> tuple[str, Rate] | None:
    """Returns the better of the two baselines, if there are any."""
    rates = {"a small net": measured.net, "logistic regression": measured.linear}
    known = [(name, rate) for name, rate in rates.items() if rate is not None]
    return max(known, key=lambda item: item[1].value) if known else None


def below(measured: Measured) -> float:
    """Returns by how much an answer is below a plain classifier; 0 if that may be chance."""
    best = plain(measured)
    if best is None:
        return 0
    gap = best[1].value - measured.run.value
    return gap if gap > max(BELOW, SURE * math.hypot(best[1].error, measured.run.error)) else 0


def missed(measured: Measured) -> float:
    """Returns how much more often real rows are recognised; 0 if that may be chance.

    It is 0 as well where the classifier does not see in real rows what it is to see.
    """
    constant = measured.constant or 0
    if measured.real is None or measured.real < constant + SEEN * (1 - constant):
        return 0
    gap = measured.real - measured.run.value
    return gap if gap > max(MISSED, SURE * measured.run.error) else 0


def _answer(m: Measured, also: Sequence[Measured], advice: Advice) -> Diagnostic:
    best = plain(m)
    assert best is not None
    name, rate = best
    given = joined(m.given)
    run, other = per_cent(m.run.value), per_cent(rate.value)
    if m.measure == "accuracy":
        text = f"It is right in {run} of the rows; {name} that reads {given}, trained on the same "
        text += f"rows, in {other}."
    else:
        text = f"Its F1 is {run}; that of {name} that reads {given}, trained on the same rows, "
        text += f"{other}."
    if also:
        text += f" Likewise from {joined([joined(each.given) for each in also])}."
    points = round(100 * below(m))
    tries = [*advice.encoders(m), *advice.more_of(m.target), *advice.predictions()]
    tries += advice.longer()
    return Diagnostic(
        f"{m.target} from {given} is {points} points below a plain classifier",
        text,
        _try(tries, f"wider nets of {given}, a larger model.latent, or more epochs"),
    )


def _shown(m: Measured, also: Sequence[Measured], advice: Advice) -> Diagnostic:
    assert m.real is not None
    given = joined(m.given)
    share = fraction(1 - m.run.value)
    if m.measure == "accuracy":
        title = f"{share[0].upper()}{share[1:]} of the samples of {m.target} from {given} miss "
        title += f"their {m.about}"
        text = f"A classifier sees the {m.about} that was given in {per_cent(m.run.value)} of "
        text += f"them, and in {per_cent(m.real)} of real ones"
    else:
        title = f"Samples of {m.target} from {given} often lack what was given"
        text = f"What a classifier sees of {m.about} in them has an F1 of "
        text += f"{per_cent(m.run.value)}, and in real ones of {per_cent(m.real)}"
    mean = m.at_mean
    text += f"; with z at its mean, {per_cent(mean.value)}." if mean is not None else "."
    if also:
        text += f" Likewise {joined([each.target for each in also])}."
    strays = mean is None or mean.value - m.run.value > MISSED
    tries = advice.encoders(m)
    if mean is None or m.real - mean.value > MISSED:  # z knows too little of it, wherever it is
        tries += [*advice.more_of(m.about), *advice.longer()]
    if strays and m.encoded:
        what = f"mixtures to draw z from given {given}"
        tries += [*advice.afterwards("sampling_posterior", what), *advice.shape()]
    tried = _try(tries, f"more epochs, or wider nets of {m.target}")
    if strays:
        tried += " As it is, mmgen generate --temperature 0.6 varies less, and is truer."
    return Diagnostic(title, text, tried)


def _nothing(m: Measured, also: Sequence[Measured], advice: Advice) -> Diagnostic:
    assert m.real is not None
    targets = joined(m.target.split("+"))
    text = f"Of one z from the prior, {targets} and {m.about} are of the same {m.about} in "
    text += f"{per_cent(m.run.value)} of the samples; in {per_cent(m.real)} of real rows."
    for each in also:
        text += f" Of {each.about}, in {per_cent(each.run.value)}."
    tries = [*advice.afterwards("sampling_prior", "a prior"), *advice.longer()]
    return Diagnostic(
        f"What is made up from nothing agrees in only {per_cent(m.run.value)}",
        text,
        _try(tries, "mmgen generate --temperature 0.6, which varies less, or more epochs"),
    )


def of_units(active: Mapping[str, int], size: int) -> list[Diagnostic]:
    """Says of each layer of z that few of its dimensions are used.

    Args:
        active: Active units by layer; one without any has collapsed, which is told elsewhere.
        size: Z.
    """
    return [
        Diagnostic(
            f"{count} of {size} dimensions of {layer} are used",
            "The mean of the posterior moves with the observation in these alone; the others stay "
            "at the prior.",
            f"If all else is well, model.latent={2 * count} would do as much. If not, the KL "
            "pressed them flat: try a longer train.warmup_epochs, or more epochs.",
        )
        for layer, count in active.items()
        if 0 < count < USED * size
    ]


def of_rows(unlike: Mapping[str, float], split: str) -> list[Diagnostic]:
    """Says where held-out rows are unlike those that the run was trained on.

    Args:
        unlike: The share of them, by modality, see :mod:`mmgen.evaluation.familiar`.
        split: Which split they are of.
    """
    return [
        Diagnostic(
            f"{per_cent(share)} of {name} in {split} are unlike those trained on",
            f"Of rows like the others it would be 1\u00a0%: {split} shows other observations, or "
            "others of them, than the run has seen.",
            "See both: mmgen data show. Shuffle rows before they are split, or train on such too.",
        )
        for name, share in unlike.items()
        if share > UNUSUAL
    ]


def _try(tries: Sequence[str], otherwise: str) -> str:
    return f"Try {'; or '.join(tries) or otherwise}."
