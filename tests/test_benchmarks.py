"""python -m benchmarks: ways in turn, medians compared, a page that says what was measured."""

import sys

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import generation, likelihood, peers, reading, replicated, training, writing
from benchmarks.measuring import OURS, Measured, Options, Section, alternate, machine, timed

CPU = Options(rounds=1, device=torch.device("cpu"), peer=None)

PEER = """
import sys
print("peer 1.0", flush=True)
for number, _ in enumerate(sys.stdin):
    if number == 3:
        raise SystemExit(4)
    print(number + 0.5, f"found {number}", flush=True)
"""


def test_ways_are_timed_in_turn_and_the_median_counts():
    asked = []

    def way(name, times):
        return lambda: (asked.append(name), next(times))[1]

    times = [iter([100.0, 3.0, 1.0, 2.0]), iter([1.0, 10.0, 30.0, 20.0])]
    found = alternate({OURS: way("a", times[0]), "b": way("b", times[1])}, rounds=3, warm=1)
    assert asked == ["a", "b"] * 4
    assert found == {OURS: 2.0, "b": 20.0}
    assert Measured("work", found).ratio("b") == 10


def test_what_is_timed_is_done():
    done = []
    assert timed(lambda: done.append(1))() < 1
    assert done == [1]


def test_the_products_of_a_step_are_those_of_its_nets():
    """Every weight matrix of the plain loop is multiplied once forward."""
    from benchmarks.plain import Digits

    matrices = [tuple(p.shape) for p in Digits().parameters() if p.dim() == 2]
    assert sorted(matrices) == sorted((after, before) for before, after, _ in training.PRODUCTS)
    first = [before for before, _, inward in training.PRODUCTS if not inward]
    assert sorted(first) == [10, 10, 784, 784]


def test_both_sides_of_a_step_work():
    work, _ = training.mmgen(2, CPU.device, "float32")
    assert work()["loss"].isfinite()
    training.by_hand(2, CPU.device, "float32")()


def test_a_part_measures_and_says_how(monkeypatch):
    monkeypatch.setattr(replicated, "NETS", {"linear": ((3,), lambda: torch.nn.Linear(3, 2))})
    monkeypatch.setattr(replicated, "whole", lambda _, precision: Measured(precision, {OURS: 1.0}))
    section = replicated.measure(CPU, range(2, 4))
    assert [line.what for line in section.lines[:2]] == [
        "linear, K = 2, 2 copies",
        "linear, K = 3, 4 copies",
    ]
    assert all(seconds > 0 for line in section.lines for seconds in line.seconds.values())


def test_generation_and_reading_do_the_same_as_what_they_are_compared_with(monkeypatch):
    monkeypatch.setattr(generation, "SAMPLES", 3)
    monkeypatch.setattr(generation, "CHAINS", 2)
    monkeypatch.setattr(generation, "ITERATIONS", 2)
    monkeypatch.setattr(reading, "ROWS", 200)
    assert {"nets alone", OURS} == {*generation.measure(CPU).lines[1].seconds}
    assert {"DataLoader", OURS} <= {*reading.measure(CPU).lines[0].seconds}


def test_the_likelihood_is_estimated_and_said(monkeypatch):
    monkeypatch.setattr(likelihood, "ROWS", 2)
    monkeypatch.setattr(likelihood, "SAMPLES", 3)
    section = likelihood.measure(CPU)
    assert [line.what for line in section.lines] == ["2 rows × 3 z"]
    assert "nats, which must agree: -5" in section.about


def test_a_peer_answers_through_a_pipe_and_its_end_is_told(tmp_path, monkeypatch):
    script = tmp_path / "peer.py"
    script.write_text(PEER)
    monkeypatch.setattr(peers, "SCRIPT", script)
    with peers.peer(sys.executable, "training", rows=1) as peer:
        assert peer.name == "peer 1.0"
        assert [peer(), peer(), peer()] == [0.5, 1.5, 2.5]
        assert peer.found == "found 2"
        with pytest.raises(SystemExit, match="exit code 4"):
            peer()


def test_the_page_has_every_number_and_a_plot(tmp_path):
    lines = (
        Measured("small", {OURS: 0.0123456, "loop": 0.0246912}, "wide"),
        Measured("large", {OURS: 1.5, "products": 0.75}),
    )
    sections = [Section("Work", "What was done.", lines), Section("Card", "Needs a card.", ())]
    page = tmp_path / "benchmarks.md"
    writing.write(page, "a processor", sections, rounds=5)
    text = page.read_text()
    assert "| small | 12.3 | 24.7 (2.00) |  | wide |" in text
    assert "| large | 1,500 |  | 750 (0.50) |  |" in text
    assert "5 rounds, on a processor" in text
    assert "Needs a card." in text
    assert (tmp_path / "benchmarks.png").read_bytes().startswith(b"\x89PNG")


def test_bad_words_are_told(capsys):
    for words in (["trainig"], ["--rounds", "0"]):
        with pytest.raises(SystemExit) as stop:
            command.main(words)
        assert stop.value.code == 2
    assert "there is no part 'trainig'" in capsys.readouterr().err
    assert "threads of" in machine(CPU.device)
