"""The units of the vector plugin: numbers read, measured, rounded and recognised."""

import math

import pytest
import torch

from mmgen_vector.units import column_score, measure, read_numbers, rounded


def test_many_large_numbers_keep_their_precision():
    stored = 1e5 + torch.arange(3.0).repeat(100_000).unsqueeze(1)
    mean, deviation = measure(stored)
    assert mean == pytest.approx((100_001,), abs=1e-6)
    assert deviation == pytest.approx((math.sqrt(2 / 3),), rel=1e-6)


@pytest.mark.parametrize(
    ("value", "deviation", "text"),
    [
        (1.7234, 0.1, "1.72"),
        (64.27, 12.5, "64"),
        (-0.004, 1.0, "0"),
        (1.7144, 0.09, "1.71"),
        (1234567.0, 2000.0, "1234600"),
        (1.5e-9, 1e-9, "1.5e-09"),
        (math.inf, 1.0, "inf"),
    ],
)
def test_amounts_are_rounded_to_what_matters(value, deviation, text):
    assert rounded(value, deviation) == text


def test_numbers_are_read_in_the_order_of_the_names():
    assert read_numbers(" 2 ,-1e-3", ["a", "b"]).tolist() == pytest.approx([2, -0.001])


def test_words_files_and_nothing_are_no_measurements():
    assert column_score([]) == 0
    assert column_score(["a.png", "b.png"]) == 0
    assert column_score([*["1.5"] * 80, *["?"] * 20]) == 0
