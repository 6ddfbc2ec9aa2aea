"""mmgen fill: against exact conditional means, and what was there byte for byte."""

import csv
import io
import math
import random
import sys
import tracemalloc

import pytest
import torch
import truth
from toys import CPU

import mmgen as package
from mmgen.filling.csv import fill_csv
from mmgen.filling.filler import Filling, Writing
from mmgen.filling.tables import Request
from mmgen.registry.loading import Registry
from mmgen.run import Run
from mmgen.tabular.raw import opened

NETS = {"encoder_widths": [16], "decoder_widths": [16]}
KINDS = {
    "shape": {"kind": "label", "classes": ["円", "square", 'a "big" one'], **NETS},
    "attributes": {"kind": "attributes", "names": ["large", "dark"], **NETS},
    "vector": {"kind": "vector", "names": ["height", "weight"], **NETS},
}


def columns(count, seed=0):
    g = torch.Generator().manual_seed(seed)
    k = torch.randint(3, (count,), generator=g)
    on = torch.rand(count, 2, generator=g) < (0.05 + 0.45 * k).unsqueeze(1)
    size = torch.stack([1.5 + 0.3 * k, 60 + 10.0 * k], 1)
    size += torch.randn(count, 2, generator=g) * torch.tensor([0.03, 1.0])
    return {"shape": k, "attributes": on.to(torch.uint8), "vector": size}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = {
        "modalities": KINDS,
        "model": {"latent": 2},
        "train": {"epochs": 60, "batch_size": 30, "learning_rate": 1e-2},
    }
    return package.train(settings, columns(300), out=tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def fill(run, mmgen, tmp_path):
    def filled(content, *words, name="table.csv", encoding="utf-8"):
        table, out = tmp_path / name, tmp_path / "out" / f"filled{name[-4:]}"
        raw = content if isinstance(content, bytes) else content.encode(encoding)
        table.write_bytes(raw)
        code, told, error = mmgen("fill", run.path, table, "-o", out, *words)
        return code, told + error, out.read_bytes() if out.exists() else None

    return filled


HEAD = "shape,large,dark,height,weight,note\n"


def rows_of(content, encoding="utf-8"):
    return list(csv.DictReader(io.StringIO(content.decode(encoding), newline="")))


def test_empty_cells_are_filled_and_say_how_sure_they_are(fill):
    table = HEAD + "円,0,0,1.5,,x\n,1,1,2.1,80,y\nsquare,,0,,,z\n"
    code, told, out = fill(table)
    assert code == 0, told
    a, b, c = rows_of(out)
    assert list(a) == [
        *("shape", "shape_confidence", "large", "large_confidence", "dark", "dark_confidence"),
        *("height", "height_deviation", "weight", "weight_deviation", "note"),
    ]
    assert abs(float(a["weight"]) - 60) < 6
    assert 0 < float(a["weight_deviation"]) < 15
    assert a["height"] == "1.5"
    assert a["height_deviation"] == ""
    assert b["shape"] == 'a "big" one'
    assert 0.5 < float(b["shape_confidence"]) <= 1
    assert c["large"] in {"0", "1"}
    assert 0.5 <= float(c["large_confidence"]) <= 1
    assert c["dark"] == "0"
    assert abs(float(c["height"]) - 1.8) < 0.2
    assert "weight: 2 cells filled" in told
    assert "shape of shape; attributes of large, dark; vector of height, weight" in told


def without_new(out, table):
    """Returns the output's raw fields under the headings that the table had."""
    with opened(table) as file:
        known = file.headings
    with opened(out) as file:
        at = [file.headings.index(heading) for heading in known]
        return [[record.fields[i] for i in at] for record in file.records() if record.fields]


WILD = [
    '"円", 0 , "1",1.50 ,"60",  blanks  ',
    'square,0,0,1.8,70,"two\r\nlines, and ""quotes"""',
    'square,0,0,1.8,70,it\'s"quoted"',
    '"a ""big"" one",1,1,2.1,80,ünï',
]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_was_there_is_kept_byte_for_byte(fill, tmp_path, end, mark):
    wild = [row for row in WILD if not (end == "\r" and "\r\n" in row)]
    table = mark + end + end.join([HEAD.strip(), *wild, "", ",,,,,last"])
    code, told, out = fill(table)
    assert code == 0, told
    assert out.startswith(mark.encode() + end.encode() + b"shape,")
    assert not out.endswith(end.encode())  # as the table
    path = tmp_path / "out" / "filled.csv"
    before = tmp_path / "table.csv"
    with opened(before) as file:
        rows = [[*record.fields] for record in file.records() if record.fields]
    after = without_new(path, before)
    assert after[:-1] == rows[:-1]
    assert after[-1][-1] == b"last"
    assert all(after[-1])
    assert out.count(end.encode() * 2) == table.encode().count(end.encode() * 2)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp932"])
def test_encodings_are_kept(fill, tmp_path, encoding):
    body = HEAD + "円,0,0,1.5,,能\n,1,0,1.5,60,ソ\n"
    content = body.encode(encoding)
    if encoding.startswith("utf-16-"):
        content = body.encode(encoding)
    code, told, out = fill(content, "--encoding", encoding)
    assert code == 0, told
    a, b = rows_of(out, encoding)
    assert (a["shape"], a["note"], b["note"]) == ("円", "能", "ソ")
    assert out[:4] == content[:4]  # the mark
    assert float(a["weight"]) > 50


def test_words_that_a_file_cannot_hold_are_told(fill):
    code, told, out = fill(HEAD + ",0,0,1.5,60,x\n" * 3, "--encoding", "ascii")
    assert code == 2
    assert "'円' cannot be written in ascii" in told
    assert out is None


def test_other_words_delimiters_and_yes_and_no(fill):
    table = "shape;large;dark;height;weight\n?;yes;no;1.5;60\nsquare;NA;yes;1.8;70\n円;no;;1.5;60\n"
    code, told, out = fill(table, "--missing", "NA,?")
    assert code == 0, told
    a, b, c = csv.DictReader(io.StringIO(out.decode()), delimiter=";")
    assert a["shape"] in KINDS["shape"]["classes"]
    assert b["large"] in {"yes", "no"}
    assert c["dark"] in {"yes", "no"}
    assert Writing.as_in(["bold;italic", "bold"]).separator == ";"


def test_no_rows_are_no_rows(fill):
    code, told, out = fill(HEAD)
    assert code == 0, told
    assert out.count(b"\n") == 1
    assert "0 rows" in told


def test_permuted_rows_are_permuted_results(fill, run, tmp_path, monkeypatch):
    lines = []
    rng = random.Random(0)
    for i in range(40):
        cells = ["square", "0", "1", "1.8", "70", f"n{i}"]
        lines.append(
            ",".join(c if j == 5 or rng.random() < 0.6 else "" for j, c in enumerate(cells))
        )
    _, _, first = fill(HEAD + "\n".join(lines) + "\n")
    rng.shuffle(lines)
    monkeypatch.setattr("mmgen.filling.csv.CHUNK", 7)
    _, _, second = fill(HEAD + "\n".join(lines) + "\n")
    close = [sorted(rows_of(each), key=lambda row: row["note"]) for each in (first, second)]
    for a, b in zip(*close, strict=True):
        for name, cell in a.items():
            number = name.endswith(("confidence", "deviation", "height", "weight")) and cell
            assert (
                (float(b[name]) == pytest.approx(float(cell), rel=1e-3))
                if number
                else (b[name] == cell)
            )


def test_imputations_are_draws_one_below_the_other(fill):
    table = HEAD + "square,0,0,1.8,,a\r\n円,,,1.5,60,b"
    code, told, out = fill(table, "--samples", 60, "--seed", 3)
    assert code == 0, told
    rows = rows_of(out)
    assert [row["imputation"] for row in rows] == [str(n) for n in range(1, 61)] * 2
    assert [row["note"] for row in rows] == ["a"] * 60 + ["b"] * 60
    weights = torch.tensor([float(row["weight"]) for row in rows[:60]])
    assert 0.3 < weights.std() < 15
    assert abs(weights.mean() - 70) < 5
    assert {row["weight"] for row in rows[60:]} == {"60"}
    assert out.count(b"\r\n") == 60  # as the row; the last one has none, so as the headings
    assert not out.endswith(b"\n")
    assert not any(name.endswith(("confidence", "deviation")) for name in rows[0])
    assert fill(table, "--samples", 60, "--seed", 3)[2] == out
    assert fill(table, "--samples", 60, "--seed", 4)[2] != out


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (HEAD + "square,0,0,1.8\n円,0,0,1,2,x\n", (), "line 2: it has 4 cells, but there are 6"),
        (HEAD + "circle,0,0,1.8,,x\n", (), "line 2: shape: no class 'circle'"),
        (HEAD + 'square,0,0,1.8,,x\n"square,0,0,1,2,x\n', (), "line 3: a quote"),
        (HEAD + '"square"x,0,0,1.8,,x\n', (), "line 2: something follows a closing quote"),
        (HEAD + '"' + "x\n" * 70_000, (), "line 2: a cell is very long"),
        (b"shape,note\n\xff\xfe,x\n", (), "line 2: is not text in utf-8"),
        (b"shape,note\nsquare,\0\n", (), "zero bytes"),
        ("", (), "is empty"),
        ("a,b\n1,2\n", (), "say which is whose: --config"),
        ("shape,shape\nsquare,square\n", (), "occurs twice"),
        (HEAD, ("--encoding", "klingon"), "--encoding klingon: unknown"),
        (HEAD, ("--encoding", "base64"), "--encoding base64: unknown"),
        (HEAD, ("--encoding", "iso-2022-jp"), "could not be kept byte for byte"),
        (HEAD, ("--delimiter", "ab"), "it must be one character"),
    ],
)
def test_tables_that_cannot_be_used_are_told_by_the_line(fill, tmp_path, content, words, message):
    code, told, out = fill(content, *words)
    assert code == 2
    assert message in told
    assert out is None
    left = tmp_path / "out"
    assert not left.exists() or not list(left.iterdir())


def test_bad_rows_can_be_copied(fill):
    table = HEAD + "circle,0,0,1.8,,x\nshort,row\nsquare,0,0,1.8,,y\n"
    code, told, out = fill(table, "--skip-bad")
    assert code == 0, told
    assert "copied as they are, 2 rows" in told
    lines = out.decode().splitlines()
    assert lines[1].startswith("circle,,0,,0,,1.8,,,")
    assert lines[2] == "short,row"
    assert "," + "y" in lines[3]
    assert abs(float(rows_of(out)[2]["weight"]) - 70) < 6


def test_the_table_itself_is_not_written_over(run, mmgen, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(HEAD)
    code, _, told = mmgen("fill", run.path, table, "-o", table)
    assert code == 2
    assert "is the table itself" in told
    assert mmgen("fill", run.path, table, "-o", tmp_path / "x.parquet")[0] == 2


def test_parquet_is_filled_and_keeps_its_types(run, mmgen, tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    cells = {
        "shape": ["円", None, "square"],
        "large": [True, None, False],
        "dark": [0, 1, None],
        "height": [1.5, None, 1.8],
        "weight": [None, 80.0, 70.0],
        "when": [[1, 2], None, [3]],
    }
    table, out = tmp_path / "table.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table(cells), table)
    code, _, told = mmgen("fill", run.path, table, "-o", out)
    assert code == 0, told
    found = pq.read_table(out)
    assert found.column("when").to_pylist() == cells["when"]
    for name in cells:
        assert found.schema.field(name).type == pa.table(cells).schema.field(name).type
        assert None not in found.column(name).to_pylist() or name == "when"
    assert abs(found.column("weight")[0].as_py() - 60) < 8
    assert found.column("shape_confidence").to_pylist()[0] is None
    assert mmgen("fill", run.path, table, "-o", out, "--samples", "2")[0] == 0
    found = pq.read_table(out)
    assert found.column("imputation").to_pylist() == [1, 2] * 3
    assert found.column("shape").to_pylist()[:2] == ["円", "円"]
    pq.write_table(pa.table({**cells, "imputation": ["mine"] * 3}), table)
    assert mmgen("fill", run.path, table, "-o", out, "--samples", "2")[0] == 0
    found = pq.read_table(out)
    assert found.column("imputation").to_pylist() == ["mine"] * 6
    assert found.column("imputation-2").to_pylist() == [1, 2] * 3
    table.write_bytes(b"PAR1 and nothing else")
    code, _, told = mmgen("fill", run.path, table, "-o", out)
    assert code == 2
    assert "no Parquet file" in told


def test_without_pyarrow_it_is_said_what_to_install(run, mmgen, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "x.parquet").write_bytes(b"")
    code, _, told = mmgen("fill", run.path, tmp_path / "x.parquet", "-o", tmp_path / "y.parquet")
    assert code == 2
    assert 'pip install "mmgen-vae[parquet]"' in told


def test_pictures_go_into_a_folder_beside(trained, mmgen, tmp_path):
    table, out = tmp_path / "table.csv", tmp_path / "filled.csv"
    table.write_text("image,label,bold\n,A,1\n,B,\n")
    code, _, error = mmgen("fill", trained, table, "-o", out)
    assert code == 0, error
    rows = rows_of(out.read_bytes())
    assert [row["image"] for row in rows] == [
        "filled_pictures/image-2.png",
        "filled_pictures/image-3.png",
    ]
    assert "attributes of bold" in error
    from PIL import Image

    with Image.open(tmp_path / rows[0]["image"]) as picture:
        assert picture.size == (28, 28)
        assert picture.mode == "L"
    assert rows[0]["bold"] == "1"
    assert rows[1]["bold"] in {"0", "1"}
    # what was written can be read again, and there is nothing left to fill
    again = tmp_path / "again.csv"
    assert mmgen("fill", trained, out, "-o", again)[0] == 0
    assert not (tmp_path / "again_pictures").exists()
    # a bad row, seen after pictures were made, leaves nothing
    table.write_text("image,label\n,A\n,Ä\n")
    code, _, error = mmgen("fill", trained, table, "-o", tmp_path / "bad.csv")
    assert code == 2
    assert "line 3: label" in error
    assert not (tmp_path / "bad.csv").exists()
    assert not (tmp_path / "bad_pictures").exists()
    (tmp_path / "mine_pictures").mkdir()
    (tmp_path / "mine_pictures" / "letter.txt").write_text("dear")
    table.write_text("image,label\n,A\n")
    assert mmgen("fill", trained, table, "-o", tmp_path / "mine.csv")[0] == 2
    assert (tmp_path / "mine_pictures" / "letter.txt").exists()


def test_lists_of_words_are_filled_as_lists(trained, mmgen, tmp_path):
    table, out = tmp_path / "table.csv", tmp_path / "filled.csv"
    table.write_text("label,tags\nA,bold;italic\nB,bold;italic\nA,?\n,\n")
    code, _, error = mmgen("fill", trained, table, "-o", out, "--missing", "?")
    assert code == 0, error
    rows = rows_of(out.read_bytes())
    assert rows[3]["tags"] == ""  # an empty list is a value
    assert rows[3]["label"] != ""
    words = rows[2]["tags"].split(";")
    assert {*words} <= {"bold", "italic", "serif", "large", "high", "none"}
    assert 0.5 <= float(rows[2]["tags_confidence"]) <= 1


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_filled_numbers_are_the_exact_conditional_means(double, tmp_path):
    toy = truth.linear_joint("abc", rows=30)
    run = Run(tmp_path, None, toy.model.modalities, toy.model, CPU)
    holes = [("b",), ("a", "c"), ("c",), ("a", "b"), ("b", "c"), ("a", "b", "c")]
    lines = ["a;b;c"]
    for row in range(30):
        lacks = holes[row % 6]
        cells = {n: ",".join(map(repr, toy.x[n][row].tolist())) for n in "abc"}
        lines.append(";".join("" if n in lacks else cells[n] for n in "abc"))
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines) + "\n")
    seen = {}
    how = Filling(samples=4)
    request = Request(table=table, out=tmp_path / "out.csv", how=how)

    from mmgen.filling import filler

    def keep(self, reader, rows, at, mean, deviation, fill):
        for n, row in enumerate(at):
            seen[row, reader.name] = mean[n]

    original = filler.Filler._tell
    filler.Filler._tell = keep
    try:
        fill_csv(run, Registry(()), request)
    finally:
        filler.Filler._tell = original
    assert len(seen) == sum(len(holes[row % 6]) for row in range(30))
    for (row, name), mean in seen.items():
        S = tuple(n for n in "abc" if n not in holes[row % 6])
        z = torch.zeros(1, 2)
        if S:
            z, _ = toy.linear.posterior({n: toy.x[n][row : row + 1] for n in S}, S)
        W, b = toy.linear.stacked([name])
        torch.testing.assert_close(mean, (z @ W.T + b)[0], atol=1e-9, rtol=0)


def test_a_model_of_one_direction_fills_what_it_generates(tmp_path, double):
    toy = truth.linear_conditional("cmma", rows=4)
    run = Run(tmp_path, None, toy.model.modalities, toy.model, CPU)
    cells = [",".join(map(repr, toy.x["c"][row].tolist())) for row in range(4)]
    table = tmp_path / "table.csv"
    table.write_text("a;b;c\n" + "".join(f";;{cell}\n" for cell in cells[:3]) + '"1,2,3";;\n')
    report = fill_csv(run, Registry(()), Request(table=table, out=tmp_path / "out.csv"))
    assert report.rows == 4
    assert report.left == 1
    assert report.filled == {"a": 3, "b": 3}
    last = (tmp_path / "out.csv").read_text().splitlines()[-1]
    assert last.startswith('"1,2,3";;')


def test_confidence_is_calibrated(run, tmp_path, mmgen):
    x = columns(400, seed=5)
    words = KINDS["shape"]["classes"]
    on = x["attributes"].tolist()
    lines = [HEAD.strip(), *(f",{large},{dark},,,{i}" for i, (large, dark) in enumerate(on))]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    assert mmgen("fill", run.path, tmp_path / "t.csv", "-o", tmp_path / "o.csv")[0] == 0
    rows = rows_of((tmp_path / "o.csv").read_bytes())
    right = [row["shape"] == words[x["shape"][i]] for i, row in enumerate(rows)]
    sure = [float(row["shape_confidence"]) for row in rows]
    share = sum(right) / 400
    error = math.sqrt(share * (1 - share) / 400)
    assert abs(share - sum(sure) / 400) < 3 * error + 0.05  # of a model trained for a moment


def test_memory_does_not_grow_with_the_table(tmp_path):
    def peak(rows):
        (tmp_path / "t.csv").write_text(HEAD + 'square,0,0,1.8,70,"x"\n' * rows)
        tracemalloc.start()
        with opened(tmp_path / "t.csv") as file:
            assert sum(1 for _ in file.records()) == rows
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(20_000) < 2 * peak(2_000) + 100_000


def test_columns_are_as_a_file_says(run, mmgen, tmp_path):
    (tmp_path / "t.csv").write_text("Form,h,w\n円,,\n,1.8,70\n")
    config = '[modalities.shape]\ncolumns = ["Form"]\n\n[modalities.vector]\ncolumns = ["h", "w"]\n'
    (tmp_path / "c.toml").write_text(config)
    words = ("fill", run.path, tmp_path / "t.csv", "-o", tmp_path / "o.csv", "--config")
    code, _, error = mmgen(*words, tmp_path / "c.toml")
    assert code == 0, error
    rows = rows_of((tmp_path / "o.csv").read_bytes())
    assert abs(float(rows[0]["h"]) - 1.5) < 0.2
    assert rows[1]["Form"] == "square"
    (tmp_path / "c.toml").write_text('[modalities.shape]\ncolumns = ["Farm"]\n')
    code, _, error = mmgen(*words, tmp_path / "c.toml")
    assert code == 2
    assert "no column 'Farm'; did you mean 'Form'" in error
