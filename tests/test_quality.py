"""python -m benchmarks.quality: candidates at equal time, what is done kept, one table."""

import csv
import json

import pytest

from benchmarks import quality

FINDINGS = [
    {"question": "one to one", "given": ["image"], "targets": ["label"], "about": "", "value": 0.9},
    {"question": "one to one", "given": ["image"], "targets": ["label"], "about": "A", "value": 0},
    {"question": "one to one", "given": ["sound"], "targets": ["label"], "about": "", "value": 0.7},
    {"question": "one to one", "given": ["label"], "targets": ["image"], "about": "", "value": 0.6},
    {"question": "one to one", "given": ["sound"], "targets": ["image"], "about": "", "value": 0.5},
    {"question": "one to one", "given": [], "targets": [], "about": "", "value": 0.1},
    {"question": "from nothing", "given": [], "targets": ["image"], "about": "", "value": 0.4},
    {"question": "Fréchet", "given": [], "targets": ["image"], "about": "", "value": 30.0},
    {"question": "Fréchet", "given": ["label"], "targets": ["image"], "about": "", "value": 7.0},
]


def test_numbers_are_means_over_directions_of_one_sort():
    assert quality.summary({"findings": FINDINGS}, "label") == {
        "told": pytest.approx(0.8),
        "shown": 0.6,
        "crossed": 0.5,
        "nothing": 0.4,
        "distance": 30.0,
    }


def test_a_table_has_means_and_deviations_over_seeds():
    found = [{"epochs": 3, "told": 0.8}, {"epochs": 5, "told": 0.9}]
    text = quality.table({("glyphs", "defaults"): found, ("glyphs", "flow"): []}, "about")
    assert "| defaults | 4 | 85.0 ± 7.1 | – | – | – | – |" in text
    assert "flow" not in text


def test_measurements_are_a_table_with_two_instruments(tmp_path):
    quality.write_measurements(tmp_path / "a.csv", rows=600)
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert len(rows) == 600
    assert len({row["label"] for row in rows}) == 6
    again = tmp_path / "b.csv"
    quality.write_measurements(again, rows=600)
    assert again.read_bytes() == (tmp_path / "a.csv").read_bytes()


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
            return
        out.mkdir(parents=True, exist_ok=True)
        (out / "metrics.jsonl").write_text('{"seconds": 4.0}\n')

    monkeypatch.setattr(quality, "mmgen", mmgen)
    words = [str(tmp_path), "--only", "glyphs", "--seeds", "2", "--minutes", "0.5"]
    candidates = ["--candidate", "defaults", "--candidate", "wide: model.latent=128"]
    quality.main([*words, *candidates])
    trained = [w for w in asked if w[0] == "train" and "train.epochs=7" in w]
    assert len(trained) == 4
    assert sum("model.latent=128" in w for w in trained) == 2
    assert [w[-2] for w in trained] == ["train.seed=0"] * 2 + ["train.seed=1"] * 2
    text = (tmp_path / "quality.md").read_text()
    assert "| wide | 7 | 80.0 ± 0.0 |" in text
    asked.clear()
    quality.main([*words, *candidates])
    assert asked == []
    assert "0 of 4 trials are left" in capsys.readouterr().err


def test_an_unknown_candidate_is_told(tmp_path):
    with pytest.raises(SystemExit, match="there are defaults"):
        quality.main([str(tmp_path), "--candidate", "defualts"])
