"""The card beside every data set: counts that are right, words that are escaped, a page to see."""

import csv
import re
import shutil

import numpy as np
import PIL.Image
import pytest
import torch

from mmgen.data.card import card
from mmgen.data.store import Split, read_dataset
from mmgen_attributes import Attributes
from mmgen_image import Image
from mmgen_label import Label

LABEL = Label(classes=("cat", "dog"))
ATTRIBUTES = Attributes(names=("big", "red"))


def rows(**values):
    """Returns a split in two shards, as one that was written may have."""
    some = {name: value[:2] for name, value in values.items()}
    more = {name: value[2:] for name, value in values.items()}
    return Split((some, more) if len(next(iter(more.values()))) else (some,))


def splits():
    looks = torch.tensor([[1, 0], [1, 1], [0, 0], [1, 0]], dtype=torch.uint8)
    return {
        "train": rows(pet=torch.tensor([0, 0, 1, 0]), looks=looks),
        "test": rows(pet=torch.tensor([1]), looks=torch.tensor([[0, 1]], dtype=torch.uint8)),
    }


def table_after(text, heading):
    """Returns the cells of the first table below a heading, by the first cell."""
    below = text.split(f"## {heading}\n", 1)[1]
    (table,) = re.findall(r"\A.*?((?:^\|[^\n]*\n)+)", below, flags=re.MULTILINE | re.DOTALL)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0]: row[1:] for row in cells}


def test_classes_are_counted_and_attributes_have_base_rates():
    text = card("pets", "Made up.", {"pet": LABEL, "looks": ATTRIBUTES}, splits())
    assert "| train | 4 |\n| test | 1 |\n| all | 5 |" in text
    assert table_after(text, "pet")["cat"] == ["3", "0", "60.0 %"]
    assert table_after(text, "pet")["dog"] == ["1", "1", "40.0 %"]
    assert table_after(text, "looks")["big"] == ["3", "0", "60.0 %"]
    assert table_after(text, "looks")["red"] == ["1", "1", "40.0 %"]
    assert "kind **label**" in text


def test_numbers_have_their_range():
    class Numbers(Label):
        def choices(self):
            return []

        def describe(self, x):
            return ["some"] * len(x)

    values = {"train": rows(n=torch.tensor([[1.0, 10.0], [3.0, 10.0], [1.0, 10.0]]))}
    values["test"] = rows(n=torch.tensor([[3.0, 10.0]]))
    text = card("n", "", {"n": Numbers(classes=("height", "depth"))}, values)
    assert table_after(text, "n")["height"] == ["1", "2", "1", "3"]
    assert table_after(text, "n")["depth"] == ["10", "10", "0", "10"]


def test_pictures_tell_size_and_the_settings_that_differ():
    stored = {"train": rows(image=torch.zeros(2, 1, 5, 4, dtype=torch.uint8))}
    text = card("x", "", {"image": Image(height=5, width=4)}, stored, sheet=True)
    assert "kind **image**; 1×5×4, uint8; height 5; width 4\n" in text
    assert "![Examples](contact-sheet.png)" in text
    assert "## Examples" not in text


def test_hostile_words_stay_words():
    hostile = Label(classes=("a|b", "<script>x</script>", "# [link](x)", "`code` *b* _i_"))
    stored = {"train": rows(pet=torch.arange(4))}
    text = card("<b>\n# x", "![no](y)", {"pet": hostile}, stored)
    for line in text.splitlines():
        assert not re.search(r"(?<!\\)<", line)
        assert not line.startswith("![")
    assert len([line for line in text.splitlines() if line.startswith("# ")]) == 1
    assert r"a\|b" in text
    from markdown_it import MarkdownIt

    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert "<script" not in html
    assert "<img" not in html
    assert "<td>a|b</td>" in html
    assert "<code>code" not in html


@pytest.fixture
def shapes(tmp_path, mmgen):
    rows = []
    for i in range(30):
        PIL.Image.fromarray(np.full((40, 30, 3), 8 * i, np.uint8)).save(tmp_path / f"{i}.png")
        rows.append([f"{i}.png", ["circle", "square"][i % 2], i % 3 // 2])
    rows[4][2] = "maybe"
    with (tmp_path / "shapes.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["file", "shape", "large"], *rows])
    words = ("data", "table", tmp_path / "shapes.csv", "--out", tmp_path / "data", "--skip-bad")
    assert mmgen(*words)[0] == 0
    return tmp_path / "data"


def test_every_data_set_has_a_card_and_a_contact_sheet(mmgen, tmp_path, shapes):
    text = (shapes / "README.md").read_text()
    assert f"mmgen data table {tmp_path / 'shapes.csv'} --out {shapes} --skip-bad\n" in text
    assert table_after(text, "shape")["circle"][-1] == f"{100 * 14 / 29:.1f} %"
    assert "- line 6: large: 'maybe' under large is not 0/1" in text
    with PIL.Image.open(shapes / "contact-sheet.png") as sheet:
        assert min(sheet.size) > 400
    counts = ("--train", 40, "--validation", 5, "--test", 5)
    assert mmgen("data", "glyphs", "--out", tmp_path / "glyphs", *counts)[0] == 0
    assert "# glyphs" in (tmp_path / "glyphs" / "README.md").read_text()
    # Grey, not binarised by chance: letters are antialiased.
    with PIL.Image.open(tmp_path / "glyphs" / "contact-sheet.png") as sheet:
        assert len(np.unique(np.asarray(sheet.convert("L")))) > 64


def test_show_prints_the_card_but_for_the_picture(mmgen, shapes):
    code, out, _ = mmgen("data", "show", shapes)
    assert code == 0
    assert re.search(r"^ circle( +\d+){3} +48\.3 % *$", out, flags=re.MULTILINE)
    assert "line 6: large: 'maybe'" in out
    assert "contact-sheet" not in out
    assert read_dataset(shapes).hash in out


def test_show_makes_up_for_a_card_that_is_not_there(mmgen, small_glyphs):
    assert not (small_glyphs / "README.md").exists()
    code, out, _ = mmgen("data", "show", small_glyphs)
    assert code == 0
    assert re.search(r"^ train +400 *$", out, flags=re.MULTILINE)
    assert re.search(r"^ bold( +\d+){3}", out, flags=re.MULTILINE)


def test_show_does_not_print_a_card_that_is_a_flood(mmgen, small_glyphs, tmp_path):
    flooded = shutil.copytree(small_glyphs, tmp_path / "flooded")
    (flooded / "README.md").write_text('{"a":' * 100_000)
    code, out, _ = mmgen("data", "show", flooded)
    assert code == 0
    assert '{"a":{"a":' not in out
    assert re.search(r"^ train +400 *$", out, flags=re.MULTILINE)


def test_a_kind_that_cannot_be_shown_costs_the_card_not_the_data(mmgen, tmp_path, monkeypatch):
    monkeypatch.setenv("MMGEN_PLUGINS", "label,sources")
    counts = ("--train", 10, "--validation", 2, "--test", 2)
    code, _, err = mmgen("data", "glyphs", "--out", tmp_path / "glyphs", *counts)
    assert code == 0
    assert "no card: " in err
    assert read_dataset(tmp_path / "glyphs").splits["train"].count == 10
    assert not {"README.md", "contact-sheet.png"} & {
        p.name for p in (tmp_path / "glyphs").iterdir()
    }
    code, out, err = mmgen("data", "show", tmp_path / "glyphs")
    assert code == 0
    assert "no plugin provides" in err
    assert re.search(r"^ train +10 *$", out, flags=re.MULTILINE)


def test_card_and_sheet_are_no_reason_not_to_replace_a_data_set(mmgen, tmp_path, shapes):
    words = ("data", "table", tmp_path / "shapes.csv", "--out", shapes, "--skip-bad", "--force")
    assert mmgen(*words)[0] == 0
    (shapes / "notes.txt").write_text("mine")
    code, _, err = mmgen(*words)
    assert code == 2
    assert "notes.txt" in err
