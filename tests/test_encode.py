"""mmgen encode: what the run encodes, row by row, in every format; how unusual rows are."""

import math

import numpy as np
import pytest
import torch
import truth
from safetensors.numpy import load_file
from toys import CPU

import mmgen as package
from mmgen.batch import Batch
from mmgen.data.store import read_dataset
from mmgen.encoding.codes import encoded
from mmgen.encoding.outliers import Likelihoods


def of_csv(path):
    head, *lines = path.read_text().splitlines()
    names = head.split(",")
    numbers = np.array([[float(cell) for cell in line.split(",")] for line in lines])
    return {name: numbers[:, i] for i, name in enumerate(names)}


@pytest.fixture(scope="module")
def run(trained):
    return package.load(trained, device="cpu")


def test_a_data_set_is_encoded_as_row_by_row(run, trained, small_glyphs, mmgen, tmp_path):
    out = tmp_path / "z.npz"
    code, told, error = mmgen("encode", trained, small_glyphs, "-o", out, "--split", "test")
    assert code == 0, error
    assert "z.npz: 80 rows" in told
    found = np.load(out)
    split = read_dataset(small_glyphs).splits["test"]
    assert found["mean"].shape == found["deviation"].shape == (80, 8)
    for row in range(0, 80, 17):
        q = run.encode(split.take(torch.tensor([row])))
        np.testing.assert_allclose(found["mean"][row], q.mean[0], atol=1e-5)
        np.testing.assert_allclose(found["deviation"][row], q.stddev[0], atol=1e-5)
    assert mmgen("encode", trained, small_glyphs, "-o", out)[0] == 0
    assert np.load(out)["mean"].shape == (560, 8)


def test_all_formats_hold_the_same(trained, small_glyphs, mmgen, tmp_path):
    words = ("--split", "validation", "--given", "label", "--likelihood", "-n", 5)
    files = {s: tmp_path / f"z.{s}" for s in ("csv", "npz", "safetensors", "parquet")}
    if not pytest.importorskip("pyarrow"):
        del files["parquet"]
    for file in files.values():
        assert mmgen("encode", trained, small_glyphs, "-o", file, *words)[0] == 0
    csv, npz, safetensors = (
        of_csv(files["csv"]),
        np.load(files["npz"]),
        load_file(files["safetensors"]),
    )
    for name in ("mean", "deviation", "log_likelihood"):
        assert np.array_equal(npz[name], safetensors[name])
    assert [*csv][:3] == ["row", "z1", "z2"]
    assert [*csv][-1] == "log_likelihood"
    np.testing.assert_allclose(csv["z3_deviation"], npz["deviation"][:, 2], rtol=1e-6)
    import pyarrow.parquet as pq

    table = pq.read_table(files["parquet"])
    assert table.column_names == [*csv]
    assert np.array_equal(table.column("z8").to_numpy(), npz["mean"][:, 7])
    assert table.column("row").to_pylist() == list(range(80))


def test_a_table_is_encoded_by_what_each_row_has(run, trained, mmgen, tmp_path):
    table, out = tmp_path / "t.csv", tmp_path / "z.csv"
    table.write_text("label;tags\nA;bold|italic\n?;bold\nB;\n")
    code, _, error = mmgen("encode", trained, table, "-o", out, "--missing", "?")
    assert code == 0, error
    assert "not in the table: image" in error
    rows = {"label": ["A", None, "B"], "attributes": ["bold,italic", "bold", "none"]}
    q = run.encode(rows)
    found = of_csv(out)
    for d in range(8):
        np.testing.assert_allclose(found[f"z{d + 1}"], q.mean[:, d], atol=1e-5)
    assert mmgen("encode", trained, table, "-o", out, "--missing", "?", "--given", "label")[0] == 0
    alone = run.encode({"label": rows["label"]}).mean
    np.testing.assert_allclose(of_csv(out)["z1"], alone[:, 0], atol=1e-5)
    table.write_text("label\nA\nÄ\n")
    before = out.read_bytes()
    code, _, error = mmgen("encode", trained, table, "-o", out)
    assert code == 2
    assert "line 3: label" in error
    assert out.read_bytes() == before
    table.write_text("label\n")
    for name in ("z.csv", "z.npz", "z.safetensors"):
        code, told, error = mmgen("encode", trained, table, "-o", tmp_path / name)
        assert code == 0, error
        assert "0 rows" in told
    assert np.load(tmp_path / "z.npz")["mean"].shape == (0, 8)
    assert out.read_text().startswith("row,z1,")


def test_outliers_of_a_run_are_held_against_its_own_data(trained, small_glyphs, mmgen, tmp_path):
    out = tmp_path / "z.csv"
    words = ("encode", trained, small_glyphs, "-o", out, "--split", "test", "--outliers", "-n", 4)
    code, _, error = mmgen(*words)
    assert code == 0, error
    found = of_csv(out)
    assert abs(found["outlier"].mean()) < 0.6
    assert ((found["p_value"] > 0) & (found["p_value"] <= 1)).all()
    assert 0.3 < found["p_value"].mean() < 0.7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "z.txt"), "z are written as .parquet, .csv, .npz, .safetensors"),
        (("-o", "z.csv", "--split", "tests"), "did you mean 'test'"),
        (("-o", "z.csv", "--given", "lable"), "did you mean 'label'"),
        (("-o", "z.csv", "--reference", "."), "--reference is for --outliers"),
    ],
)
def test_what_cannot_be_encoded_is_told(
    trained, small_glyphs, mmgen, tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    code, _, error = mmgen("encode", trained, small_glyphs, *words)
    assert code == 2
    assert message in error
    assert not list(tmp_path.iterdir())


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_of_rows_like_those_held_out_a_share_p_has_a_p_value_of_p(double):
    toy = truth.linear_joint("ab", rows=900)
    held_out, rows = toy.x.slice(0, 400), toy.x.slice(400, 900)
    likelihoods = Likelihoods(toy.model, 2, held_out=held_out)
    part = Batch(rows.tensors, {"a": torch.arange(500) % 2 == 0})
    found = likelihoods.of(part, 500)
    for p in (0.05, 0.2, 0.5):
        share = (found["p_value"] <= p).double().mean()
        # the share of 500 rows, and the place among 400
        error = math.sqrt(p * (1 - p) * (1 / 500 + 1 / 400))
        assert abs(share - p) < 3.5 * error + 1 / 400
    # each by rows that have as much: log p(x_b) and log p(x_a, x_b) are not of one scale
    exact = toy.linear.log_p(rows, ("b",))[1::2]
    usual = toy.linear.log_p(held_out, ("b",))
    score = (usual.mean() - exact) / usual.std(correction=0)
    torch.testing.assert_close(found["outlier"][1::2], score, atol=1e-3, rtol=1e-3)
    far = Batch({"a": torch.full((1, 3), 30.0), "b": torch.full((1, 2), -30.0)})
    assert likelihoods.of(far, 1)["p_value"][0] == 1 / 401
    assert likelihoods.of(far, 1)["outlier"][0] > 50
    nothing = likelihoods.of(Batch({}), 2)
    assert nothing["p_value"].tolist() == [1, 1]


def test_held_out_rows_that_lack_something_stand_beside_those_that_do_not(double):
    toy = truth.linear_joint("ab", rows=300)
    has = torch.arange(300) % 3 > 0
    lacking = Batch({**toy.x, "a": torch.where(has[:, None], toy.x["a"], 0)}, {"a": has})
    there = Batch({n: values[has] for n, values in toy.x.items()})
    [of_holes, alone] = [
        Likelihoods(toy.model, 2, held_out=held_out).of(toy.x, 300) for held_out in (lacking, there)
    ]
    for name, values in alone.items():
        torch.testing.assert_close(of_holes[name], values)
    nobody = Batch(lacking.tensors, {"a": has & False})
    found = Likelihoods(toy.model, 2, held_out=nobody).of(toy.x, 3)
    assert found["outlier"][:3].isnan().all()
    assert found["p_value"][:3].tolist() == [1, 1, 1]


def test_chunks_are_encoded_when_they_are_asked_for(double):
    toy = truth.linear_joint("ab", rows=6)
    read = []

    def chunks():
        for start in range(0, 6, 2):
            read.append(start)
            yield toy.x.slice(start, start + 2), 2

    codes = encoded(toy.model, chunks())
    first = next(codes)
    assert read == [0]
    mean, covariance = toy.linear.posterior(toy.x, ("a", "b"))
    torch.testing.assert_close(first.mean, mean[:2])
    torch.testing.assert_close(
        first.deviation, covariance.diagonal().sqrt().expand(2, 2), atol=1e-5, rtol=0
    )
    assert first.columns().keys() == {"z1", "z2", "z1_deviation", "z2_deviation"}
    assert first.mean.device == CPU
