"""python -m benchmarks.quality: candidates at equal time, what is done kept, one table."""

import csv
import json
import time

import pytest
import torch

from benchmarks import quality


def finding(question, given, targets, value, about="", ceiling=None):
    of = {"question": question, "given": given, "targets": targets, "about": about}
    return of | {"value": value, "ceiling": ceiling}


FINDINGS = [
    finding("one to one", ["image"], ["label"], 0.9),
    finding("one to one", ["image"], ["label"], 0, about="A"),
    finding("one to one", ["sound"], ["label"], 0.7),
    finding("one to one", ["label"], ["image"], 0.6, ceiling=0.8),
    finding("one to one", ["sound"], ["image"], 0.4, ceiling=0.8),
    finding("one to one", [], [], 0.1),
    finding("one to many, right", ["label"], ["image", "sound"], 0.4, ceiling=0.8),
    finding("one to many, right", ["image"], ["label", "sound"], 0.2, ceiling=0.8),
    finding("from nothing", [], ["image"], 0.4, ceiling=0.8),
    finding("Fréchet", [], ["image"], 30.0, ceiling=3.0),
    finding("Fréchet", ["label"], ["image"], 7.0, ceiling=3.0),
]


def test_numbers_are_of_directions_of_one_sort_and_shares_of_what_is_seen_in_real_rows():
    assert quality.summary({"findings": FINDINGS}, "label") == {
        "told": 0.9,
        "shown": pytest.approx(0.75),
        "crossed": pytest.approx(0.5),
        "many": pytest.approx(0.375),
        "nothing": pytest.approx(0.5),
        "distance": 30.0,
    }


def test_a_table_has_means_and_deviations_over_seeds():
    found = [{"epochs": 3, "told": 0.8}, {"epochs": 5, "told": 0.9}]
    text = quality.table({("glyphs", "defaults"): found, ("glyphs", "flow"): []}, "about")
    assert "| defaults | 4 | 85.0 ± 7.1 | – | – | – | – | – |" in text
    assert "flow" not in text


@pytest.mark.parametrize(
    ("write", "classes"), [(quality.write_measurements, 6), (quality.write_words, 4)]
)
def test_a_table_is_the_same_each_time_it_is_written(tmp_path, write, classes):
    write(tmp_path / "a.csv", rows=600)
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert len(rows) == 600
    assert len({row["label"] for row in rows}) == classes
    again = tmp_path / "b.csv"
    write(again, rows=600)
    assert again.read_bytes() == (tmp_path / "a.csv").read_bytes()


def test_a_word_is_of_one_class(tmp_path):
    quality.write_words(tmp_path / "a.csv", rows=600)
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert len({(row["word"], row["label"]) for row in rows}) == len({row["word"] for row in rows})


def test_clothes_are_pictures_and_what_is_said_of_them(tmp_path, monkeypatch):
    images = torch.randint(256, (40, 28, 28), dtype=torch.uint8)
    labels = torch.arange(40) % 10
    monkeypatch.setattr(quality, "read_idx", lambda *_, **__: (images, labels))
    quality.write_clothes(tmp_path / "table" / "rows.csv", tmp_path, rows=20)
    with (tmp_path / "table" / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    for row in rows:
        number = int(row["image"].partition("/")[2].removesuffix(".png"))
        assert row["label"] == quality.CLOTHES[labels[number]]
        assert (tmp_path / "table" / row["image"]).exists()


def test_a_command_is_timed_by_what_the_core_worked_for_it(monkeypatch):
    monkeypatch.setattr(quality.sys, "executable", "true")
    assert 0 <= quality.mmgen("train") < 5
    monkeypatch.setattr(quality.sys, "executable", "false")
    with pytest.raises(SystemExit, match="mmgen train"):
        quality.mmgen("train")


def test_every_trial_trains_for_the_same_time_and_what_is_done_is_kept(
    tmp_path, monkeypatch, capsys
):
    asked = []

    def mmgen(*words):
        words = [str(word) for word in words]
        asked.append(words)
        out = tmp_path / words[words.index("--out") + 1]
        if words[0] == "coherence":
            out.write_text(json.dumps({"findings": FINDINGS}))
            return 0.0
        out.mkdir(parents=True, exist_ok=True)
        (out / "metrics.jsonl").write_text('{"seconds": 9.0}\n{"seconds": 8.0}\n')
        return 5.0

    # A clock that stands still but for ten seconds around what is timed: half of them the core's.
    clock = iter(range(0, 100_000, 10))
    monkeypatch.setattr(quality, "mmgen", mmgen)
    monkeypatch.setattr(quality, "time", type("Clock", (), {"monotonic": lambda: next(clock)}))
    words = [str(tmp_path), "--only", "glyphs", "--seeds", "2", "--minutes", "0.5"]
    candidates = ["--candidate", "defaults", "--candidate", "wide: model.latent=128"]
    quality.main([*words, *candidates])
    trained = [w for w in asked if w[0] == "train" and "train.epochs=7" in w]
    assert len(trained) == 4
    assert sum("model.latent=128" in w for w in trained) == 2
    assert [w[-2] for w in trained] == ["train.seed=0"] * 2 + ["train.seed=1"] * 2
    text = (tmp_path / "quality.md").read_text()
    assert "| wide | 7 | 90.0 ± 0.0 |" in text
    asked.clear()
    monkeypatch.setattr(quality, "time", time)
    quality.main([*words, *candidates])
    assert asked == []
    assert "0 of 4 trials are left" in capsys.readouterr().err
