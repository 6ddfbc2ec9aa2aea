"""Checks of what a model says of itself: settings, words, directions."""

import ast
import inspect
import json
import sys
from collections.abc import Iterator

from torch import Tensor

from mmgen.errors import listed
from mmgen.template import about_settings
from mmgen.testing.model import toys
from mmgen.testing.model.setup import LATENT, Setup
from mmgen.testing.tools import require, seeded

PICKLES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
"""Modules that write or run objects; ``torch.save`` and ``torch.load`` do so by pickle."""


@seeded
def check_settings(setup: Setup) -> None:
    """Settings survive JSON, unknown keys are refused, and the docstring explains each."""
    cls = setup.cls.Settings
    settings = setup.settings_for(tuple(toys.mixed(3)))
    values = json.loads(json.dumps(settings.model_dump(mode="json")))
    again = cls(**values)
    require(
        again == settings and again.model_dump(mode="json") == values,
        f"built again from JSON, {settings!r} is {again!r}; keep all that matters in fields that "
        "JSON can hold",
    )
    config = cls.model_config
    require(
        config.get("extra") == "forbid" and config.get("frozen") is True,
        'Settings must keep extra="forbid" and frozen=True, or misspelt settings pass unseen',
    )
    unsaid = [name for name in cls.model_fields if name not in about_settings(cls)]
    require(
        not unsaid,
        f"the docstring of Settings does not explain {listed(unsaid)}; add a line under "
        "'Attributes:', which users read beside the setting in their configuration",
    )


@seeded
def check_description(setup: Setup) -> None:
    """Equation, formula and sentences are text, and encoder nets are as many as it says."""
    cls = setup.cls
    require(
        isinstance(cls.equation, tuple) and all(isinstance(part, str) for part in cls.equation),
        f"equation is {cls.equation!r}; give a tuple of texts, one for each line: "
        '("log p(x | z)", "− KL(q ‖ p)")',
    )
    require(isinstance(cls.formula, str), f'formula is {cls.formula!r}; give a text, "K", or ""')
    for count in (2, 3):
        modalities = toys.mixed(count)
        model, settings = setup.build(modalities), setup.settings_for(tuple(modalities))
        told = cls.encoder_count(settings, count)
        nets = list(model.encoder_nets())
        counted = sum(copies for copies, _ in nets)
        require(
            told is None or told == counted,
            f"encoder_count() says {told} for {count} modalities, but encoder_nets() yields "
            f"{counted}; correct the formula, return None where it does not hold, or hold nets in "
            "a ByModality",
        )
        for what, words in (("about()", model.about()), ("direction()", model.direction())):
            require(
                isinstance(words, str) and bool(words.strip()),
                f"{what} gave {words!r}; give a sentence, or the class a docstring",
            )
    require(
        cls.__doc__ is not None,
        "the class has no docstring; its first sentence is what reports say of the model",
    )


@seeded
def check_directions(setup: Setup) -> None:
    """A conditional model says what it generates from what; a joint one decodes z alone."""
    for model, _ in setup.cases():
        names, ways = {*model.names}, model.directions
        require(
            {*model.targets} <= names and len(model.targets) > 0,
            f"targets are {listed(model.targets)}, of modalities {listed(model.names)}; pass to "
            "super().__init__() the modalities that it is of, and some of them as targets",
        )
        if ways is None:
            require(
                {*model.targets} == names and not model.decoder_given,
                "directions is None, which says that anything generates anything, but not all "
                "modalities are targets or decoders read a modality; set self.directions",
            )
            require(model.generates([], model.names), "generates() refuses what directions allow")
            continue
        C, T = {*ways.given}, {*ways.targets}
        require(
            bool(C) and bool(T) and names == C | T and not C & T and {*model.targets} == T,
            f"directions are {ways}, targets {listed(model.targets)} and modalities "
            f"{listed(model.names)}; given and targets share no modality and are all of them",
        )
        require(
            {*model.decoder_given} <= C,
            f"decoders read {listed(model.decoder_given)}, but {listed(ways.given)} is given",
        )
        require(
            model.generates(C, T) and not model.generates(T, C),
            "generates() does not follow directions; leave it as it is",
        )


@seeded
def check_pickle(setup: Setup) -> None:
    """Nothing is pickled: the state is tensors alone, and the code saves no objects."""
    model = setup.build(toys.mixed(2), LATENT)
    other = [name for name, value in model.state_dict().items() if not isinstance(value, Tensor)]
    require(
        not other,
        f"state_dict() holds {listed(other)}, which is no tensor and would have to be pickled; "
        "keep state as parameters or with register_buffer(), and write no get_extra_state()",
    )
    found = sorted(set(_pickling(setup.cls)))
    require(
        not found,
        f"its module uses {listed(found)}; files of pickles run code when they are read: keep "
        "state as tensors, and let mmgen save it",
    )


def _pickling(cls: type) -> Iterator[str]:
    """Yields what the class's module names of what pickles."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[cls.__module__]))
    except (OSError, TypeError, KeyError, SyntaxError):  # no source to look at
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.partition(".")[0] in PICKLES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PICKLES:
            yield str(node.module)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            if name in ("torch.save", "torch.load"):
                yield name
