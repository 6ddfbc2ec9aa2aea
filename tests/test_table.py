"""`mmgen data table`: what is guessed, what is refused with its line, and nothing half-written."""

import csv
import io
import subprocess
import sys
import tomllib
import weakref
from collections import Counter

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmgen import build
from mmgen.data.store import read_dataset, write_dataset
from mmgen.data.tables import importing
from mmgen.data.tables.columns import as_toml, read_wanted, sources
from mmgen.data.tables.importing import Splitting, import_table
from mmgen.data.tables.table import read_table
from mmgen.errors import MmgenError
from mmgen_image import Image

SHAPES = ("circle", "square", "star")


def picture(path, value=100, size=(12, 10)):
    path.parent.mkdir(exist_ok=True, parents=True)
    PIL.Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def row(i):
    return [f"img/{i}.png", SHAPES[i % 3], str(i % 2), "yes" if i % 5 else "no", f"note {i}"]


HEADINGS = ["file", "shape", "bold", "tall", "note"]


@pytest.fixture
def rows(tmp_path):
    """30 rows with their pictures, each of a grey of its own."""
    for i in range(30):
        picture(tmp_path / "img" / f"{i}.png", value=8 * i)
    return [row(i) for i in range(30)]


def save(tmp_path, rows, headings=HEADINGS, name="photos.csv", **options):
    file = tmp_path / name
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, **options).writerows([headings, *rows])
    return file


def test_columns_become_modalities_by_what_is_in_them(mmgen, tmp_path, rows):
    file, out = save(tmp_path, rows), tmp_path / "data"
    code, printed, err = mmgen("data", "table", file, "--out", out)
    assert code == 0, err
    assert "24 train, 3 validation, 3 test; modalities image, shape, attributes" in printed
    assert '# not used: ["note"]' in err
    dataset = read_dataset(out)
    dataset.verify()
    assert {n: c["kind"] for n, c in dataset.modalities.items()} == {
        "image": "image",
        "shape": "label",
        "attributes": "attributes",
    }
    assert dataset.modalities["shape"]["classes"] == ["circle", "square", "star"]
    assert dataset.modalities["attributes"]["names"] == ["bold", "tall"]
    size = {k: dataset.modalities["image"][k] for k in ("channels", "height", "width", "net")}
    assert size == {"channels": 3, "height": 12, "width": 10, "net": "mlp"}


def test_each_row_keeps_its_own_values_in_whatever_split(mmgen, tmp_path, rows):
    assert mmgen("data", "table", save(tmp_path, rows), "--out", tmp_path / "data")[0] == 0
    seen = set()
    for split in read_dataset(tmp_path / "data").splits.values():
        values = split.load()
        for image, shape, attributes in zip(*values.values(), strict=True):
            i = int(image[0, 0, 0]) // 8
            assert (image == 8 * i).all()
            assert int(shape) == i % 3
            assert attributes.tolist() == [i % 2, int(bool(i % 5))]
            seen.add(i)
    assert seen == set(range(30))


def test_what_was_imported_is_trained_on_and_generated_from(mmgen, tmp_path, rows):
    assert mmgen("data", "table", save(tmp_path, rows), "--out", tmp_path / "data")[0] == 0
    config, run = tmp_path / "photos.toml", tmp_path / "run"
    names = ("image", "shape", "attributes")
    nets = "".join(f"modalities.{n} = {{encoder_widths=[8], decoder_widths=[8]}}\n" for n in names)
    config.write_text(
        f"{nets}data.path = 'data'\nmodel = {{kind='jmvae-kl', latent=2}}\ntrain.epochs = 1\n"
    )
    code, _, err = mmgen("train", config, "--out", run, "--no-figures")
    assert code == 0, err
    words = (
        "--given",
        "shape=star",
        "attributes=bold",
        "--targets",
        "image",
        "-o",
        tmp_path / "x.png",
    )
    assert mmgen("generate", run, *words)[0] == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = mmgen("generate", run, "--given", f"image={tmp_path / 'img' / '3.png'}")
    assert code == 0
    assert "shape" in out


def test_what_is_shown_can_be_read_again_and_nothing_is_written(mmgen, tmp_path, rows):
    file, before = save(tmp_path, rows), sorted(tmp_path.iterdir())
    code, out, _ = mmgen("data", "table", file, "--show")
    assert code == 0
    assert sorted(tmp_path.iterdir()) == before
    shown = tomllib.loads(out)["modalities"]
    assert shown["image"]["columns"] == ["file"]
    toml = tmp_path / "photos.toml"
    toml.write_text(out)
    assert mmgen("data", "table", file, "--show", "--config", toml)[1] == out


def test_a_configuration_decides_which_modalities_there_are_and_how(mmgen, tmp_path, rows):
    toml = tmp_path / "photos.toml"
    toml.write_text("""
        [modalities.photo]
        kind = "image"
        columns = ["file"]
        channels = 1
        height = 4
        width = 5
        [modalities.shape]
        classes = ["star", "square", "circle"]
        [modalities.tall]
        kind = "label"
    """)
    file, out = save(tmp_path, rows), tmp_path / "data"
    assert mmgen("data", "table", file, "--out", out, "--config", toml)[0] == 0
    dataset = read_dataset(out)
    assert list(dataset.modalities) == ["photo", "shape", "tall"]
    assert dataset.modalities["tall"]["classes"] == ["no", "yes"]
    values = dataset.splits["train"].load()
    assert values["photo"].shape == (24, 1, 4, 5)
    # The grey of a picture tells its row: 8 i.
    i = values["photo"][:, 0, 0, 0].long() // 8
    assert torch.equal(values["shape"], 2 - i % 3)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[modalities.shaep]", "no column 'shaep'; did you mean 'shape'"),
        ("[modalities.x]\ncolumns = ['flie']", "no column 'flie'; did you mean 'file'"),
        ("[modalities.x]\ncolumns = 3", "must be a list of headings, not 3"),
        ("[modalities.note]\n[modalities.shape]", "no kind suits note"),
        ("[modalities.shape]\nkind = 'lable'", "'lable'; did you mean 'label'"),
        ("[modalities.shape]\nkidn = 'label'\n[modalities.file]", "unknown key"),
        ("[modalities.shape]", "at least two modalities"),
        ("[data]\npath = 'x'", "it holds data"),
        ("modalities = 3", "must hold"),
        ("[modalities]\nshape = 3", "must be a table"),
        ("[modalities.'my shape']", "no name for a modality"),
        ("[modalities", "not valid TOML"),
    ],
)
def test_a_wrong_configuration_is_one_message_with_its_file(mmgen, tmp_path, rows, toml, words):
    config, out = tmp_path / "photos.toml", tmp_path / "data"
    config.write_text(toml)
    before = sorted(tmp_path.iterdir())
    file = save(tmp_path, rows)
    code, _, err = mmgen("data", "table", file, "--out", out, "--config", config)
    assert code == 2
    assert words in err
    assert err.count("error:") == 1
    assert sorted(tmp_path.iterdir()) == sorted([*before, file])


def damaged(tmp_path, rows):
    """Breaks rows in every way; returns them as text, and what is said of each line."""
    (tmp_path / "img/3.png").unlink()
    (tmp_path / "img/4.png").write_bytes((tmp_path / "img/4.png").read_bytes()[:40])
    (tmp_path / "img/5.png").write_text("no picture")
    (tmp_path / "img/6.png").write_bytes(b"")
    rows[7][1] = "cirlce"
    rows[8][2] = "maybe"
    rows[9][0] = ""
    rows[10][1] = " "
    rows[11][3] = ""
    rows[12] = rows[12][:4]
    rows[13] = [*rows[13], "more"]
    rows[14][4] = "two\nlines"  # a good row: all after it move down by one
    rows[15][0] = "img"
    rows[16][0] = "x" * 3000
    rows[18] = HEADINGS
    stream = io.StringIO()
    csv.writer(stream).writerows([HEADINGS, *rows])
    text = (
        stream.getvalue().replace("note 20", '"note" 20').replace("note 21\r\n", "note 21\r\n\r\n")
    )
    said = {
        5: "file: there is no file 'img/3.png'",
        6: "file: 'img/4.png' is no picture",
        7: "file: 'img/5.png' is no picture",
        8: "file: 'img/6.png' is no picture",
        9: "shape: no class 'cirlce'; did you mean 'circle'",
        10: "attributes: 'maybe' under bold is not 0/1",
        14: "it has 4 cells, but there are 5 headings",
        15: "it has 6 cells, but there are 5 headings",
        18: "file: there is no file 'img'",
        19: "file: there is no file 'xxx",
        21: "it repeats the headings",
        23: "something follows a closing quote",
    }
    return text, said


CLASSES = '[modalities.image]\n[modalities.shape]\nclasses = ["circle", "square", "star"]\n'


@pytest.fixture
def broken(tmp_path, rows):
    text, said = damaged(tmp_path, rows)
    file, config = tmp_path / "photos.csv", tmp_path / "photos.toml"
    file.write_text(text, newline="")
    config.write_text(f"{CLASSES}[modalities.attributes]\n")
    return file, config, said


def test_bad_rows_stop_the_import_and_are_all_named_by_their_line(mmgen, tmp_path, broken):
    file, config, said = broken
    before = sorted(tmp_path.iterdir())
    words = ("data", "table", file, "--config", config, "--out", tmp_path / "data")
    code, _, err = mmgen(*words)
    assert code == 2
    assert "12 of 30 rows cannot be used" in err
    assert "--skip-bad" in err
    listed = [line.strip() for line in err.splitlines() if line.startswith("  line ")]
    assert [int(line.split()[1].strip(":")) for line in listed] == list(said)
    for line, expected in zip(listed, said.values(), strict=True):
        assert line.split(": ", 1)[1].startswith(expected)
        assert len(line) < 260
    assert sorted(tmp_path.iterdir()) == before


def test_bad_rows_are_left_out_if_asked_and_listed_in_the_card(mmgen, tmp_path, broken):
    file, config, said = broken
    words = ("data", "table", file, "--config", config, "--out", tmp_path / "data", "--skip-bad")
    code, _, err = mmgen(*words)
    assert code == 0
    assert "left out 12 rows" in err
    assert "line 23: something follows" in err
    dataset = read_dataset(tmp_path / "data")
    assert sum(split.count for split in dataset.splits.values()) == 18
    card = (tmp_path / "data" / "README.md").read_text()
    assert [f"- line {line}:" in card for line in said] == [True] * 12
    assert "12 of 30 rows could not be used: " in card
    assert "unreadable image ×3" in card


def test_of_many_bad_rows_twenty_are_shown_and_the_rest_is_counted(mmgen, tmp_path, rows):
    file = save(tmp_path, [[f"gone/{i}.png", *row(i)[1:]] for i in range(60)] + rows)
    code, _, err = mmgen("data", "table", file, "--out", tmp_path / "data")
    assert code == 2
    assert err.count("there is no file") == 20
    assert "and 40 more; in all: no such file ×60" in err


def test_a_table_without_any_good_row_is_refused_even_then(mmgen, tmp_path):
    file = save(tmp_path, [[f"gone/{i}.png", *row(i)[1:]] for i in range(9)])
    code, _, err = mmgen("data", "table", file, "--out", tmp_path / "data", "--skip-bad")
    assert code == 2
    assert "none of its rows can be used" in err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\r\n\n \n", "is empty"),
        (b"a,b\n", "no rows below"),
        (b",,\n1,2,3\n", "no column has a heading in words"),
        (b"1,2\n3,4\n", "no column has a heading in words"),
        (b"a,b,a\n1,2,3\n", "the heading 'a' occurs twice"),
        (b"cat,1\ncat,0\ndog,1\n", "'cat' is a value of its column"),
        (b"x.png,cat\ny.png,dog\nz.png,dog\n", "'x.png' is the name of a file, not a heading"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not text in utf-8"),
        (b"a,b\n1,\x00\n", "zero bytes"),
        (b'a,b\n1,2\n3,4\n"5,6\n7,8\n', 'line 4: a quote (") opens here'),
        (b"a,b\n1," + b"x" * 200_000, "line 2: a cell is very long"),
        ("a,b\n1,é\n".encode("cp1252"), "--encoding"),
    ],
)
def test_what_is_no_table_is_one_message(mmgen, tmp_path, content, words):
    (tmp_path / "t.csv").write_bytes(content)
    code, _, err = mmgen("data", "table", tmp_path / "t.csv", "--out", tmp_path / "data")
    assert code == 2
    assert words in err
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--delimiter", "ab"), "--delimiter 'ab': it must be one character"),
        (("--encoding", "utf-88"), "--encoding utf-88: unknown"),
        (("--validation", 0.6, "--test", 0.4), "shares of the rows"),
        (("--validation", -0.1), "Invalid value for '--validation'"),
        (("--seed", -1), "Invalid value for '--seed'"),
        (("--split-column", "fold"), "--split-column fold: the table has file, shape"),
        (("--split-column", "shape", "--test", 0.1), "leave out --validation and --test"),
        (("--split-column", "shape"), "must be train, validation or test, not 'circle'"),
        (("--config", "absent.toml"), "absent.toml: there is no such file"),
    ],
)
def test_wrong_options_are_one_message(mmgen, tmp_path, rows, options, words):
    code, _, err = mmgen("data", "table", save(tmp_path, rows), "--out", tmp_path / "d", *options)
    assert code == 2
    assert words in err
    assert not (tmp_path / "d").exists()


def test_missing_files_folders_and_taken_places_are_refused_before_work(mmgen, tmp_path, rows):
    file = save(tmp_path, rows)
    assert "no such file" in mmgen("data", "table", tmp_path / "no.csv", "-o", tmp_path / "d")[2]
    assert "mmgen data folder" in mmgen("data", "table", tmp_path, "-o", tmp_path / "d")[2]
    assert "--out DIR" in mmgen("data", "table", file)[2]
    assert "exists" in mmgen("data", "table", file, "--out", tmp_path / "img")[2]
    assert len(list((tmp_path / "img").iterdir())) == 30


def test_an_imported_data_set_is_replaced_with_force(mmgen, tmp_path, rows):
    file, out = save(tmp_path, rows), tmp_path / "data"
    assert mmgen("data", "table", file, "--out", out)[0] == 0
    assert mmgen("data", "table", file, "--out", out)[0] == 2
    assert mmgen("data", "table", file, "--out", out, "--force", "--test", 0)[0] == 0
    assert {n: s.count for n, s in read_dataset(out).splits.items()} == {
        "train": 27,
        "validation": 3,
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found_out(tmp_path, delimiter):
    cells = [["img, one.png", "bold; large | tall"], ["b", 'say "x"']]
    table = read_table(save(tmp_path, cells, ["file", "what"], delimiter=delimiter))
    assert table.headings == ("file", "what")
    assert [list(row.cells) for row in table.rows] == cells


def test_tab_separated_files_and_other_encodings_are_read(tmp_path):
    (tmp_path / "t.tsv").write_text("a,b\tc\n1\t2\n")
    assert read_table(tmp_path / "t.tsv").headings == ("a,b", "c")
    (tmp_path / "t.csv").write_text("名前:色\n猫:黒\n", encoding="cp932")
    table = read_table(tmp_path / "t.csv", ":", "cp932")
    assert (table.headings, table.rows[0].cells) == (("名前", "色"), ("猫", "黒"))


def test_excel_s_mark_blanks_and_columns_without_a_heading_do_no_harm(mmgen, tmp_path, rows):
    lines = [",".join(["", *HEADINGS]), *(f"{i}, {', '.join(row(i))}" for i in range(30))]
    file = tmp_path / "photos.csv"
    file.write_text("\r".join(lines), encoding="utf-8-sig", newline="")
    assert mmgen("data", "table", file, "--out", tmp_path / "data")[0] == 0
    assert list(read_dataset(tmp_path / "data").modalities) == ["image", "shape", "attributes"]


def test_a_column_names_the_splits_in_any_usual_word(mmgen, tmp_path, rows):
    words = ["train", "Training", "VAL", "dev", "valid", "validation", "test", "testing"]
    split = [[*each, words[i % 8]] for i, each in enumerate(rows)]
    file = save(tmp_path, split, [*HEADINGS, "part"])
    out = tmp_path / "data"
    assert mmgen("data", "table", file, "--out", out, "--split-column", "part")[0] == 0
    dataset = read_dataset(out)
    assert {n: s.count for n, s in dataset.splits.items()} == {
        "train": 8,
        "validation": 16,
        "test": 6,
    }
    assert "part" not in dataset.modalities
    grey = dataset.splits["test"].load(["image"])["image"][:, 0, 0, 0]
    assert (grey // 8).tolist() == [6, 7, 14, 15, 22, 23]
    hint = mmgen("data", "table", file, "--out", tmp_path / "other")[2]
    assert "--split-column part" in hint


def test_splits_depend_on_the_seed_alone(mmgen, tmp_path, rows):
    file = save(tmp_path, rows)
    for name, seed in {"a": 0, "b": 0, "c": 1}.items():
        assert mmgen("data", "table", file, "--out", tmp_path / name, "--seed", seed)[0] == 0
    a, b, c = (read_dataset(tmp_path / name).hash for name in "abc")
    assert a == b
    assert a != c


def test_words_joined_in_one_cell_are_attributes(mmgen, tmp_path, rows):
    lists = ["bold|italic", "italic", "", "bold | large", "none"]
    cells = [[f"img/{i}.png", lists[i % 5]] for i in range(30)]
    out = tmp_path / "data"
    assert mmgen("data", "table", save(tmp_path, cells, ["file", "tags"]), "--out", out)[0] == 0
    dataset = read_dataset(out)
    assert dataset.modalities["attributes"]["names"] == ["bold", "italic", "large"]
    values = dataset.splits["train"].load()
    i = values["image"][:, 0, 0, 0].long() // 8
    expected = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 0, 0]])
    assert torch.equal(values["attributes"], expected[i % 5].to(torch.uint8))


def test_columns_of_numbers_are_gathered_and_running_numbers_left_alone(mmgen, tmp_path):
    lines = [[i + 7, f"{1.5 + i / 8}", i * i - 3, "ab"[i % 2]] for i in range(30)]
    file = save(tmp_path, lines, ["id", "height", "depth", "side"])
    code, out, _ = mmgen("data", "table", file, "--show")
    assert code == 0
    shown = tomllib.loads(out)["modalities"]
    assert shown["vector"]["columns"] == ["height", "depth"]
    assert '# not used: ["id"]' in out
    assert mmgen("data", "table", file, "--out", tmp_path / "data")[0] == 0
    dataset = read_dataset(tmp_path / "data")
    stored = dataset.splits["train"].load(["vector"])["vector"].double()
    assert dataset.modalities["vector"]["mean"] == pytest.approx(stored.mean(0).tolist(), rel=1e-5)


PLUGIN = """
import torch
from mmgen.hooks import hookimpl
from mmgen_label import Label


class Level(Label):
    kind = "level"
    api_version = 1
    offset: float = 0.0

    @classmethod
    def match_score(cls, cells):
        return sum(cell.startswith("L") for cell in cells) / len(cells)

    def fit(self, stored):
        return self.model_copy(update={"offset": float(stored.double().mean())})
    # MORE


@hookimpl
def mmgen_modalities():
    return [Level]
"""


def level_table(tmp_path):
    return save(tmp_path, [[f"L{i % 3}", SHAPES[i % 2]] for i in range(30)], ["level", "shape"])


def test_a_one_file_plugin_takes_part_in_the_guess_and_is_fitted_to_training(mmgen, tmp_path):
    (tmp_path / "level.py").write_text(PLUGIN)
    words = ("-p", tmp_path / "level.py", "data", "table", level_table(tmp_path))
    assert mmgen(*words, "--out", tmp_path / "data")[0] == 0
    dataset = read_dataset(tmp_path / "data")
    assert dataset.modalities["level"]["kind"] == "level"
    mean = float(dataset.splits["train"].load()["level"].double().mean())
    assert dataset.modalities["level"]["offset"] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("def parse(self, cell): raise KeyError('oops')", "failed to read line 2 (level): KeyErr"),
        ("def parse(self, cell): return 3", "TypeError: parse() gave int"),
        ("def parse(self, cell): return torch.zeros(int(cell[1]))", "stored in one form"),
        ("def join_cells(self, row): return 1 / 0", "ZeroDivisionError"),
        ("def fit(self, stored): raise RuntimeError('no')", "failed to be fitted"),
        ("def parse(self, cell): raise SystemExit(0)", "failed to read line 2 (level): SystemExit"),
        (
            "infer_settings = classmethod(lambda cls, columns: {})",
            "modalities.level.classes: missing",
        ),
    ],
)
def test_a_plugin_that_breaks_is_named(mmgen, tmp_path, more, words):
    file = tmp_path / f"level_{abs(hash(more))}.py"
    file.write_text(PLUGIN.replace("# MORE", more))
    table = level_table(tmp_path)
    code, _, err = mmgen("-p", file, "data", "table", table, "--out", tmp_path / "data")
    assert code == 2
    assert words in err
    assert "level_" in err  # the plugin's file
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([file.name, table.name])


UNSURE = {
    "raise": "1 / 0",
    "exit": "exit(0)",
    "interrupt": "(_ for _ in ()).throw(KeyboardInterrupt)",
    "nan": "float('nan')",
    "none": "None",
    "text": "'0.9'",
    "two": "2.0",
    "negative": "-1",
}


@pytest.mark.parametrize(
    "more",
    [
        *(
            pytest.param(
                f"match_score = classmethod(lambda cls, cells: {code})", id=f"match_score: {name}"
            )
            for name, code in UNSURE.items()
        ),
        pytest.param(
            "infer_settings = classmethod(lambda cls, columns: 1 / 0)", id="settings: raise"
        ),
        pytest.param(
            "infer_settings = classmethod(lambda cls, columns: ['classes'])", id="settings: list"
        ),
        pytest.param(
            "infer_settings = classmethod(lambda cls, columns: {1: 2})", id="settings: number"
        ),
    ],
)
def test_a_kind_that_cannot_judge_columns_has_no_vote_and_the_others_go_on(mmgen, tmp_path, more):
    file = tmp_path / f"level_{abs(hash(more))}.py"
    file.write_text(PLUGIN.replace("# MORE", more))
    table = level_table(tmp_path)
    code, healthy, _ = mmgen("data", "table", table, "--show")
    assert code == 0
    code, out, err = mmgen("-p", file, "data", "table", table, "--show")
    assert (code, out) == (0, healthy)
    [note] = err.splitlines()
    assert note.startswith(f"note: kind 'level' of plugin {file}")
    # Whoever asks for that very kind is told what is wrong, and the command that says more.
    wanted = tmp_path / "wanted.toml"
    wanted.write_text("[modalities.level]\nkind = 'level'\n[modalities.shape]\n")
    if "settings" in more:
        code, _, err = mmgen("-p", file, "data", "table", table, "--config", wanted, "--show")
        assert code == 2
        assert f"mmgen -p {file} plugins check level" in err


def test_toml_that_is_shown_survives_hostile_words(tmp_path):
    words = ["tab\there", 'quote " and \\', "é 猫 \x7f", "# no comment", "[x]"]
    rows = [[words[i % 5], SHAPES[i % 3]] for i in range(40)]
    registry = build.registry()
    table = read_table(save(tmp_path, rows, ['odd "one"', "shape"]))
    found = sources(table, registry, {})
    toml = tmp_path / "t.toml"
    toml.write_text(as_toml(found, ["left\nout"]), encoding="utf-8")
    again = sources(table, registry, read_wanted(toml))
    assert {n: (s.cls, s.columns) for n, s in again.items()} == {
        n: (s.cls, s.columns) for n, s in found.items()
    }
    assert list(again["odd_one"].settings["classes"]) == sorted(words)


CELLS = st.one_of(
    st.sampled_from(["cat", "dog", "0", "1", "yes", "no", "1.5", "a|b", "b", "", " ", "x.png"]),
    st.text(max_size=6),
)
COLUMNS = [["cat", "dog"], ["0", "1"], ["2.5", "0.1", "-3.75"], ["a|b", "b", "a;b"], ["é", "\n"]]


@st.composite
def files(draw):
    """Makes the content of a file: a table with a little damage, or something wilder."""
    if tame := draw(st.integers(0, 3)) > 0:
        kinds = draw(st.lists(st.sampled_from(COLUMNS), min_size=2, max_size=4))
        line = st.tuples(*(st.sampled_from(kind) for kind in kinds)).map(list)
        rows = draw(st.lists(line, min_size=4, max_size=14))
        for _ in range(draw(st.integers(0, 2))):
            broken = draw(st.sampled_from(rows))
            place = draw(st.integers(0, len(broken) - 1)) if broken else 0
            broken[place : place + 1] = draw(st.lists(CELLS, max_size=2))
        rows.insert(0, ["pet", "on", "size", "other"][: len(kinds)])
    else:
        rows = draw(st.lists(st.lists(CELLS, max_size=5), max_size=12))
    stream = io.StringIO()
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    csv.writer(stream, delimiter=draw(st.sampled_from(",;\t|")), quoting=quoting).writerows(rows)
    encodings = ["utf-8", "utf-8-sig"] if tame else ["utf-8", "utf-16", "cp932"]
    content = stream.getvalue().encode(draw(st.sampled_from(encodings)), "replace")
    return content if tame else content + draw(st.binary(max_size=3))


def test_any_file_gives_a_data_set_that_adds_up_or_one_error_and_nothing_else(tmp_path_factory):
    outcomes = Counter()

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(content=files(), skip_bad=st.booleans(), share=st.sampled_from([0.0, 0.1, 0.4]))
    def check(content, skip_bad, share):
        folder = tmp_path_factory.mktemp("any")
        (folder / "t.csv").write_bytes(content)
        try:
            table = read_table(folder / "t.csv")
            found = sources(table, REGISTRY, {})
            splitting, words = Splitting(share, share), {"folder": folder, "skip_bad": skip_bad}
            with import_table(table, found, REGISTRY, splitting, **words) as done:
                modalities = {n: m.to_config() for n, m in done.modalities.items()}
                about = {"name": "any", "about": "", "modalities": modalities}
                dataset = write_dataset(folder / "data", splits=done.splits, **about)
        except MmgenError:
            outcomes["refused"] += 1
            assert [p.name for p in folder.iterdir()] == ["t.csv"]
            return
        outcomes["written"] += 1
        used = sum(split.count for split in dataset.splits.values())
        assert used + len(done.bad) == len(table.rows) + len(table.bad)
        assert skip_bad or not done.bad
        assert sorted(p.name for p in folder.iterdir()) == ["data", "t.csv"]
        for value in dataset.splits["train"].load().values():
            assert len(value) == dataset.splits["train"].count > 0

    check()
    assert min(outcomes["refused"], outcomes["written"]) > 20


REGISTRY = build.registry()


PEAK = """
import resource, sys
from mmgen.cli.app import main
sys.argv = ["mmgen", *sys.argv[1:]]
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def test_rows_that_are_read_wait_outside_of_memory(mmgen, tmp_path, rows, monkeypatch):
    read, most = [], []
    parse = Image.parse

    def parsed(self, cell):
        value = parse(self, cell)
        read.append(weakref.ref(value))
        most.append(sum(ref() is not None for ref in read))
        return value

    monkeypatch.setattr(Image, "parse", parsed)
    monkeypatch.setattr(importing, "CHUNK", 4)
    code, _, err = mmgen("data", "table", save(tmp_path, rows), "--out", tmp_path / "data")
    assert code == 0, err
    assert len(read) == 30
    assert max(most) <= 8


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path):
    picture(tmp_path / "img" / "0.png", size=(160, 160))
    (tmp_path / "t.toml").write_text(
        '[modalities.image]\nkind="image"\ncolumns=["file"]\nchannels=3\nheight=160\nwidth=160\n'
        '[modalities.shape]\nkind="label"\n'
    )
    peaks = []
    for count in (40, 1_500):  # of 75 KiB each: 108 MiB in all
        file = save(tmp_path, [["img/0.png", SHAPES[i % 3]] for i in range(count)], HEADINGS[:2])
        words = ("data", "table", file, "--config", tmp_path / "t.toml", "--out", f"data-{count}")
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *map(str, words)],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        peaks.append(int(done.stderr.split()[-1]))
    assert peaks[1] < peaks[0] + 50 * 1024


def test_a_heading_too_long_for_a_name_is_called_by_its_kind(mmgen, tmp_path):
    lines = [f"{'a' * 300},b", *(f"{'xyz'[row % 3]},{'uv'[row % 2]}" for row in range(40))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    code, out, err = mmgen("data", "table", tmp_path / "t.csv", "--out", tmp_path / "data")
    assert code == 0, err
    assert "modalities label, b" in out
