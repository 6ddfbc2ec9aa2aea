"""Tables with empty cells, from the file to a run: kept, counted, never taken for values."""

import csv
import json
import math

import pytest
import torch
from safetensors.torch import load_file
from toys import differing

from mmgen import build
from mmgen.data.store import read_dataset
from mmgen.evaluation.measure import (
    Request,
    measure_agreement,
    measure_coherence,
    measure_likelihoods,
)
from mmgen.experiment import Experiment
from mmgen.gallery.held_out import held_out
from mmgen.run import load
from mmgen.toml import value
from mmgen.training import session
from mmgen.training.run_folder import environment

HEADINGS = ["pet", "height", "weight", "tame", "loud", "tags"]
PETS = ("cat", "dog", "owl")
NETS = {"encoder_widths": [8], "decoder_widths": [8]}


def rows(count):
    """Complete rows: what a pet is can be told off each of the others."""
    stream = torch.Generator().manual_seed(1)
    noise = torch.randn(count, 2, generator=stream).tolist()
    return [
        [
            PETS[i % 3],
            f"{i % 3 + 0.1 * noise[i][0]:.3f}",
            f"{2 * (i % 3) + 0.1 * noise[i][1]:.3f}",
            str(int(i % 3 == 0)),
            str(int(i % 3 == 1)),
            ("soft", "soft|big", "")[i % 3],
        ]
        for i in range(count)
    ]


def with_holes(count):
    """Rows of six sorts: 0 lacks the pet, 1 the vector, 2 one attribute, 3 a list; 4, 5 nothing."""
    made = rows(count)
    for i, row in enumerate(made):
        if i % 6 == 0:
            row[0] = ("", "NA", "?")[i // 6 % 3]
        if i % 6 == 1:
            row[1] = row[2] = "NA"
        if i % 6 == 2:
            row[3] = ""
        if i % 6 == 3:
            row[5] = "?"
    return made


def save(path, table):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADINGS, *table])
    return path


@pytest.fixture
def written(mmgen, tmp_path):
    """Imports a table, and returns the data set."""

    def write(table, *words):
        file = save(tmp_path / "pets.csv", table)
        out = tmp_path / "data"
        code, _, err = mmgen("data", "table", file, "--out", out, "--force", *words)
        assert code == 0, err
        return read_dataset(out)

    return write


def everything(dataset):
    """All rows of all splits, and which of them have what."""
    parts = [split.load() for split in dataset.splits.values()]
    masks = {n for part in parts for n in part.present or {}}
    values = {n: torch.cat([part[n] for part in parts]) for n in parts[0]}
    has = {
        n: torch.cat([(p.present or {}).get(n, torch.ones(p.rows).bool()) for p in parts])
        for n in masks
    }
    return values, has


MISSING = ("--missing", "NA, ?")


def test_rows_with_empty_cells_are_kept_and_say_what_they_lack(written):
    dataset = written(with_holes(60), *MISSING)
    assert sum(split.count for split in dataset.splits.values()) == 60
    assert dataset.modalities["pet"]["classes"] == list(PETS)  # NA is none
    assert dataset.modalities["attributes"]["names"] == ["tame", "loud", "big", "soft"]
    values, has = everything(dataset)
    assert {n: int((~mask).sum()) for n, mask in has.items()} == {"pet": 10, "vector": 10}
    unknown = (values["attributes"] == 2).sum(0).tolist()
    assert unknown == [10, 0, 10, 10]  # an empty list is none of its words; a missing one, unknown


def test_an_empty_cell_is_missing_without_any_word_for_it(written):
    table = rows(30)
    table[4][0] = ""
    table[7][1] = table[7][2] = " "
    _, has = everything(written(table))
    assert {n: int((~mask).sum()) for n, mask in has.items()} == {"pet": 1, "vector": 1}


def test_a_table_without_empty_cells_is_the_data_set_that_it_was(written):
    plain = written(rows(30))
    assert everything(plain)[1] == {}
    assert written(rows(30), *MISSING).hash == plain.hash


def test_means_and_scales_are_those_of_rows_that_have_values(written):
    dataset = written(with_holes(60), *MISSING)
    train = dataset.splits["train"].load()
    known = train["vector"][train.present["vector"]].double()
    assert dataset.modalities["vector"]["mean"] == pytest.approx(known.mean(0).tolist())
    deviation = known.std(0, correction=0).tolist()
    assert dataset.modalities["vector"]["standard_deviation"] == pytest.approx(deviation)


def test_a_row_of_empty_cells_and_a_half_empty_vector_are_bad_rows(mmgen, tmp_path):
    table = rows(30)
    table[3] = ["", "NA", "", "", "", "NA"]
    table[8][2] = ""
    file = save(tmp_path / "pets.csv", table)
    words = ("data", "table", file, "--out", tmp_path / "data", "--missing", "NA")
    code, _, err = mmgen(*words)
    assert code == 2
    assert "2 of 30 rows cannot be used" in err
    assert "line 5: all of its cells are empty" in err
    assert "line 10: weight: the cell is empty, but that of height is not: a vector is" in err
    code, _, _ = mmgen(*words, "--skip-bad")
    assert code == 0
    assert sum(s.count for s in read_dataset(tmp_path / "data").splits.values()) == 28


def test_a_modality_that_no_row_has_is_refused(mmgen, tmp_path):
    table = [[*row[:5], "soft"] for row in rows(20)]
    for row in table:
        row[0] = ""
    config = tmp_path / "pets.toml"
    config.write_text(
        f'[modalities.pet]\nkind = "label"\ncolumns = ["pet"]\nclasses = {value(list(PETS))}\n'
        '[modalities.vector]\ncolumns = ["height", "weight"]\n'
    )
    file = save(tmp_path / "pets.csv", table)
    code, _, err = mmgen("data", "table", file, "--config", config, "--out", tmp_path / "data")
    assert code == 2
    assert "no row has a value of 'pet', of pet" in err


def test_the_card_counts_what_is_missing_by_modality_and_by_pattern(written):
    dataset = written(with_holes(60), *MISSING, "--validation", 0, "--test", 0)
    text = (dataset.path / "README.md").read_text()
    assert "| rows without | train | share |" in text
    assert "| pet | 10 | 16.7 % |" in text
    assert "| vector | 10 | 16.7 % |" in text
    assert "| pet + vector + attributes | 40 | 66.7 % |" in text
    assert "| vector + attributes | 10 | 16.7 % |" in text
    assert "| value | train | share | unknown |" in text
    assert "| tame | 20 | 40.0 % | 10 |" in text  # of 50 of which it is known
    values, has = everything(dataset)
    for name, number in zip(PETS, range(3), strict=True):
        count = int(((values["pet"] == number) & has["pet"]).sum())
        assert f"| {name} | {count} | {2 * count:.1f} % |" in text
    least = values["vector"][has["vector"]][:, 0].min()
    assert f"| height | {least:.4g} |" in text


@pytest.fixture
def experiment(tmp_path):
    def write(dataset, **model):
        tables = [f"[data]\npath = {value(str(dataset.path))}\n"]
        nets = "\n".join(f"{key} = {value(each)}" for key, each in NETS.items())
        tables += [f"[modalities.{n}]\n{nets}\n" for n in dataset.modalities]
        settings = {"kind": "jmvae-kl", "latent": 2, **model}
        tables.append("[model]\n" + "\n".join(f"{k} = {value(v)}" for k, v in settings.items()))
        tables.append(
            '\n[train]\nepochs = 2\nbatch_size = 16\ndevice = "cpu"\nlearning_rate = 0.01\n'
            "benchmark = false\n"
        )
        file = tmp_path / "pets-run.toml"
        file.write_text("\n".join(tables))
        return file

    return write


@pytest.mark.parametrize("kind", ["jmvae", "hierarchical", "cvae", "cmma"])
def test_models_that_cannot_learn_from_such_rows_say_so_before_training(
    mmgen, tmp_path, written, experiment, kind
):
    dataset = written(with_holes(60), *MISSING)
    settings = {"targets": ["pet"]} if kind in ("cvae", "cmma") else {}
    code, _, err = mmgen(
        "train", experiment(dataset, kind=kind, **settings), "-o", tmp_path / "run"
    )
    assert code == 2
    assert f"model.kind = {kind}: " in err
    assert "rows of split 'train' lack modalities" in err
    assert "Models that learn from such rows: jmvae-kl, " in err
    assert "mvae" in err
    assert not (tmp_path / "run").exists()


def test_subsets_without_encoders_are_named_before_training(mmgen, tmp_path, written, experiment):
    dataset = written(with_holes(60), *MISSING)
    code, _, err = mmgen("train", experiment(dataset, subsets="single"), "-o", tmp_path / "run")
    assert code == 2
    assert "rows that have only" in err
    assert "vector+attributes" in err
    assert 'Try model.subsets="all"' in err


def trained(file, out, stop=None):
    """Trains a run, or goes on with it; stops after some steps and epochs."""
    prepared = session.prepare(Experiment.read(file))
    if out.exists():
        assert session.resume(prepared, out)
    else:
        session.start(prepared, out)
    for number, _ in enumerate(session.train(prepared, out), start=1):
        if number == stop:
            session.save(prepared, out)
            return
    assert prepared.training.finished


def test_a_run_on_rows_with_holes_goes_on_bit_for_bit_and_is_measured_on_what_rows_have(
    tmp_path, written, experiment
):
    dataset = written(with_holes(120), *MISSING, "--test", 0.3)
    file, run, whole = experiment(dataset), tmp_path / "run", tmp_path / "whole"
    trained(file, whole)
    for stop in (2, 3, None):  # in the first epoch, and in the second
        trained(file, run, stop)
    weights, expected = (load_file(path / "best.safetensors") for path in (run, whole))
    assert not differing(weights, expected)
    told = [
        [(line["train"], line["validation"]) for line in map(json.loads, lines)]
        for lines in ((path / "metrics.jsonl").read_text().splitlines() for path in (run, whole))
    ]
    assert told[0] == told[1]
    assert len(told[0]) == 2

    found = load(run, device="cpu")
    split = dataset.splits["test"]
    measured = measure_likelihoods(found, Request(samples=2, importance=5))
    for e in measured.estimates:
        if e.estimator != "importance":  # of importance sampling, what proposes z may take more
            assert len(e.values) == split.having([*e.targets, *e.given]).count
    assert any("which have all that it takes" in note for note in measured.notes)
    assert all(math.isfinite(e.nats) for e in measured.estimates)

    coherent = measure_coherence(found, Request(samples=2))
    for row in (row for row in coherent.rows if row.given):  # from nothing, of draws
        assert row.rows == split.having([*row.given, row.target, row.about]).count
    assert {row.about for row in coherent.rows} == {"pet", "attributes"}

    shown = held_out(found, build.registry(), None, environment(run))
    assert shown.x.rows == split.having([*found.modalities]).count

    agreed = measure_agreement(found, "pet", Request(samples=2))
    assert agreed.rows == split.having(["pet", "vector", "attributes"]).count
