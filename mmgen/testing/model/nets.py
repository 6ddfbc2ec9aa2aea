"""Checks of a model as a module: state, names, dtypes, devices, global settings."""

import torch

from mmgen.batch import Batch
from mmgen.build import unchecked
from mmgen.errors import listed
from mmgen.inference.importance import importance_sample
from mmgen.isolation import Change, kept
from mmgen.model import Model
from mmgen.testing.model import toys
from mmgen.testing.model.setup import Setup, has_density, known, latents
from mmgen.testing.tools import OneDevice, explaining, require, seeded

AWKWARD = (("type", "prior"), ("training", "forward", "left-eye"))
"""Names that modalities may have, and attributes of modules have too."""


@seeded
def check_state(setup: Setup) -> None:
    """The state dictionary holds all of the model: another that loads it computes the same."""
    for model, x in setup.cases():
        model.train()
        for _ in range(3):  # what a model counts or averages has moved by now
            model(x)
        twin = setup.cls(model.modalities, model.settings)
        twin.load_state_dict(model.state_dict())
        twin.train()
        values = []
        for each in (model, twin):
            torch.manual_seed(5)
            values.append([term.weight * term.value for term in each(x)])
        require(
            all(torch.equal(one, other) for one, other in zip(*values, strict=True)),
            "a model that loads the state_dict() has another objective, so that a run that is "
            "resumed would be another; keep tensors as parameters or with register_buffer(), and "
            "count nothing in plain attributes",
        )


@seeded
def check_names(setup: Setup) -> None:
    """Modalities have any names, those of a module's attributes too, and may be of one kind."""
    fix = "hold nets by modality in mmgen.nets.by_modality.ByModality, not in a ModuleDict"
    for names in AWKWARD:
        modalities = {n: toys.Numbers() for n in names}
        with explaining(f"modalities called {listed(names)} cannot be", fix):
            try:
                model = setup.build(modalities)
                objective = model(toys.observed(modalities, 3).select(model.names))
            except (AttributeError, KeyError, AssertionError) as error:  # a ModuleDict's KeyError
                raise RuntimeError(str(error)) from error
            torch.stack([*objective.losses().values()]).sum().backward()
            setup.build(modalities).load_state_dict(model.state_dict())
        require(len(list(model.encoder_nets())) > 0, f"encoder_nets() finds no net; {fix}")


@seeded
def check_dtypes(setup: Setup) -> None:
    """It runs in float64, and under bfloat16 autocast its terms are of single precision."""
    fix = "make tensors with dtype=x.dtype or new_zeros(), and do not cast"
    for model, x in setup.cases():
        with torch.autocast("cpu", torch.bfloat16):
            for term in model(x):
                require(
                    term.value.dtype == torch.float32 and term.value.isfinite().all(),
                    f"under autocast the term {term.name!r} is {term.value.dtype}; leave it for "
                    "densities and divergences, as mmgen.latent.gaussian.gaussian does",
                )
        double = Batch({n: v.double() for n, v in x.items()})
        with explaining("it does not run in float64", fix):
            terms = list(model.double()(double))
        for term in terms:
            require(
                term.value.dtype == torch.float64,
                f"in float64 the term {term.name!r} is {term.value.dtype}; {fix}",
            )


@seeded
def check_devices(setup: Setup) -> None:
    """A step and all distributions stay on their device: the meta device stands for any other."""
    fix = (
        "make tensors with device=self.like.device or new_zeros(), keep constants with "
        "register_buffer(), and read no values with item() or tolist()"
    )
    for modalities in (toys.mixed(2), toys.mixed(3)):
        with explaining("it cannot be built on another device", fix), torch.device("meta"):
            model = setup.build(modalities)
        off = "it does not run on another device"
        with explaining(off, fix), OneDevice(), unchecked():  # type: ignore[no-untyped-call]
            _step(model, fix)


def _step(model: Model, fix: str) -> None:
    model.train()
    x = model.blank(model.names, 3)
    objective = model(x)
    for term in objective:
        require(
            term.value.is_meta,
            f"the term {term.name!r} left the device of its input for {term.value.device}; {fix}",
        )
    for group, loss in objective.losses().items():
        own = list(model.parameter_groups()[group].parameters)
        loss.backward(retain_graph=True, inputs=own)
    model.eval()
    for what, q in latents(model, x):
        z = q.rsample(torch.Size([2]))
        require(
            z.is_meta and q.mean.is_meta and (not has_density(what, q, z) or q.log_prob(z).is_meta),
            f"{what} left the device of its input; {fix}",
        )
    drawn = importance_sample(model, x, model.names, 2)
    for name, p in model.decode(drawn.z, x.select(model.decoder_given)).items():
        require(p.mean.is_meta, f"decode() of {name} left the device of z; {fix}")


@seeded
def check_globals(setup: Setup) -> None:
    """Building and asking it leave torch's and Python's global state alone, and its input."""
    modalities = toys.mixed(3)
    settings, seed = setup.settings_for(tuple(modalities)), torch.initial_seed()
    changes: list[Change] = []
    with kept(changes, numbers=False):
        model = setup.cls(modalities, settings)
    x = toys.observed(modalities, 4).select(model.names)
    before = {n: v.clone() for n, v in x.items()}
    model.to(torch.get_default_dtype())  # whatever it was built in
    with kept(changes, numbers=False):
        model.train()(x)
        model.eval().prior(known(model, x))
        model.posterior(x)
    changed = [change.what for change in changes]
    changed += ["torch's seed"] if torch.initial_seed() != seed else []
    require(
        not changed,
        f"building or using it changes {listed(changed)}; leave global settings to the program",
    )
    require(
        all(torch.equal(before[n], v) for n, v in x.items()),
        "objective() or posterior() changes its batch; work on a copy",
    )
    first = model.state_dict()
    again = setup.cls(modalities, settings).state_dict()
    shared = {t.untyped_storage().data_ptr() for t in first.values()} - {0}
    require(
        not shared & {t.untyped_storage().data_ptr() for t in again.values()},
        "two models share a tensor; make every layer inside __init__(), not once for all",
    )
