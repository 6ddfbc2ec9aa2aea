"""The source of AnnData and MuData files: matrices, labels, vectors, and files that mean harm."""

import os
import sys
import warnings

import numpy as np
import pytest
import torch

import mmgen_anndata
from mmgen.data.store import read_dataset

anndata = pytest.importorskip("anndata", reason="needs anndata: pip install mmgen-vae[anndata]")
h5py = pytest.importorskip("h5py")
mudata = pytest.importorskip("mudata", reason="needs mudata, which writes MuData")
pandas = pytest.importorskip("pandas")
sparse = pytest.importorskip("scipy.sparse")

ROWS, GENES = 60, 7


def cells(rows=ROWS, genes=GENES, first=0):
    """Returns cells of three types, whose counts are functions of the row's number."""
    numbers = np.arange(first, first + rows)
    counts = (numbers[:, None] * (np.arange(genes) + 1)) % 11 * ((numbers[:, None] % 3) > 0)
    obs = pandas.DataFrame(
        {
            "type": pandas.Categorical(np.array(["T, cell", "B", "NK"])[numbers % 3]),
            "batch": pandas.Categorical([f"{n}" for n in numbers]),
            "donor": [f"d{n % 2}" for n in numbers],
            "part": np.array(["train", "val", "test"])[numbers % 3],
            "depth": counts.sum(1),
        },
        index=[f"cell {n}" for n in numbers],
    )
    var = pandas.DataFrame(
        {"highly_variable": np.arange(genes) % 2 == 0}, index=[f"g{n}" for n in range(genes)]
    )
    data = anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs, var)
    data.layers["log"] = np.log1p(counts).astype(np.float32)
    data.obsm["X_pca"] = numbers[:, None] / np.array([[3.0, 7.0]])
    return data


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "cells.h5ad"
    cells().write_h5ad(path)
    return path


def values(out):
    """Returns the stored values of all splits, and how many rows each has."""
    dataset = read_dataset(out)
    parts = [split.load() for split in dataset.splits.values()]
    counts = {name: split.count for name, split in dataset.splits.items()}
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}, counts


@pytest.mark.parametrize("form", ["csr", "dense"])
@pytest.mark.parametrize("at_once", [mmgen_anndata.BYTES, 200])
def test_counts_labels_and_vectors_are_those_of_the_file(
    mmgen, tmp_path, monkeypatch, form, at_once
):
    monkeypatch.setattr(mmgen_anndata, "BYTES", at_once)
    data, path, out = cells(), tmp_path / "cells.h5ad", tmp_path / "out"
    if form == "dense":
        data.X = data.X.toarray()
    data.write_h5ad(path)
    words = ("--obsm", "X_pca", "--split-column", "part", "--out", out)
    code, said, err = mmgen("data", "anndata", path, *words)
    assert code == 0, err
    assert (
        said == f"{out}: 20 train, 20 validation, 20 test; modalities counts, X_pca, type, donor\n"
    )
    modalities = read_dataset(out).modalities
    assert modalities["counts"]["names"] == [f"g{n}" for n in range(GENES)]
    assert modalities["counts"]["largest"] == 255
    assert modalities["type"]["classes"] == ["B", "NK", "T cell"]
    stored, _ = values(out)
    order = np.concatenate([np.arange(ROWS)[np.arange(ROWS) % 3 == n] for n in range(3)])
    expected = np.asarray(data.X.todense() if form == "csr" else data.X)[order]
    assert stored["counts"].dtype == torch.uint8
    assert torch.equal(stored["counts"], torch.from_numpy(expected.astype(np.uint8)))
    assert torch.equal(stored["X_pca"], torch.from_numpy(data.obsm["X_pca"][order]).float())
    assert stored["type"].tolist() == [2] * 20 + [0] * 20 + [1] * 20


def test_layers_columns_and_labels_are_chosen(mmgen, file, tmp_path):
    words = ("--layer", "log", "--variables", "highly_variable", "--labels", "donor")
    code, _, err = mmgen("data", "anndata", file, *words, "--test", 0, "--out", tmp_path / "out")
    assert code == 0, err
    modalities = read_dataset(tmp_path / "out").modalities
    assert [*modalities] == ["vector", "donor"]
    assert modalities["vector"]["names"] == ["g0", "g2", "g4", "g6"]
    stored, counts = values(tmp_path / "out")
    assert counts == {"train": 54, "validation": 6}
    log = cells().layers["log"][:, ::2]
    assert {*map(tuple, stored["vector"].tolist())} == {*map(tuple, log.tolist())}


def test_each_modality_of_mudata_is_one_and_rows_are_matched_by_name(mmgen, tmp_path):
    rna, protein = cells(), cells(ROWS, 4, first=10)  # the first ten cells have no protein
    protein.X = protein.layers["log"]
    protein = protein[::-1].copy()
    path, out = tmp_path / "cells.h5mu", tmp_path / "out"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mudata: what its next version will do
        data = mudata.MuData({"rna": rna, "protein": protein})
        data.obs["type"] = pandas.Categorical(np.where(np.arange(data.n_obs) % 2, "a", "b"))
        data.write(path)
    words = ("--validation", 0, "--test", 0, "--labels", "type")
    code, _, err = mmgen("data", "anndata", path, "--out", tmp_path / "all", *words)
    assert code == 0, err
    every = read_dataset(tmp_path / "all").splits["train"]
    lacking = {name: int((~has).sum()) for name, has in every.present.items()}
    assert (every.count, lacking) == (70, {"protein": 10, "rna": 10})
    rows = every.load()
    both = every.present["protein"] & every.present["rna"]
    code, _, err = mmgen("data", "anndata", path, "--out", out, *words, "--complete")
    assert code == 0, err
    stored, _ = values(out)
    kinds = {name: each["kind"] for name, each in read_dataset(out).modalities.items()}
    assert kinds == {"rna": "counts", "protein": "vector", "type": "label"}
    assert len(stored["rna"]) == 50
    for name, known in stored.items():  # drawn in another order
        assert sorted(known.tolist()) == sorted(rows[name][both].tolist())
    assert not rows["rna"][~every.present["rna"]].any()
    # The four proteins are the logarithms of the first four genes.
    close = stored["rna"][:, :4].float().log1p()
    torch.testing.assert_close(stored["protein"], close)
    assert "without 20 that lack protein, rna" in read_dataset(out).about


def test_a_file_is_trained_on_and_generates(mmgen, file, tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    assert mmgen("data", "anndata", file, "--out", data)[0] == 0
    nets = [
        f"modalities.{n}.{side}_widths=[8]"
        for n in ("counts", "type")
        for side in ("encoder", "decoder")
    ]
    code, _, err = mmgen("train", data, *nets, "model.latent=2", "train.epochs=1", "--out", run)
    assert code == 0, err
    code, said, err = mmgen("generate", run, "--given", "type=NK", "--targets", "counts")
    assert code == 0, err
    assert said.startswith("counts: g0 ")


def changed(change):
    def make(path):
        data = cells()
        path.unlink()
        change(data)
        data.write_h5ad(path)

    return make


def rewritten(change):
    def make(path):
        with h5py.File(path, "r+") as file:
            change(file)

    return make


def lost_label(data):
    data.obs["type"] = data.obs["type"].cat.remove_categories(["T, cell"])


def link(file):
    del file["X"]
    file["X"] = h5py.ExternalLink("/etc/hosts", "/X")


def elsewhere(file):
    del file["layers/log"]
    file["layers"].create_dataset(
        "log", (ROWS, GENES), np.float32, external=[("/etc/hosts", 0, h5py.h5f.UNLIMITED)]
    )


def giant(file):
    del file["obs/depth"]
    file["obs"].create_dataset("depth", (2**40,), np.int64, chunks=(2**10,))


def set_to(name, key, value):
    def change(file):
        file[name][key] = value

    return change


@pytest.mark.parametrize(
    ("make", "words", "message"),
    [
        (lambda path: path.unlink(), (), "there is no such file"),
        (lambda path: path.write_bytes(b"no"), (), "cannot be read as HDF5"),
        (lambda path: (path.unlink(), os.mkfifo(path)), (), "is a pipe"),
        (rewritten(lambda file: file.__delitem__("obs")), (), "it has no obs"),
        (rewritten(lambda file: file.__delitem__("X")), (), "has no X"),
        (rewritten(link), (), "X is a link, which is not followed"),
        (rewritten(elsewhere), ("--layer", "log"), "lies in other files"),
        (rewritten(giant), (), "has more than 2,147,483,648 bytes"),
        (rewritten(set_to("X/indices", 3, 99)), (), "of variables that there are not"),
        (rewritten(set_to("X/indices", 3, -1)), (), "of variables that there are not"),
        (rewritten(set_to("X/indptr", 30, 2**30)), (), "its rows are damaged"),
        (changed(lambda data: setattr(data, "X", data.X.tocsc())), (), "is stored as csc_matrix"),
        (
            changed(lost_label),
            ("--labels", "type", "--split-column", "part"),
            "no row to train on has type",
        ),
        (lambda path: None, ("--layer", "lgo"), "has no layers/lgo; did you mean 'log'?"),
        (lambda path: None, ("--layer", "log", "--matrix", "counts"), "counts are whole"),
        (lambda path: None, ("--labels", "tpye"), "obs has no column 'tpye'; did you mean 'type'?"),
        (lambda path: None, ("--labels", "part", "--obsm", "no"), "has no obsm/no"),
        (lambda path: None, ("--variables", "none"), "var has no column 'none'"),
        (lambda path: None, ("--split-column", "donor"), "not 'd0'"),
        (lambda path: None, ("--validation", "0.6", "--test", "0.4"), "less than 1 together"),
        (
            changed(lambda data: data.obs.drop(columns=["type", "donor", "part"], inplace=True)),
            (),
            "only counts",
        ),
    ],
)
def test_what_cannot_be_a_data_set_is_one_message(mmgen, file, tmp_path, make, words, message):
    make(file)
    code, said, err = mmgen("data", "anndata", file, "--out", tmp_path / "out", *words)
    assert (code, said) == (2, "")
    assert message in err, err
    assert err.count("error:") == 1
    assert "failed: " not in err
    assert not (tmp_path / "out").exists()


def test_numbers_that_are_none_are_refused(mmgen, file, tmp_path):
    rewritten(set_to("X/data", 5, np.nan))(file)
    code, _, err = mmgen("data", "anndata", file, "--out", tmp_path / "out")
    assert (code, "not all of its numbers are finite" in err) == (2, True)


def test_damaged_files_are_one_message(mmgen, file, tmp_path):
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    for number in range(12):
        broken = bytearray(whole)
        if number < 9:
            for place in rng.integers(0, len(whole), 40):
                broken[place] = rng.integers(256)
        else:
            broken = broken[: rng.integers(len(whole))]
        file.write_bytes(broken)
        code, _, err = mmgen("data", "anndata", file, "--out", tmp_path / "out", "--force")
        assert code in {0, 2}
        assert "failed: " not in err, err


def test_without_anndata_the_message_says_what_to_install(mmgen, file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "anndata", None)
    code, _, err = mmgen("data", "anndata", file, "--out", tmp_path / "out")
    assert (code, 'pip install "mmgen-vae[anndata]"' in err) == (2, True)
    assert mmgen("data", "anndata", "--help")[0] == 0
