"""A batch is read like a dictionary; parts of it keep their order and their masks."""

import pytest
import torch

from mmgen.batch import Batch


@pytest.fixture
def x():
    """Five rows, of which the label of the second and the last is missing."""
    tensors = {"image": torch.randn(5, 1, 4, 4), "label": torch.eye(5), "text": torch.randn(5, 2)}
    return Batch(tensors, {"label": torch.tensor([True, False, True, True, False])})


def test_it_is_a_mapping_of_tensors(x):
    assert list(x) == ["image", "label", "text"]
    assert (len(x), x.rows) == (3, 5)
    assert "label" in x
    assert "colour" not in x
    assert x["text"] is x.tensors["text"]
    assert {**x}.keys() == x.keys()
    with pytest.raises(KeyError, match="colour"):
        _ = x["colour"]


def test_nothing_has_no_rows():
    assert Batch({}).rows == len(Batch({})) == 0
    assert not Batch({})
    assert Batch({}).present is None


def test_a_batch_is_taken_as_it_is_and_tensors_become_one(x):
    assert Batch.of(x) is x
    assert list(Batch.of({"a": torch.ones(2, 1)})) == ["a"]


def test_selected_modalities_are_in_the_order_of_the_batch_and_keep_their_masks(x):
    part = x.select(["text", "label", "colour"])
    assert list(part) == ["label", "text"]
    assert part["label"] is x["label"]
    assert list(part.present) == ["label"]
    assert part.present["label"] is x.present["label"]
    # Where every row is there, there is no mask, and no empty dictionary of masks either.
    assert x.select(["text"]).present is None
    assert not x.select([])
    assert list(x) == ["image", "label", "text"]


def test_a_slice_cuts_rows_and_masks_alike(x):
    part = x.slice(1, 4)
    assert part.rows == 3
    for n in x:
        assert torch.equal(part[n], x[n][1:4])
    assert part.present["label"].tolist() == [False, True, True]
    assert x.slice(4, 9).rows == 1
    assert Batch({"a": torch.ones(3, 1)}).slice(0, 2).present is None


def test_a_batch_cannot_be_changed(x):
    with pytest.raises(AttributeError):
        x.tensors = {}
    with pytest.raises(TypeError):
        x["image"] = torch.ones(5)


def test_it_is_one_line(x):
    assert "\n" not in repr(x)
    assert len(repr(x)) < 200
