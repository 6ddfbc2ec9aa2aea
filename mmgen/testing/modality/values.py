"""Checks of a modality's values: configuration, reading, observing, showing."""

import json

import torch
from torch import Tensor

from mmgen.brief import short
from mmgen.errors import listed
from mmgen.isolation import Change, kept
from mmgen.modality import Modality
from mmgen.prediction import Told
from mmgen.testing.modality.made import LATENT, generator, latent, observed, stored
from mmgen.testing.tools import require, seeded


@seeded
def check_configuration(modality: Modality) -> None:
    """A configuration survives JSON and gives an equal modality; unknown keys are refused."""
    settings = json.loads(json.dumps(modality.to_config()))
    kind = settings.pop("kind", None)
    require(kind == modality.kind, f"to_config() gives kind {kind!r}; leave it as it is")
    again = type(modality)(**settings)
    require(
        again == modality and again.to_config() == modality.to_config(),
        f"built again from to_config(), {modality!r} is {again!r}; "
        "keep all that matters in fields that JSON can hold",
    )
    config = type(modality).model_config
    require(
        config.get("extra") == "forbid" and config.get("frozen") is True,
        'model_config must keep extra="forbid" and frozen=True, or misspelt settings pass unseen',
    )


@seeded
def check_example(modality: Modality) -> None:
    """Synthetic values come one for each class number, and depend on the generator alone."""
    before = torch.get_rng_state()
    first, second = stored(modality, 7), stored(modality, 7)
    require(len(first) == 7, f"example() gave {len(first)} rows for 7 classes; give one for each")
    require(
        torch.equal(first, second) and torch.equal(before, torch.get_rng_state()),
        "example() draws random numbers of its own; draw all with generator=generator",
    )


@seeded
def check_parse(modality: Modality) -> None:
    """All choices can be read, as the same kind of tensor as ``example``; nonsense is refused."""
    example = stored(modality, 1)[0]
    for choice in modality.choices():
        try:
            value = modality.parse(choice)
        except ValueError as error:
            raise AssertionError(
                f"choices() lists {choice!r}, but parse() refuses: {error}"
            ) from error
        require(
            value.dtype == example.dtype and value.shape == example.shape,
            f"parse({choice!r}) gave {value.dtype} {tuple(value.shape)}, but example() gives "
            f"{example.dtype} {tuple(example.shape)}; store both in one form",
        )
    for cell in ("", "no/such value\N{INTERROBANG}"):
        try:
            modality.parse(cell)
        except ValueError as error:
            require(
                bool(str(error)), f"parse({cell!r}) raises without a message; say what is allowed"
            )
        except Exception as error:
            raise AssertionError(
                f"parse({cell!r}) raised {type(error).__name__}; raise ValueError and say what is "
                "allowed"
            ) from error


@seeded
def check_globals(modality: Modality) -> None:
    """Observing and building nets leave torch's and Python's global state alone."""
    values = stored(modality, 7)
    original, random, seed = values.clone(), torch.get_rng_state(), torch.initial_seed()
    changes: list[Change] = []
    with kept(changes, numbers=False):
        first = modality.observe(values, generator())
        second = modality.observe(values, generator())
        observing = torch.get_rng_state()
        modality.encoder(), modality.decoder(LATENT)
    require(torch.equal(values, original), "observe() changes its argument; work on a copy")
    require(
        torch.equal(first, second),
        "observe() gave two results for one generator; draw all with generator=generator",
    )
    require(
        torch.equal(random, observing),
        "observe() uses torch's global random numbers; draw all with generator=generator",
    )
    changed = [change.what for change in changes]
    changed += ["torch's seed"] if torch.initial_seed() != seed else []
    require(
        not changed,
        f"observe(), encoder() and decoder() change {listed(changed)}; leave global settings to "
        "the program",
    )


@seeded
def check_render(modality: Modality) -> None:
    """Observations and means are drawn as (n, 3, H, W) in [0, 1], or not at all."""
    for what, x in _shown(modality).items():
        picture = modality.render(x)
        if picture is None:
            continue
        require(
            picture.dim() == 4 and picture.shape[:2] == (3, 3),
            f"render() gave {tuple(picture.shape)} for 3 {what}; give (3, 3, H, W), or None",
        )
        low, high = float(picture.min()), float(picture.max())
        require(
            0 <= low <= high <= 1,
            f"render() of {what} leaves [0, 1]: {low:.3g} to {high:.3g}; clamp it",
        )


@seeded
def check_describe(modality: Modality) -> None:
    """Observations and means are described in one text per row."""
    for what, x in _shown(modality).items():
        words = modality.describe(x)
        require(
            isinstance(words, list) and [type(word) for word in words] == [str] * 3,
            f"describe() gave {words!r} for 3 {what}; give a list of one text a row",
        )


@seeded
def check_tell(modality: Modality) -> None:
    """What means most probably are is told for each column, one value and how sure per row."""
    mean = _shown(modality)["means"]
    told = modality.tell(mean, torch.ones_like(mean))
    columns = [*(modality.column_names() or ("",))]
    require(
        isinstance(told, dict) and [*told] == columns,
        f"tell() gave {short(told)}, but column_names() are {columns}; tell each of them, or "
        "'' if there are none",
    )
    for name, each in told.items():
        require(
            isinstance(each, Told)
            and all(len(v) == 3 for v in (each.values, each.confidence, each.deviation) if v),
            f"tell() gave {short(each)} under {name!r} for 3 means; give a Told with one each",
        )
        sure = each.confidence or ()
        require(
            all(0 <= p <= 1 for p in sure),
            f"tell() is {sure} confident of {name!r}; probabilities are from 0 to 1",
        )


def _shown(modality: Modality) -> dict[str, Tensor]:
    with torch.no_grad():
        mean = modality.decoder(LATENT).eval()(latent(3)).mean
    return {"observations": observed(modality, 3), "means": mean}
