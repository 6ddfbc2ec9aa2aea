"""Every public object is shown in one readable line, whatever it holds."""

import dataclasses
import importlib
import inspect
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import nn

import mmgen as package
from mmgen import build
from mmgen.brief import OneLine
from mmgen.data.index import read_index
from mmgen.data.store import read_dataset
from mmgen.evaluation.likelihood.estimates import SamplingBudget
from mmgen.experiment import Experiment
from mmgen.modality import Modality
from mmgen.run import load
from mmgen.training import session
from mmgen_attributes import Attributes
from mmgen_image import Image
from mmgen_label import Label
from mmgen_vector import Vector

MANY = tuple(f"word {i}" for i in range(1000))


def public() -> list[type]:
    found = {}
    for module in pkgutil.walk_packages(package.__path__, "mmgen."):
        if module.name.startswith(("mmgen.cli", "mmgen.__main__")):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            here = inspect.isclass(value) and value.__module__ == module.name
            if here and not name.startswith("_"):
                found[f"{module.name}.{name}"] = value
    return [found[name] for name in sorted(found)]


DATACLASSES = [cls for cls in public() if dataclasses.is_dataclass(cls)]

HUGE = (
    torch.randn(1000, 3, 3),
    np.ones((50, 50)),
    MANY,
    [torch.ones(100)] * 1000,
    {word: torch.ones(100) for word in MANY},
    "a line\nand another\x1b[31m" * 1000,
    Path("a" * 250) / "b\n",
    nn.Sequential(*[nn.Linear(2, 2)] * 10),
    10**400,
    object,
    None,
)


def one_line(value: object) -> bool:
    told = repr(value)
    return len(told) <= 200 and told.isprintable() and "tensor(" not in told


@pytest.mark.parametrize("cls", DATACLASSES, ids=lambda cls: cls.__qualname__)
def test_whatever_a_dataclass_holds_is_one_line(cls):
    for thing in HUGE:
        held = object.__new__(cls)
        for field in dataclasses.fields(cls):
            number = str(getattr(field.type, "__name__", field.type)) in {"int", "float", "bool"}
            object.__setattr__(held, field.name, 1 if number else thing)
        assert one_line(held), repr(held)
        assert repr(held).startswith(cls.__name__)


def test_the_dataclasses_were_found():
    assert len(DATACLASSES) > 50


MODALITIES = [
    Image(),
    Label(classes=MANY),
    Attributes(names=MANY),
    Vector(names=MANY, mean=[1 / 3] * 1000, standard_deviation=[1 / 3] * 1000),
]


@pytest.mark.parametrize("modality", MODALITIES, ids=lambda modality: modality.kind)
def test_a_modality_is_one_line(modality):
    assert one_line(modality)
    assert str(modality) == repr(modality)
    assert not one_line(modality.model_dump()) or modality.kind == "image"


def test_a_line_says_what_matters():
    words = "classes=['word 0', 'word 1', 'word 2', … 1,000]"
    assert repr(Label(classes=MANY)) == f"Label({words})"
    assert repr(Image(height=8)) == "Image(height=8)"
    assert repr(SamplingBudget(samples=3)).startswith("SamplingBudget(samples=3, importance=")


def test_the_objects_of_a_training_and_a_run_are_one_line(trained, small_glyphs):
    experiment = Experiment.read(ROOT / "examples" / "glyphs.toml", [f"data.path='{small_glyphs}'"])
    dataset = read_dataset(small_glyphs)
    prepared = session.prepare(experiment)
    run = load(trained)
    registry = build.registry()
    objects = [
        experiment,
        *(getattr(experiment, name) for name in type(experiment).model_fields),
        dataset,
        *dataset.splits.values(),
        read_index(small_glyphs),
        prepared,
        prepared.training,
        prepared.train,
        registry,
        *registry.records,
        *prepared.modalities.values(),
        run,
        run.generate(samples=2),
        run.generate({"label": ["A", "B"]}, samples=2),
        run.generate({"label": ["A", "B"]}, ["image"], 2)["image"],
    ]
    for value in objects:
        assert one_line(value), repr(value)
    assert repr(run).startswith(f"Run(path={str(trained)!r}"[:40])
    assert "image" in repr(prepared.train)


def test_every_public_class_that_holds_values_is_shown_by_one_rule():
    plain = {cls for cls in public() if issubclass(cls, Modality) or dataclasses.is_dataclass(cls)}
    own = {cls for cls in plain if not issubclass(cls, OneLine)}
    for cls in own:  # numbers alone
        kinds = {getattr(f.type, "__name__", f.type) for f in dataclasses.fields(cls)}
        assert kinds <= {"int", "float", "bool"}, cls
