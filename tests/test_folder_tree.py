"""`mmgen data folder`: a folder for each class becomes pictures with labels."""

import os
import sys

import numpy as np
import PIL.Image
import pytest

from mmgen.data.store import read_dataset

CLASSES = ("cat", "dog", "owl")


def picture(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full((6, 8), value, np.uint8)).save(path)


@pytest.fixture
def tree(tmp_path):
    """Ten pictures a class, grey with 10 times the class's number plus their own."""
    for number, name in enumerate(CLASSES):
        for i in range(10):
            picture(tmp_path / "pets" / name / f"{i}.png", 10 * number + i)
    return tmp_path / "pets"


def test_each_picture_has_the_label_of_its_folder(mmgen, tmp_path, tree):
    picture(tree / "owl" / "deeper" / "x.png", 29)
    picture(tree / ".cache" / "thumb.png", 99)
    (tree / "cat" / ".DS_Store").write_bytes(b"\0")
    code, out, _ = mmgen("data", "folder", tree, "--out", tmp_path / "data")
    assert code == 0
    assert "25 train, 3 validation, 3 test; modalities image, label" in out
    dataset = read_dataset(tmp_path / "data")
    assert dataset.name == "pets"
    assert dataset.modalities["label"]["classes"] == list(CLASSES)
    assert [dataset.modalities["image"][k] for k in ("channels", "height", "width")] == [1, 6, 8]
    seen = []
    for split in dataset.splits.values():
        values = split.load()
        seen += values["image"][:, 0, 0, 0].tolist()
        assert (values["image"][:, 0, 0, 0] // 10).tolist() == values["label"].tolist()
    assert sorted(seen) == sorted([*range(30), 29])


def test_folders_of_splits_are_kept(mmgen, tmp_path, tree):
    (tmp_path / "splits").mkdir()
    tree.rename(tmp_path / "splits" / "Training")
    for name in CLASSES:
        picture(tmp_path / "splits" / "val" / name / "1.png", 7)
    assert mmgen("data", "folder", tmp_path / "splits", "--out", tmp_path / "data")[0] == 0
    dataset = read_dataset(tmp_path / "data")
    assert {n: s.count for n, s in dataset.splits.items()} == {"train": 30, "validation": 3}
    assert dataset.modalities["label"]["classes"] == list(CLASSES)
    taken = mmgen("data", "folder", tmp_path / "splits", "-o", tmp_path / "x", "--test", 0.2)
    assert "leave out --validation and --test" in taken[2]


def test_classes_may_be_called_like_splits(mmgen, tmp_path):
    for number, name in enumerate(("test", "train")):
        for i in range(3):
            picture(tmp_path / "words" / name / f"{i}.png", number)
    assert mmgen("data", "folder", tmp_path / "words", "--out", tmp_path / "data")[0] == 0
    assert read_dataset(tmp_path / "data").modalities["label"]["classes"] == ["test", "train"]


def test_one_picture_a_class_is_enough(mmgen, tmp_path):
    for number, name in enumerate(CLASSES):
        picture(tmp_path / "few" / name / "x.png", number)
    assert mmgen("data", "folder", tmp_path / "few", "--out", tmp_path / "data")[0] == 0
    assert read_dataset(tmp_path / "data").splits["train"].count == 3


def test_what_is_no_picture_is_named_and_can_be_left_out(mmgen, tmp_path, tree):
    (tree / "cat" / "notes.txt").write_text("not a picture")
    (tree / "dog" / "3.png").write_bytes(b"\x89PNG cut")
    (tree / "readme.txt").write_text("in no class")
    words = ("data", "folder", tree, "--out", tmp_path / "data")
    code, _, err = mmgen(*words)
    assert code == 2
    assert "3 of 32 rows cannot be used" in err
    for line in (
        "cat/notes.txt: file: 'cat/notes.txt' is no picture",
        "dog/3.png: file: 'dog/3.png' is no picture",
        "readme.txt: it lies in no folder that names its class",
    ):
        assert f"  {line}" in err
    assert not (tmp_path / "data").exists()
    assert mmgen(*words, "--skip-bad")[0] == 0
    dataset = read_dataset(tmp_path / "data")
    assert sum(split.count for split in dataset.splits.values()) == 29
    assert "- dog/3.png: file: " in (tmp_path / "data" / "README.md").read_text()


def test_a_configuration_sets_the_size(mmgen, tmp_path, tree):
    toml = tmp_path / "pets.toml"
    shown = mmgen("data", "folder", tree, "--show")[1]
    smaller = shown.replace("height = 6", "height = 3")
    toml.write_text(smaller.replace("modalities.label", "modalities.pet"))
    assert mmgen("data", "folder", tree, "--out", tmp_path / "data", "--config", toml)[0] == 0
    dataset = read_dataset(tmp_path / "data")
    assert list(dataset.modalities) == ["image", "pet"]
    assert dataset.splits["train"].load()["image"].shape == (24, 1, 3, 8)


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there")
def test_names_in_any_script_are_read_and_bytes_that_are_none_are_refused(mmgen, tmp_path, tree):
    (tree / "cat").rename(tree / "猫\u3000白")
    assert mmgen("data", "folder", tree, "--out", tmp_path / "data")[0] == 0
    assert "猫\u3000白" in read_dataset(tmp_path / "data").modalities["label"]["classes"]
    (tree / "dog" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    code, _, err = mmgen("data", "folder", tree, "--out", tmp_path / "other")
    assert code == 2
    assert "rename it" in err


def test_a_file_an_empty_folder_and_loose_pictures_are_refused(mmgen, tmp_path):
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "loose" / "x.png", 1)
    for source, words in {
        tmp_path / "loose" / "x.png": "is no folder",
        tmp_path / "absent": "is no folder",
        tmp_path / "empty": "holds no folders with files",
        tmp_path / "loose": "holds no folders with files",
    }.items():
        code, _, err = mmgen("data", "folder", source, "--out", tmp_path / "data")
        assert (code, words in err) == (2, True), err
    (tmp_path / "loose" / "one").mkdir()
    picture(tmp_path / "loose" / "one" / "x.png", 1)
    code, _, err = mmgen("data", "folder", tmp_path / "loose", "-o", tmp_path / "d", "--skip-bad")
    assert code == 2
    assert "label.classes" in err
    assert not (tmp_path / "d").exists()
