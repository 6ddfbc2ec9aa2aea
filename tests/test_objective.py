"""What a step minimises: means over the rows that are there, weights, groups, and the bound."""

import math

import pytest
import torch

from mmgen.objective import MODEL, Objective, Term, prior_kl, reconstruction, subset_kl


def values(*numbers):
    return torch.tensor(numbers, requires_grad=True)


# Terms.


def test_a_mean_is_over_the_rows_that_are_there():
    value, present = values(1.0, 100.0, 3.0, -7.0), torch.tensor([True, False, True, False])
    assert Term("a", value).mean.item() == pytest.approx(97 / 4)
    assert Term("a", value, present=present).mean.item() == 2
    assert Term("a", value, present=torch.ones(4, dtype=torch.bool)).mean.item() == 97 / 4


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_rows_that_are_absent_count_nowhere_whatever_they_hold(broken):
    x = torch.tensor([1.0, broken, 3.0], requires_grad=True)
    term = Term("a", x * 2, present=torch.tensor([True, False, True]))
    assert term.mean.item() == 4
    term.mean.backward()
    assert x.grad.tolist() == [1, 0, 1]


def test_of_no_rows_the_mean_is_zero_and_so_is_the_gradient():
    x = torch.tensor([1.0, math.nan], requires_grad=True)
    mean = Term("a", x, present=torch.zeros(2, dtype=torch.bool)).mean
    assert mean.item() == 0
    mean.backward()
    assert x.grad.tolist() == [0, 0]


def test_a_mask_changes_no_dtype():
    present = torch.tensor([True, False])
    assert Term("a", torch.ones(2).double(), present=present).mean.dtype == torch.float64


def test_the_terms_that_most_objectives_are_made_of():
    one = torch.ones(3)
    found = reconstruction("photo", one, present=None)
    assert (found.name, found.weight, found.about) == ("reconstruction/photo", -1, ("photo",))
    assert found.title == "log p(photo | z)"
    found = prior_kl(one, "KL to N(0, I)")
    assert (found.name, found.weight, found.warmed_up, found.about) == ("kl/prior", 1, True, ())
    found = subset_kl(("photo", "prior"), one, "KL to q(z | photo, prior)", 0.3)
    assert (found.name, found.weight, found.warmed_up) == ("subset/photo+prior", 0.3, False)
    assert found.about == ("photo", "prior")
    # A modality may have the name of a term.
    names = {reconstruction("prior", one).name, prior_kl(one, "").name}
    assert len(names | {subset_kl(("prior",), one, "", 1).name}) == 3


# Objectives.


def test_two_terms_of_one_name_are_refused():
    with pytest.raises(ValueError, match="'kl/prior'"):
        Objective([Term("a", values(1.0)), prior_kl(values(1.0), ""), prior_kl(values(2.0), "")])


def test_it_is_a_sequence_of_its_terms():
    terms = [Term("a", values(1.0)), Term("b", values(2.0))]
    objective = Objective(iter(terms))
    assert list(objective) == terms
    assert (len(objective), objective[1]) == (2, terms[1])
    assert list(objective.means()) == ["a", "b"]
    assert repr(objective) == "Objective(a, b)"


def test_the_loss_is_the_weighted_sum_and_warmup_weighs_only_what_it_is_for():
    objective = Objective(
        [
            reconstruction("a", values(-3.0, -5.0)),
            prior_kl(values(2.0, 4.0), ""),
            subset_kl(("a",), values(10.0, 30.0), "", 0.5),
            Term("both", values(8.0, 8.0), weight=0.25, warmed_up=True),
        ]
    )
    for beta in (0.0, 0.5, 1.0):
        expected = 4 + beta * 3 + 0.5 * 20 + beta * 0.25 * 8
        assert objective.losses(beta=beta)[MODEL].item() == pytest.approx(expected)
        assert objective.losses(beta=torch.tensor(beta))[MODEL].item() == pytest.approx(expected)
        assert objective.bound(beta=beta).item() == pytest.approx(expected)
    assert objective.losses()[MODEL].item() == pytest.approx(4 + 3 + 10 + 2)


def test_means_at_hand_are_not_computed_again():
    objective = Objective([Term("a", values(1.0)), Term("b", values(2.0), weight=3)])
    means = {"a": torch.tensor(10.0), "b": torch.tensor(20.0)}
    assert objective.losses(means)[MODEL].item() == 70
    assert objective.bound(means).item() == 70


def test_each_group_minimises_its_own_terms():
    picture, critic = values(2.0, 4.0), values(1.0, 7.0)
    objective = Objective(
        [
            Term("bound", picture, trains=(MODEL,)),
            Term("shared", picture, weight=2, trains=(MODEL, "decoder")),
            Term("critic", critic, trains=("critic",), bound=False),
            Term("adversarial", critic, weight=-1, trains=("decoder",), bound=False),
        ]
    )
    losses = objective.losses()
    assert {n: loss.item() for n, loss in losses.items()} == {MODEL: 9, "decoder": 2, "critic": 4}
    # A model is chosen by its bound, of which an adversary's loss is no part.
    assert objective.bound().item() == 9
    losses["critic"].backward()
    assert picture.grad is None
    assert critic.grad.tolist() == [0.5, 0.5]


def test_a_loss_has_the_gradient_of_its_sum():
    a, b, c = values(1.0, 2.0), values(3.0, 4.0), values(5.0, 6.0)
    present = torch.tensor([True, False])
    objective = Objective(
        [
            reconstruction("a", a, present),
            prior_kl(b, ""),
            subset_kl(("a",), c, "", 0.5),
            subset_kl(("b",), 2 * c, "", 0.5),
        ]
    )
    objective.losses(beta=0.5)[MODEL].backward()
    assert a.grad.tolist() == [-0.5, 0]  # a row counts as one, whatever others lack
    assert b.grad.tolist() == [0.25, 0.25]
    assert c.grad.tolist() == [0.75, 0.75]


def test_a_model_without_a_bound_is_chosen_by_its_own_loss():
    own = Term("own", values(1.0, 3.0), weight=2.0, bound=False)
    critic = Term("critic", values(5.0, 5.0), trains=("critic",), bound=False)
    assert Objective([own, critic]).bound().item() == 4
    assert Objective([own, critic, Term("kl", values(1.0, 1.0))]).bound().item() == 1
