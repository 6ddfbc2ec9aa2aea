import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmgen.errors import ConfigError
from mmgen.subsets import (
    chosen,
    hierarchical_nets,
    name,
    ordered,
    proper,
    subset_encoder_nets,
)

NAMES = ("image", "label", "attributes")


@pytest.mark.parametrize("K", range(2, 9))
def test_there_are_all_but_two_of_the_power_set_as_proper_subsets_each_once(K):
    names = [f"m{k}" for k in range(K)]
    subsets = proper(names)
    assert len(subsets) == len(set(subsets)) == 2**K - 2
    assert all(0 < len(s) < K for s in subsets)
    assert subsets == sorted(subsets, key=len)


@pytest.mark.parametrize("K", range(2, 9))
def test_the_formula_counts_the_members_of_all_subsets(K):
    names = [f"m{k}" for k in range(K)]
    members = sum(len(s) for s in [*proper(names), names])
    assert subset_encoder_nets(K) == members == 2 ** (K - 1) * K


def test_the_formula_gives_the_papers_counts():
    # Section 3.4: 4M parameters for two modalities, 12M for three.
    assert subset_encoder_nets(2) == 4
    assert subset_encoder_nets(3) == 12


@pytest.mark.parametrize(("K", "L", "nets"), [(2, 1, 2), (2, 2, 3), (3, 2, 4), (5, 3, 7)])
def test_a_hierarchy_needs_one_net_more_a_layer(K, L, nets):
    assert hierarchical_nets(K, L) == nets


def test_a_subset_is_in_the_experiments_order_whatever_order_it_was_written_in():
    assert ordered(NAMES, ["attributes", "image"]) == ("image", "attributes")
    assert name(ordered(NAMES, {"label", "image"})) == "image+label"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("none", []),
        ("single", ["image", "label", "attributes"]),
        (
            "all",
            [
                "image",
                "label",
                "attributes",
                "image+label",
                "image+attributes",
                "label+attributes",
            ],
        ),
        (["label"], ["label"]),
        ("label", ["label"]),
        (["attributes+image", "label", "label"], ["label", "image+attributes"]),
        ([" label + image "], ["image+label"]),
        ([], []),
    ],
)
def test_chosen_subsets(choice, names):
    assert [name(s) for s in chosen(NAMES, choice)] == names


def test_an_unknown_member_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"model\.subsets.*'lable'.*did you mean 'label'\?"):
        chosen(NAMES, ["image+lable"])


def test_the_full_subset_cannot_be_chosen():
    with pytest.raises(ConfigError, match="full subset"):
        chosen(NAMES, ["label+image+attributes"])


@pytest.mark.parametrize("choice", [[""], ["+"], ["label+"]])
def test_an_empty_member_is_an_error(choice):
    with pytest.raises(ConfigError, match=r"model\.subsets"):
        chosen(NAMES, choice)


@given(st.lists(st.sets(st.sampled_from(NAMES), min_size=1, max_size=2), max_size=6))
def test_what_is_chosen_by_name_is_what_was_named(wanted):
    found = chosen(NAMES, ["+".join(s) for s in wanted])
    assert {frozenset(s) for s in found} == {frozenset(s) for s in wanted}
    assert found == [s for s in proper(NAMES) if s in found]
