"""All that the page says, gathered: what the template writes down."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmgen.errors import MmgenError
from mmgen.evaluation.familiar import familiar
from mmgen.evaluation.quality import Quality, quality
from mmgen.formatting import amount, counted, duration, joined, number
from mmgen.gallery import diagnostics, groups, recognition
from mmgen.gallery.about import about
from mmgen.gallery.curves import curves
from mmgen.gallery.diagnostics import Diagnostic
from mmgen.gallery.groups import Group, renderable
from mmgen.gallery.held_out import HeldOut, held_out
from mmgen.gallery.html import affordable
from mmgen.gallery.size import growth
from mmgen.gallery.space import Space, space
from mmgen.inference.terms import terms as terms_of
from mmgen.model import Directions
from mmgen.objective import Term
from mmgen.registry.loading import Registry
from mmgen.run import Run
from mmgen.seeding import random_state
from mmgen.training import run_folder

SAMPLES = 3
"""Samples of z beside what is at its mean."""

CHOICES, WORDS = 60, 12
"""The most choices from which pictures are generated, and words."""

OBSERVATIONS, SUBSETS, PRIOR = 4, 14, 16
"""Held-out observations, subsets that they are generated from, samples of the prior."""


def gather(
    run: Run,
    registry: Registry,
    weights: str,
    data: Path | None = None,
    seed: int = 0,
    say: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Generates, measures and words all that the template writes down, by name.

    Torch's random state is left alone. What does not apply to the run is empty.

    Args:
        run: The trained run.
        registry: The plugins there are.
        weights: Which weights the run was loaded with: ``best`` or ``last``.
        data: The data set's folder, if not the one that the run names.
        seed: Fixes all samples.
        say: Told what takes time.
    """
    metrics = run_folder.read_metrics(run.path)
    environment = run_folder.environment(run.path)
    direction = run.model.directions
    with random_state(run.device, seed):
        rows = held_out(run, registry, data, environment)
        here = rows if isinstance(rows, HeldOut) else None
        terms = terms_of(run.model, here.spread(2).select(run.model.names) if here else None)
        latent = space(run, here) if here else None
        good = _quality(run, here, weights, say) if here else None
        unlike = _unlike(run, here) if here else {}
        subsets, left_out = _subsets(run, here) if here else (None, 0)
        pictures, words = _from_choices(run)
        prior = _from_prior(run)
        sizes = growth(run, registry)
        model = about(run, registry, terms)
    asked = run.experiment.train.epochs
    if diagnostics.ended_early(metrics, run.experiment.train.early_stopping):
        asked = len(metrics)
    found = diagnostics.of_training(metrics, terms, asked, run.path.name)
    if isinstance(good, Quality):
        advice = recognition.Advice(run, registry, terms, metrics)
        found += recognition.of_quality(good, advice)
    if here is not None:
        found += recognition.of_rows(unlike, here.split)
    if latent is not None:
        found += _of_z(metrics, terms, latent, direction)
        found += recognition.of_units(latent.active, latent.size)
    return {
        "name": run.experiment.name,
        "kind": run.model.kind,
        "names": [*run.modalities],
        "direction": direction,
        "model": model,
        "sentence": _sentence(run, rows, environment, len(metrics)),
        "facts": _facts(run, metrics, weights),
        "diagnostics": found,
        "passed": _passed(metrics, latent, direction, good),
        "quality": good if isinstance(good, Quality) and good.measured else None,
        "unmeasured": good if isinstance(good, str) else "",
        "members": _members(run, registry, environment),
        "data": _data(rows, environment, unlike),
        "data_about": here.dataset.about if here else "",
        "missing": rows if isinstance(rows, str) else "",
        "pictures": pictures,
        "words": words,
        "split": here.split if here else "",
        "subsets": subsets,
        "subsets_left_out": left_out,
        "prior": prior,
        "curves": curves(metrics, terms),
        "space": latent,
        "growth": sizes,
        "command": "\n".join([environment.get("command", ""), *environment.get("continued", [])]),
        "experiment": json.dumps(
            run.experiment.model_dump(mode="json"), indent=2, ensure_ascii=False
        ),
        "environment": _environment(environment),
    }


def _quality(run: Run, rows: HeldOut, weights: str, say: Callable[[str], object]) -> Quality | str:
    """Measures how good the run is, or says why it cannot be measured."""
    try:
        return quality(run, rows.dataset, rows.split, weights, say)
    except MmgenError as error:
        return str(error)


def _unlike(run: Run, rows: HeldOut) -> dict[str, float]:
    """Returns the share of held-out rows that are unlike those trained on, by modality."""
    known = familiar(run, rows.dataset)
    return {n: float(d.unlike(rows.x[n].cpu()).double().mean()) for n, d in known.items()}


def _from_choices(run: Run) -> tuple[list[Group], list[Group]]:
    """Generates from each choice of one modality alone: pictures, and words."""
    pictures, words = [], []
    for source in (n for n, m in run.modalities.items() if m.choices()):
        targets = [n for n in run.modalities if n != source and run.model.generates([source], [n])]
        drawn = [n for n in targets if renderable(run.modalities[n])]
        for target in drawn:
            most = affordable(run.modalities[target], CHOICES)
            group = groups.from_choices(run, source, [target], SAMPLES, most=most)
            pictures.append(group)
        if told := [n for n in targets if n not in drawn]:
            words.append(groups.from_choices(run, source, told, 0, most=WORDS))
    return pictures, words


def _subsets(run: Run, rows: HeldOut) -> tuple[Group, int]:
    """Generates, for a few observations, what each subset of their modalities lacks."""
    # What costs most, a picture per observation, decides how many subsets are affordable.
    names = run.model.names
    drawn = [m for n, m in run.modalities.items() if n in names and renderable(m)]
    room = min((affordable(modality, 10_000) for modality in drawn), default=10_000)
    most = min(SUBSETS, max(len(names), room // OBSERVATIONS))
    subsets, left_out = groups.shown_subsets(run.model, most)
    x = rows.spread(OBSERVATIONS).select(names)
    return groups.held_out(run, x, [names, *subsets]), left_out


def _from_prior(run: Run) -> Group | None:
    """Draws from the prior, if nothing need be given."""
    if not run.model.generates([], run.model.targets):
        return None
    drawn = [m for m in run.modalities.values() if renderable(m)]
    return groups.from_prior(run, min([PRIOR, *(affordable(m, PRIOR) for m in drawn)]))


def _of_z(
    metrics: list[dict[str, Any]],
    terms: Mapping[str, Term],
    latent: Space,
    direction: Directions | None,
) -> list[Diagnostic]:
    gains = latent.told if direction is None else latent.led
    nats = {name: value for name, value in gains.items() if name not in latent.constant}
    if direction is None:
        return diagnostics.of_latent(metrics, terms, latent.active, nats, latent.silent)
    active = sum(latent.active.values())
    return diagnostics.of_direction(metrics, terms, joined(direction.given), active, nats)


def _sentence(run: Run, rows: HeldOut | str, environment: Mapping[str, Any], epochs: int) -> str:
    recorded = environment.get("dataset", {}).get("name")
    name = rows.dataset.name if isinstance(rows, HeldOut) else recorded
    on = f" on {name}" if name else ""
    trained = f"trained{on} for {counted(epochs, 'epoch')}" if epochs else f"begun{on}"
    model = run.model
    if model.directions is None:
        end = "Give it any of them, and it generates the rest."
        return f"One {model.kind} of {joined(model.names)}, {trained}. {end}"
    way = f"{joined(model.directions.targets)} from {joined(model.directions.given)}"
    absent = [n for n in run.modalities if n not in model.names]
    part = f"; {joined(absent)} {'takes' if len(absent) == 1 else 'take'} no part" if absent else ""
    end = f"It goes this one way: not back, and not from nothing{part}."
    return f"One {model.kind} that generates {way}, {trained}. {end}"


def _passed(
    metrics: list[dict[str, Any]],
    latent: Space | None,
    direction: Directions | None,
    good: Quality | str | None,
) -> list[str]:
    """Says what was looked at; written where nothing was found."""
    said = ["All numbers are finite, and training is complete."]
    if diagnostics.can_judge(metrics):
        said.append("The validation loss neither rose again nor is it still falling fast.")
    else:
        said.append("There are too few epochs, or no validation split, to tell overfitting.")
    varying = " that varies" if latent is not None and latent.constant else ""
    if latent is not None and direction is not None:
        given, targets = joined(direction.given), joined(direction.targets)
        said.append(f"z is in use, and what is generated of {targets} depends on {given}.")
    elif latent is not None:
        said.append(f"z is in use and tells something of every modality{varying}.")
    if isinstance(good, Quality) and good.measured:
        said.append("What it generates is about as right, and as recognisable, as could be asked.")
    elif good is not None:
        why = good if isinstance(good, str) else "; ".join(good.notes)
        said.append(f"How right it is was not measured: {why}.")
    return said


def _facts(run: Run, metrics: list[dict[str, Any]], weights: str) -> dict[str, str]:
    facts = {}
    if metrics:
        best = next((m for m in reversed(metrics) if m["best"]), metrics[-1])
        shown = metrics[-1] if weights == "last" else best
        split = "validation" if "loss" in shown["validation"] else "train"
        word = "validation" if split == "validation" else "training"
        facts[f"{word} loss in nats"] = number(shown[split]["loss"])
        which = "best epoch" if weights == "best" else "epoch shown"
        facts[which] = f"{shown['epoch']} of {run.experiment.train.epochs}"
        facts["of training"] = duration(sum(m["seconds"] for m in metrics))
        rates = [m["examples_per_second"] for m in metrics]
        rate = sorted(rates)[len(rates) // 2]
        facts["examples a second"] = number(rate, 2 if math.isfinite(rate) else 4)
    facts["parameters"] = f"{sum(p.numel() for p in run.model.parameters()):,}"
    nets = sum(copies for copies, _ in run.model.encoder_nets())
    facts["encoder net" if nets == 1 else "encoder nets"] = f"{nets:,}"
    return facts


def _members(
    run: Run, registry: Registry, environment: Mapping[str, Any]
) -> dict[str, dict[str, str]]:
    """Says of each modality what it is; of a conditional model, what it is there for."""
    recorded, model, members = environment.get("plugins", {}), run.model, {}
    for name, modality in run.modalities.items():
        now = str(registry.provider(modality.kind))
        then = recorded.get(modality.kind, now)
        role = "generated" if name in model.targets else "given"
        weights = model.decoders[name].parameters() if name in model.targets else ()
        members[name] = {
            "kind": modality.kind,
            "shape": " × ".join(map(str, modality.shape)) or "one number",
            "here": role if name in model.names else "takes no part",
            "choices": f"{len(modality.choices()) or '–'}",
            "decoder": amount(sum(p.numel() for p in weights)) if name in model.targets else "–",
            "plugin": then if then == now else f"{then}; here {now}",
        }
        if model.directions is None:
            del members[name]["here"]
    return members


def _data(
    rows: HeldOut | str, environment: Mapping[str, Any], unlike: Mapping[str, float]
) -> dict[str, str]:
    recorded = environment.get("dataset", {})
    facts = {"name": str(recorded["name"])} if "name" in recorded else {}
    if isinstance(rows, HeldOut):
        facts = {"name": rows.dataset.name}
        facts |= {name: f"{split.count:,}" for name, split in rows.dataset.splits.items()}
        if unlike:
            shares = joined([f"{100 * share:.1f}\u00a0% of {n}" for n, share in unlike.items()])
            facts[f"unusual in {rows.split}"] = shares
    return facts | ({"hash": str(recorded["hash"])[:12]} if "hash" in recorded else {})


def _environment(environment: Mapping[str, Any]) -> dict[str, str]:
    values = {**environment.get("versions", {}), **environment}
    keys = [*environment.get("versions", {}), "device", "threads", "machine"]
    return {key: str(values[key]) for key in keys if key in values}


def weights_of(folder: Path) -> str:
    """Tells which weights a run has to show: ``best``, or ``last`` before the first epoch."""
    best, last = (folder / f"{which}.safetensors" for which in ("best", "last"))
    return "last" if last.is_file() and not best.is_file() else "best"
