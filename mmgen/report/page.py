"""All that the page says, gathered: what the template writes down."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmgen.brief import OneLine
from mmgen.formatting import counted, duration, joined, number
from mmgen.registry.loading import Registry
from mmgen.report import findings, gallery
from mmgen.report.conditional import ConditionalSummary, conditional_summary
from mmgen.report.curves import Curves, curves
from mmgen.report.findings import Finding
from mmgen.report.held_out import HeldOut, held_out
from mmgen.report.size import Growth, growth
from mmgen.report.space import Space, space
from mmgen.run import Run
from mmgen.seeding import random_state
from mmgen.training import run_folder


@dataclass(frozen=True, repr=False)
class Fact(OneLine):
    """A number and what it is.

    Attributes:
        value: In words.
        what: What it is.
    """

    value: str
    what: str


@dataclass(frozen=True, repr=False)
class Member(OneLine):
    """One modality as the experiment has it.

    Attributes:
        name: The user's name.
        kind: Its kind.
        plugin: Which plugin provided the kind in training, and now if that differs.
        shape: Of one observation.
        choices: How many there are.
        parameters: Of its decoder, if it is generated.
        role: ``generated``, ``given`` or ``takes no part`` in a model of one direction.
    """

    name: str
    kind: str
    plugin: str
    shape: str
    choices: int
    parameters: int | None
    role: str


@dataclass(frozen=True, repr=False)
class Page(OneLine):
    """What the template writes down, part by part; parts without content are left out."""

    name: str
    kind: str
    settings: Any
    names: list[str]
    direction: ConditionalSummary | None
    sentence: str
    facts: list[Fact]
    findings: list[Finding]
    passed: list[str]
    members: list[Member]
    data: list[Fact]
    about: str
    missing: str
    choices: list[gallery.Group]
    subsets: list[gallery.Group]
    subsets_left_out: int
    prior: gallery.Group | None
    curves: Curves | None
    space: Space | None
    growth: Growth
    command: str
    experiment: str
    environment: list[Fact]


def gather(
    run: Run, registry: Registry, weights: str, data: Path | None = None, seed: int = 0
) -> Page:
    """Generates, measures and words everything; leaves torch's random state alone.

    Args:
        run: The trained run.
        registry: The plugins there are.
        weights: Which weights the run was loaded with: ``best`` or ``last``.
        data: The data set's folder, if not the one that the run names.
        seed: Fixes all samples.
    """
    metrics = run_folder.read_metrics(run.path)
    environment = run_folder.environment(run.path)
    with random_state(run.device, seed):
        rows = held_out(run, registry, data, environment)
        latent = space(run, rows) if isinstance(rows, HeldOut) else None
        subsets, left_out = (
            gallery.from_subsets(run, rows) if isinstance(rows, HeldOut) else ([], 0)
        )
        choices, prior = gallery.from_choices(run), gallery.from_prior(run)
        sizes = growth(run, registry)
    found = findings.of_training(metrics, run.experiment.train.epochs, run.path.name)
    direction = conditional_summary(run)
    if latent is not None:
        found += _of_z(metrics, latent, direction)
    return Page(
        name=run.experiment.name,
        kind=run.experiment.model.kind,
        settings=run.model.settings,
        names=[*run.modalities],
        direction=direction,
        sentence=_sentence(run, direction, rows, environment, len(metrics)),
        facts=_facts(run, metrics, weights),
        findings=found,
        passed=_passed(metrics, latent, direction),
        members=_members(run, registry, environment),
        data=_data(rows, environment),
        about=rows.dataset.about if isinstance(rows, HeldOut) else "",
        missing=rows if isinstance(rows, str) else "",
        choices=choices,
        subsets=subsets,
        subsets_left_out=left_out,
        prior=prior,
        curves=curves(metrics),
        space=latent,
        growth=sizes,
        command="\n".join([str(environment.get("command", "")), *environment.get("continued", [])]),
        experiment=json.dumps(run.experiment.model_dump(mode="json"), indent=2, ensure_ascii=False),
        environment=_environment(environment),
    )


def _of_z(
    metrics: list[dict[str, Any]], latent: Space, direction: ConditionalSummary | None
) -> list[Finding]:
    bars = latent.told if direction is None else latent.led
    nats = {bar.word: bar.value for bar in bars if bar.word not in latent.constant}
    if direction is None:
        return findings.of_latent(metrics, latent.active, nats, latent.silent)
    given = joined(direction.given)
    return findings.of_direction(metrics, given, direction.prior, latent.active["z"], nats)


def _sentence(
    run: Run,
    direction: ConditionalSummary | None,
    rows: HeldOut | str,
    environment: Mapping[str, Any],
    epochs: int,
) -> str:
    recorded = environment.get("dataset", {}).get("name")
    name = rows.dataset.name if isinstance(rows, HeldOut) else recorded
    on = f" on {name}" if name else ""
    trained = f"trained{on} for {counted(epochs, 'epoch')}" if epochs else f"begun{on}"
    kind = run.experiment.model.kind
    if direction is None:
        end = "Give it any of them, and it generates the rest."
        return f"One {kind} of {joined([*run.modalities])}, {trained}. {end}"
    way = f"{joined(direction.targets)} from {joined(direction.given)}"
    part = "takes" if len(direction.absent) == 1 else "take"
    absent = f"; {joined(direction.absent)} {part} no part" if direction.absent else ""
    end = f"It goes this one way: not back, and not from nothing{absent}."
    return f"One {kind} that generates {way}, {trained}. {end}"


def _passed(
    metrics: list[dict[str, Any]], latent: Space | None, direction: ConditionalSummary | None
) -> list[str]:
    """Says what was looked at; written where nothing was found."""
    said = ["All numbers are finite, and training is complete."]
    if findings.can_judge(metrics):
        said.append("The validation loss neither rose again nor is it still falling fast.")
    else:
        said.append("There are too few epochs, or no validation split, to tell overfitting.")
    varying = " that varies" if latent is not None and latent.constant else ""
    if latent is not None and direction is not None:
        given, targets = joined(direction.given), joined(direction.targets)
        said.append(f"z is in use, and what is generated of {targets} depends on {given}.")
    elif latent is not None:
        said.append(f"z is in use and tells something of every modality{varying}.")
    return said


def _facts(run: Run, metrics: list[dict[str, Any]], weights: str) -> list[Fact]:
    facts = []
    parameters = sum(p.numel() for p in run.model.parameters())
    nets = sum(copies for copies, _ in run.model.encoder_nets())
    if metrics:
        best = next((m for m in reversed(metrics) if m["best"]), metrics[-1])
        shown = metrics[-1] if weights == "last" else best
        split = "validation" if "loss" in shown["validation"] else "train"
        word = "validation" if split == "validation" else "training"
        facts.append(Fact(number(shown[split]["loss"]), f"{word} loss in nats"))
        which = "best epoch" if weights == "best" else "epoch shown"
        facts.append(Fact(f"{shown['epoch']} of {run.experiment.train.epochs}", which))
        seconds = sum(m["seconds"] for m in metrics)
        facts.append(Fact(duration(seconds), "of training"))
        rates = [m["examples_per_second"] for m in metrics]
        rate = sorted(rates)[len(rates) // 2]
        facts.append(Fact(number(rate, 2 if math.isfinite(rate) else 4), "examples a second"))
    facts.append(Fact(f"{parameters:,}", "parameters"))
    facts.append(Fact(str(nets), "encoder net" if nets == 1 else "encoder nets"))
    return facts


def _members(run: Run, registry: Registry, environment: Mapping[str, Any]) -> list[Member]:
    recorded = environment.get("plugins", {})
    members = []
    for name, modality in run.modalities.items():
        now = str(registry.provider(modality.kind))
        then = recorded.get(modality.kind, now)
        model = run.model
        generated = name in model.targets
        role = "generated" if generated else "given"
        decoder = model.decoders[name] if generated else None
        members.append(
            Member(
                name,
                modality.kind,
                then if then == now else f"{then}; here {now}",
                " × ".join(map(str, modality.shape)) or "one number",
                len(modality.choices()),
                sum(p.numel() for p in decoder.parameters()) if decoder is not None else None,
                role if name in model.names else "takes no part",
            )
        )
    return members


def _data(rows: HeldOut | str, environment: Mapping[str, Any]) -> list[Fact]:
    recorded = environment.get("dataset", {})
    facts = [Fact(str(recorded["name"]), "name")] if "name" in recorded else []
    if isinstance(rows, HeldOut):
        facts = [Fact(rows.dataset.name, "name")]
        facts += [Fact(f"{split.count:,}", n) for n, split in rows.dataset.splits.items()]
    if "hash" in recorded:
        facts.append(Fact(str(recorded["hash"])[:12], "hash"))
    return facts


def _environment(environment: Mapping[str, Any]) -> list[Fact]:
    versions = environment.get("versions", {})
    facts = [Fact(str(version), name) for name, version in versions.items()]
    keys = [key for key in ("device", "threads", "machine") if key in environment]
    return facts + [Fact(str(environment[key]), key) for key in keys]


def weights_of(folder: Path) -> str:
    """Tells which weights a run has to show: ``best``, or ``last`` before the first epoch."""
    best, last = (folder / f"{which}.safetensors" for which in ("best", "last"))
    return "last" if last.is_file() and not best.is_file() else "best"
