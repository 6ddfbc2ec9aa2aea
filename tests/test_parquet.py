"""The source of Parquet files: what types become, splits, bad rows, files that mean harm."""

import io
import json
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import mmgen_parquet
from mmgen.data import records
from mmgen.data.store import read_dataset
from mmgen_parquet import Parquet

pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install mmgen-vae[parquet]")
pq = pytest.importorskip("pyarrow.parquet")

FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
COLOURS = ("red", "green", "blue")


def picture(colour, size=6):
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[..., colour] = 200
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def files(contents, path="../../etc/passwd.png"):
    return pa.array([{"bytes": each, "path": path} for each in contents], FILE)


def write(path, columns, features=None, **options):
    table = pa.table(columns)
    if features is not None:
        noted = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": noted})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def columns(rows, first=0):
    """Returns columns of every sort whose values are functions of the row's number."""
    numbers = np.arange(first, first + rows)
    colour = numbers % 3
    return {
        "image": files([picture(each) for each in colour]),
        "label": pa.array(colour),
        "word": pa.array(np.array(COLOURS)[colour]).dictionary_encode(),
        "on": pa.array(colour == 1),
        "high": pa.array(numbers % 2 == 0),
        "height": pa.array((numbers / 7).astype(np.float32)),
        "embedding": pa.array([[i / 3, -float(i)] for i in numbers.tolist()]),
        "tags": pa.array([[int(i % 3), 3] for i in numbers]),
        "text": pa.array([f"text {i}" for i in numbers]),
        "when": pa.array(numbers, pa.timestamp("s")),
    }


FEATURES = {
    "image": {"_type": "Image"},
    "label": {"_type": "ClassLabel", "names": ["red, deep", "green", "blue"]},
    "tags": {
        "_type": "Sequence",
        "feature": {"_type": "ClassLabel", "names": ["r", "g", "b", "all"]},
    },
}
NETS = [
    f"modalities.{name}.{side}_widths=[8]"
    for name in ("image", "label", "word", "attributes", "vector", "embedding", "tags")
    for side in ("encoder", "decoder")
]


def test_types_decide_what_columns_become_and_files_their_splits(mmgen, tmp_path):
    write(tmp_path / "hf/data/test-00000-of-00001.parquet", columns(9, 60), FEATURES)
    write(tmp_path / "hf/data/train-00000-of-00002.parquet", columns(40), FEATURES)
    write(
        tmp_path / "hf/data/train-00001-of-00002.parquet",
        columns(20, 40),
        FEATURES,
        row_group_size=7,
    )
    out = tmp_path / "out"
    code, said, err = mmgen("data", "parquet", tmp_path / "hf", "--out", out)
    assert code == 0, err
    names = "image, label, word, attributes, vector, embedding, tags"
    assert said == f"{out}: 60 train, 9 test; modalities {names}\n"
    assert '# not used: ["text"]' in err
    dataset = read_dataset(out)
    kinds = {name: each["kind"] for name, each in dataset.modalities.items()}
    assert [*kinds.values()] == [
        *("image", "label", "label", "attributes", "vector", "vector", "attributes")
    ]
    assert dataset.modalities["label"]["classes"] == ["red deep", "green", "blue"]
    assert dataset.modalities["embedding"]["names"] == ["embedding 0", "embedding 1"]
    for split, numbers in (("train", torch.arange(60)), ("test", torch.arange(60, 69))):
        values = dataset.splits[split].load()
        colour = numbers % 3
        pictures = 200 * torch.nn.functional.one_hot(colour, 3)[:, :, None, None].expand(
            -1, 3, 6, 6
        )
        assert torch.equal(values["image"], pictures.to(torch.uint8))
        assert torch.equal(values["label"], colour)
        assert torch.equal(values["word"], torch.tensor([2, 1, 0])[colour])  # blue, green, red
        assert torch.equal(values["attributes"], torch.stack([colour == 1, numbers % 2 == 0], 1))
        assert torch.equal(values["vector"], (numbers / 7).float()[:, None])
        assert torch.equal(
            values["embedding"], torch.stack([numbers.double() / 3, -numbers.double()], 1).float()
        )
        tags = torch.nn.functional.one_hot(colour, 4)
        tags[:, 3] = 1
        assert torch.equal(values["tags"], tags.to(torch.uint8))


def test_a_file_is_trained_on_and_generates(mmgen, tmp_path):
    path = write(tmp_path / "all.parquet", columns(60), FEATURES)
    assert mmgen("data", "parquet", path, "--out", tmp_path / "data")[0] == 0
    run = tmp_path / "run"
    few = ["data.modalities=image,label,embedding", *NETS[:4], *NETS[10:12], "train.epochs=1"]
    code, _, err = mmgen("train", tmp_path / "data", *few, "model.latent=2", "--out", run)
    assert code == 0, err
    code, said, err = mmgen("generate", run, "--given", "label=red deep", "--targets", "embedding")
    assert code == 0, err
    assert said.startswith("embedding: embedding 0 ")


def same(one, other):
    one, other = read_dataset(one), read_dataset(other)
    assert one.modalities == other.modalities
    assert [*one.splits] == [*other.splits]
    for split, rows in one.splits.items():
        theirs = other.splits[split].load()
        assert all(torch.equal(value, theirs[name]) for name, value in rows.load().items())


@pytest.mark.parametrize("more", [(), ("--validation", 0.3, "--test", 0, "--seed", 3)])
@pytest.mark.parametrize("seen", [records.SEEN, 50])
def test_rows_become_what_the_same_csv_file_becomes(mmgen, tmp_path, monkeypatch, more, seen):
    """Also if the kinds see but the first fifty rows, in which classes and words are missing."""
    monkeypatch.setattr(records, "SEEN", seen)
    rng = np.random.default_rng(0)
    rows = {
        "class": [f"class {i // 9}" for i in range(90)],
        "size": [int(i) for i in rng.integers(0, 6, 90)],
        "on": [int(i) for i in rng.integers(0, 2, 90)],
        "number": [float(i) for i in np.float32(rng.normal(size=90))],
        "words": ["|".join(np.array(["a", "b", "c"])[: i // 40 + 1]) for i in range(90)],
        "row": [*range(90)],
    }
    split = {"words": [words.split("|") for words in rows["words"]]}
    path = write(tmp_path / "t.parquet", rows | split, row_group_size=25)
    lines = [",".join(map(str, each)) for each in zip(*rows.values(), strict=True)]
    (tmp_path / "t.csv").write_text("\n".join([",".join(rows), *lines]))
    assert mmgen("data", "table", tmp_path / "t.csv", "--out", tmp_path / "csv", *more)[0] == 0
    code, _, err = mmgen("data", "parquet", path, "--out", tmp_path / "out", *more)
    assert code == 0, err
    same(tmp_path / "csv", tmp_path / "out")


def test_a_column_may_say_the_splits(mmgen, tmp_path):
    part = ["train", "VAL", "train", "test"] * 20
    path = write(tmp_path / "t.parquet", columns(80) | {"part": part})
    out = tmp_path / "out"
    code, said, err = mmgen("data", "parquet", path, "--out", out, "--split-column", "part")
    assert (code, said.split(";")[0]) == (0, f"{out}: 40 train, 20 validation, 20 test"), err
    height = read_dataset(out).splits["validation"].load(["vector"])["vector"][:, 0]
    assert torch.equal(height, (torch.arange(1, 80, 4) / 7).float())
    assert "part" not in read_dataset(out).modalities


def config(path, text):
    path.write_text(text)
    return "--config", path


def test_a_configuration_chooses_names_and_sets(mmgen, tmp_path):
    path = write(tmp_path / "t.parquet", columns(30), FEATURES)
    words = config(
        tmp_path / "c.toml",
        """
        [modalities.photo]
        columns = ["image"]
        height = 3
        [modalities.colour]
        columns = ["label"]
        encoder_widths = [4]
        [modalities.embedding]
        [modalities.two]
        kind = "attributes"
        columns = ["on", "tags"]
        """,
    )
    code, _, err = mmgen("data", "parquet", path, "--out", tmp_path / "out", *words)
    assert code == 0, err
    modalities = read_dataset(tmp_path / "out").modalities
    assert [*modalities] == ["photo", "colour", "embedding", "two"]
    assert (modalities["photo"]["kind"], modalities["photo"]["height"]) == ("image", 3)
    assert modalities["colour"]["classes"] == ["red deep", "green", "blue"]
    assert modalities["colour"]["encoder_widths"] == [4]
    assert modalities["embedding"]["names"] == ["embedding 0", "embedding 1"]
    assert modalities["two"]["names"] == ["on", "all", "b", "g", "r"]


BAD = [
    ({"label": pa.array([0, 7] * 15)}, "row 2: label: no class 'number 7'"),
    ({"embedding": pa.array([[1.0, 2.0], [1.0]] * 15)}, "has 1 of the 2 numbers"),
    ({"image": files([picture(0), b"no"] * 15)}, "row 2: image: '1-0.png' is no picture"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_rows_that_cannot_be_used_are_told_and_nothing_is_left(mmgen, tmp_path, change, message):
    path = write(tmp_path / "t.parquet", columns(30) | change, FEATURES)
    deep = tmp_path / "deep" / "out"
    words = ("--validation", 0, "--test", 0)
    code, said, err = mmgen("data", "parquet", path, "--out", deep, *words)
    assert (code, said) == (2, "")
    assert message in err
    assert "t.parquet: 15 of 30 rows cannot be used" in err
    assert "Fix them, or leave them out with --skip-bad" in err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["t.parquet"]
    code, said, err = mmgen("data", "parquet", path, "--out", deep, "--skip-bad", *words)
    assert code == 0, err
    assert "without 15 that could not be used (" in read_dataset(deep).about
    assert sum(split.count for split in read_dataset(deep).splits.values()) == 15


def test_what_is_null_is_missing_and_its_row_is_kept(mmgen, tmp_path):
    gone = {
        "label": pa.array([*[0, None, -1] * 9, 0, 0, 0]),
        "image": files([*[None] * 15, *[picture(0)] * 15]),
    }
    path = write(tmp_path / "t.parquet", columns(30) | gone, FEATURES)
    words = ("--validation", 0, "--test", 0)
    code, _, err = mmgen("data", "parquet", path, "--out", tmp_path / "out", *words)
    assert code == 0, err
    stored = read_dataset(tmp_path / "out").splits["train"].load(["label", "image", "word"])
    assert {*stored.present} == {"label", "image"}
    assert stored.present["label"].sum() == 12
    assert stored.present["image"].sum() == 15
    assert stored["label"][~stored.present["label"]].sum() == 0


def test_a_modality_that_no_row_has_is_told(mmgen, tmp_path):
    named = pa.array([{"bytes": None, "path": "a.png"}] * 30, FILE)
    path = write(tmp_path / "t.parquet", columns(30) | {"image": named}, FEATURES)
    wanted = config(
        tmp_path / "c.toml",
        '[modalities.image]\nkind="image"\nheight=6\nwidth=6\n[modalities.label]\n',
    )
    code, _, err = mmgen("data", "parquet", path, "--out", tmp_path / "out", *wanted)
    assert (code, "no row has a value of 'image'" in err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_lists_of_counts_are_counts_if_they_are_said_to_be(mmgen, tmp_path):
    counts = torch.arange(90).reshape(30, 3) * 7
    path = write(tmp_path / "t.parquet", columns(30) | {"genes": pa.array(counts.tolist())})
    wanted = '[modalities.genes]\nkind = "counts"\nnames = ["a", "b", "c"]\n[modalities.word]\n'
    words = config(tmp_path / "c.toml", wanted)
    code, _, err = mmgen("data", "parquet", path, "--out", tmp_path / "out", *words, "--test", 0)
    assert code == 0, err
    dataset = read_dataset(tmp_path / "out")
    assert dataset.modalities["genes"]["largest"] == 2**15 - 1
    stored = dataset.splits["train"].load(["genes"])["genes"]
    assert stored.dtype == torch.int16
    assert {*map(tuple, stored.tolist())} <= {*map(tuple, counts.tolist())}


def test_a_number_that_is_none_is_told(mmgen, tmp_path):
    heights = pa.array([*[1.5] * 29, float("nan")])
    path = write(tmp_path / "t.parquet", columns(30) | {"height": heights}, FEATURES)
    code, _, err = mmgen("data", "parquet", path, "--out", tmp_path / "out")
    assert (code, "row 30: height: 'nan' is no finite number" in err) == (2, True)


def test_the_first_of_many_files_with_bad_rows_is_named(mmgen, tmp_path):
    write(tmp_path / "a/one.parquet", columns(20), FEATURES)
    write(tmp_path / "a/two.parquet", columns(20) | {"label": pa.array([7, *[1] * 19])}, FEATURES)
    code, _, err = mmgen("data", "parquet", tmp_path / "a", "--out", tmp_path / "out")
    assert (code, "two.parquet, row 1: label: no class 'number 7'" in err) == (2, True)


def test_no_more_is_read_after_very_many_bad_rows(mmgen, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MOST_BAD", 10)
    path = write(
        tmp_path / "t.parquet", columns(400) | {"label": pa.array([0] + [7] * 399)}, FEATURES
    )
    code, _, err = mmgen("data", "parquet", path, "--out", tmp_path / "out")
    assert (code, "at least 10 of 400 rows cannot be used" in err) == (2, True)
    assert mmgen("data", "parquet", path, "--out", tmp_path / "out", "--skip-bad")[0] == 2


# Paths in cells.


def test_a_file_that_a_cell_names_is_never_opened(mmgen, tmp_path):
    real = tmp_path / "secret.png"
    real.write_bytes(picture(0))
    named = pa.array([{"bytes": None, "path": str(real)}] * 30, FILE)
    path = write(tmp_path / "t.parquet", columns(30) | {"image": named}, FEATURES)
    code, _, err = mmgen("data", "parquet", path, "--out", tmp_path / "out")
    assert code == 0, err  # a column without a single file is not used
    assert '"image"' in err.split("# not used:")[1]
    wanted = config(tmp_path / "c.toml", '[modalities.image]\nkind="image"\n[modalities.label]\n')
    code, _, err = mmgen("data", "parquet", path, "--out", tmp_path / "new", *wanted)
    assert (code, "image" in err) == (2, True)
    text = columns(30) | {"image": pa.array([str(real)] * 30)}
    path = write(tmp_path / "t.parquet", text, FEATURES)
    code, _, err = mmgen("data", "parquet", path, "--out", tmp_path / "three")
    assert (code, '"image"' in err.split("# not used:")[1]) == (0, True)
    code, _, err = mmgen("data", "parquet", path, "--out", tmp_path / "new", *wanted)
    assert (code, "names of files elsewhere are not opened" in err) == (2, True)


def test_files_are_for_kinds_that_read_files(mmgen, tmp_path):
    path = write(tmp_path / "t.parquet", columns(30), FEATURES)
    wanted = config(tmp_path / "c.toml", '[modalities.image]\nkind="label"\n[modalities.label]\n')
    code, _, err = mmgen("data", "parquet", path, "--out", tmp_path / "out", *wanted)
    assert (code, "image holds files, which kind 'label' does not read" in err) == (2, True)


SOUND = '''
import torch
from typing import ClassVar
from mmgen.hooks import hookimpl
from mmgen.modality import Modality
from mmgen.nets.blocks import Likelihood, gaussian, mlp

class Sound(Modality):
    """Four numbers of a file."""
    kind: ClassVar[str] = "sound"
    api_version: ClassVar[int] = 1
    cells_are_paths: ClassVar[bool] = True

    @property
    def shape(self): return (4,)
    def encoder(self): return mlp(4, [4])
    def decoder(self, n): return Likelihood(mlp(n, [], 4), lambda mean: gaussian(mean, 1.0))
    def parse(self, cell):
        if not cell: raise ValueError("no file")
        with open(cell, "rb") as file: return torch.tensor([*file.read(4)]).float()
    @classmethod
    def match_score(cls, cells):
        return float(all(cell.endswith(".wav") for cell in cells))

@hookimpl
def mmgen_modalities(): return [Sound]
'''


def test_files_of_a_kind_of_one_s_own_are_read_by_it(mmgen, tmp_path):
    (tmp_path / "sound.py").write_text(SOUND)
    sounds = files([bytes([i, 1, 2, 3]) for i in range(30)], path="/x/a b.wav")
    path = write(tmp_path / "t.parquet", columns(30) | {"image": sounds}, FEATURES)
    words = ("--out", tmp_path / "out", "--validation", 0, "--test", 0)
    code, _, err = mmgen("-p", tmp_path / "sound.py", "data", "parquet", path, *words)
    assert code == 0, err
    values = read_dataset(tmp_path / "out").splits["train"].load(["sound"])["sound"]
    assert torch.equal(values[:, 0], torch.arange(30.0))


# Files that are damaged, or mean harm.


@pytest.mark.parametrize("count", [500, 50])
def test_a_value_that_rows_share_is_not_in_memory_for_each(tmp_path, monkeypatch, count):
    """It is read as a dictionary if it takes little per row, or few rows at a time."""
    monkeypatch.setattr(mmgen_parquet, "BYTES", 2**19)
    monkeypatch.setattr(mmgen_parquet, "UNPACKED", 2**19)
    large = os.urandom(2**18)
    path = write(
        tmp_path / "t.parquet",
        {"image": files([large] * count), "label": pa.array([0] * count)},
        dictionary_pagesize_limit=2**30,
    )
    assert path.stat().st_size < 2**20
    read = Parquet(files=(path,)).read()
    rows, held = [], []
    for chunk in read.read(["image", "label"], np.ones(count, np.bool_)):
        rows.append(len(chunk))
        held.append(pa.total_allocated_bytes())
    assert (sum(rows), max(rows)) == (count, 2)
    assert max(held) < 2**22  # all rows of one batch would hold 13 MiB or more


def test_pages_that_leave_their_dictionary_are_read(tmp_path):
    contents = [os.urandom(20_000) for _ in range(100)]  # a dictionary ends at a megabyte
    path = write(tmp_path / "t.parquet", {"image": files(contents)})
    read = Parquet(files=(path,)).read()
    chunks = read.read(["image"], np.ones(100, np.bool_))
    assert [each.cells["image"].content for chunk in chunks for each in chunk] == contents


def test_only_the_rows_that_are_chosen_are_read(tmp_path):
    path = write(tmp_path / "t.parquet", columns(300), FEATURES, row_group_size=40)
    read = Parquet(files=(path,)).read()
    chosen = np.zeros(300, np.bool_)
    chosen[[0, 79, 80, 299]] = True
    places = [each.place for chunk in read.read(["height"], chosen) for each in chunk]
    assert places == ["row 1", "row 80", "row 81", "row 300"]


def test_damaged_files_are_one_message(mmgen, tmp_path):
    whole = write(tmp_path / "t.parquet", columns(30), FEATURES).read_bytes()
    rng = np.random.default_rng(0)
    codes = []
    for number in range(24):
        broken = bytearray(whole)
        if number < 20:
            for place in rng.integers(0, len(whole), 4):
                broken[place] = rng.integers(256)
        else:
            broken = broken[: rng.integers(len(whole))]
        path = tmp_path / "broken.parquet"
        path.write_bytes(broken)
        code, _, err = mmgen("data", "parquet", path, "--out", tmp_path / "out", "--force")
        assert code in {0, 2}
        assert "plugin" not in err, err
        assert err.count("error:") == (code == 2)
        codes.append(code)
    assert codes[20:] == [2] * 4
    assert 2 in codes[:20]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.write_bytes(b""), "is no Parquet file that can be read"),
        (lambda path: path.mkdir(), "holds no file *.parquet"),
        (os.mkfifo, "is a pipe, not a file"),
        (lambda path: write(path, {"a": pa.array([], pa.int64())}), "there are no rows"),
        (
            lambda path: write(path, {"a": [1.5, 2.5], "when": pa.array([1, 2], pa.date32())}),
            "only",
        ),
    ],
)
def test_what_cannot_be_a_data_set_is_one_message(mmgen, tmp_path, make, message):
    make(tmp_path / "t.parquet")
    code, said, err = mmgen("data", "parquet", tmp_path / "t.parquet", "--out", tmp_path / "out")
    assert (code, said) == (2, "")
    assert message in err
    assert not (tmp_path / "out").exists()


def test_files_of_other_columns_are_refused(mmgen, tmp_path):
    write(tmp_path / "d/a.parquet", columns(9), FEATURES)
    write(tmp_path / "d/b.parquet", columns(9) | {"height": pa.array(["x"] * 9)}, FEATURES)
    code, _, err = mmgen("data", "parquet", tmp_path / "d", "--out", tmp_path / "out")
    assert (code, "b.parquet: column 'height' is string, but float in" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--split-column", "lable"), "--split-column lable: no column; did you mean 'label'?"),
        (("--split-column", "label", "--test", "0.1"), "leave out --validation and --test"),
        (("--validation", "0.5", "--test", "0.5"), "less than 1 together"),
        (("--config", "/none.toml"), "/none.toml"),
    ],
)
def test_impossible_options_are_one_message(mmgen, tmp_path, words, message):
    path = write(tmp_path / "t.parquet", columns(9), FEATURES)
    code, _, err = mmgen("data", "parquet", path, "--out", tmp_path / "out", *words)
    assert (code, message in err) == (2, True), err


def test_without_pyarrow_the_message_says_what_to_install(mmgen, tmp_path, monkeypatch):
    path = write(tmp_path / "t.parquet", columns(9), FEATURES)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    code, _, err = mmgen("data", "parquet", path, "--out", tmp_path / "out")
    assert (code, 'pip install "mmgen-vae[parquet]"' in err) == (2, True)
    assert mmgen("data", "parquet", "--help")[0] == 0
