"""python -m benchmarks.holes: which cells are missing, and what is compared."""

import argparse

import pytest
import torch

from benchmarks import holes
from mmgen.data.split import Split
from mmgen.data.store import read_dataset, write_dataset

ROWS = 4000


def rows():
    return Split(({"a": torch.arange(ROWS), "b": torch.ones(ROWS), "c": torch.zeros(ROWS, 2)},))


@pytest.mark.parametrize("share", holes.MISSING.values())
def test_no_row_lacks_all_and_the_others_are_as_probable_as_by_chance(share):
    made = holes.holes(rows(), share)
    has = torch.stack([*made.present.values()])
    assert has.any(0).all()
    expected = (1 - share) / (1 - share**3)  # given that not all three are missing
    assert has.double().mean(1).tolist() == pytest.approx([expected] * 3, abs=0.03)
    assert torch.equal(holes.holes(rows(), share).present["b"], made.present["b"])


def test_rows_that_are_whole_are_those_that_lack_nothing():
    made = holes.holes(rows(), 0.5)
    whole = holes._whole(made)
    assert whole["a"].tolist() == [
        n for n, has in enumerate(zip(*made.present.values(), strict=True)) if all(has)
    ]


def test_trials_take_as_many_steps_or_as_long(tmp_path):
    folders = {}
    values = {"a": torch.zeros(60, dtype=torch.uint8), "b": torch.zeros(60, 2)}
    kinds = {
        "a": {"kind": "label", "classes": ["x", "y"]},
        "b": {"kind": "vector", "names": ["u", "v"]},
    }
    for name, count in {"complete": 60, "half": 60, "most": 60, "whole-rows": 20}.items():
        folders[name] = tmp_path / "data" / name
        some = {n: each[:count] for n, each in values.items()}
        write_dataset(folders[name], name="n", about="", modalities=kinds, splits={"train": some})
    assert read_dataset(folders["whole-rows"]).splits["train"].count == 20
    options = argparse.Namespace(epochs=30, seeds=1, experts=True)
    first, plain, experts = holes.trials(folders, options)
    assert [(t.name, t.epochs) for t in plain] == [
        ("half-as-complete", 30),
        ("most-as-complete", 30),
    ]
    assert plain[0].settings == ("model.alpha=0.5", "model.prediction=0.3")
    assert (
        len([*holes.trials(folders, argparse.Namespace(**{**vars(options), "experts": False}))])
        == 2
    )
    assert {t.name: t.epochs for t in first} == {
        "complete": 30,
        "half": 30,
        "most": 30,
        "whole-rows": 90,
    }
    assert {(t.name, t.like.name) for t in experts} == {
        (f"{kind}-{name}", name) for kind in holes.EXPERTS for name in holes.MISSING
    }


def row(given, target, value, z="sampled", measure="accuracy"):
    of = {"given": given, "target": target, "about": "label", "z": z, "measure": measure}
    return {**of, "value": value}


def test_directions_are_from_one_and_sampled_and_the_table_has_shares_of_complete():
    found = holes.directions(
        {
            "rows": [
                row(["label"], "image", 0.9, z="mean"),
                row(["label"], "image", 0.8),
                row(["label", "attributes"], "image", 0.7),
                row([], "image", 0.6),
            ]
        }
    )
    assert found == {"label → image": 0.8, "nothing → image": 0.6}
    whole = {"epochs": 30, "seconds": 100, **found}
    half = {**whole, "label → image": 0.4}
    text = holes.table({"complete": [whole], "half": [half, half]})
    assert "| half | 30 | 100 | 40.0 (0.50) | 60.0 (1.00) |" in text
