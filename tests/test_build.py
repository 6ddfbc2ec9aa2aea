"""Building: an experiment's settings laid over those of a data set."""

import pytest
from torch.distributions import Independent, Normal
from toys import Numbers, Word

from mmgen import build
from mmgen.errors import ConfigError, DataError, PluginError
from mmgen.experiment import Experiment
from mmgen.nets.blocks import Likelihood, mlp


class Plain(Numbers):
    """Numbers by an author who uses torch's distributions as they are."""

    kind = "plain"

    def decoder(self, in_features):
        def family(mean):
            return Independent(Normal(mean, 1.0), 1)

        return Likelihood(mlp(in_features, [], self.size), family)


class Broken(Numbers):
    kind = "broken"

    def encoder(self):
        return mlp(self.size + 1, [4])


REGISTRY = build.Registry((), {c.kind: c for c in (Numbers, Plain, Broken, Word)})
STORED = {
    "point": {"kind": "numbers", "size": 4, "deviation": 0.25},
    "colour": {"kind": "word"},
    "side": {"kind": "word", "words": ["left", "right"]},
}


def built(named, stored=STORED):
    table = {"data": {"path": "/there"}, "modalities": named, "model": {"kind": "jmvae"}}
    return build.modalities(Experiment.checked(table, "here"), REGISTRY, stored)


def test_all_modalities_of_the_data_set_take_part_unless_some_are_named():
    assert list(built({})) == ["point", "colour", "side"]
    assert list(built({"side": {}, "point": {}})) == ["side", "point"]


def test_settings_lie_over_those_of_the_data_set():
    found = built({"point": {"deviation": 0.5}, "side": {}})
    assert found["point"] == Numbers(size=4, deviation=0.5)
    assert found["side"] == Word(words=("left", "right"))


def test_another_kind_brings_settings_of_its_own():
    named = {"colour": {"kind": "numbers", "size": 2}, "side": {}}
    assert built(named)["colour"] == Numbers(size=2)


def test_a_modality_that_the_data_set_has_not_is_an_error_with_the_nearest():
    message = r"modalities\.colr: the data set /there has point, colour, side; did you.*'colour'"
    with pytest.raises(DataError, match=message):
        built({"colr": {}, "side": {}})


def test_one_modality_is_too_few():
    with pytest.raises(ConfigError, match="at least two"):
        built({}, {"point": STORED["point"]})


def test_a_data_set_whose_names_no_run_could_give_back_is_refused():
    """An experiment.json that names such a modality cannot be read: better now than afterwards."""
    stored = {"hair colour": {"kind": "word"}, "a+b": {"kind": "numbers"}}
    with pytest.raises((ConfigError, DataError), match="hair colour"):
        built({}, stored)


def test_nets_that_cannot_be_built_are_an_error_that_names_modality_and_plugin():
    with pytest.raises(PluginError, match=r"modalities\.point: .*kind 'broken'") as caught:
        built({"point": {"kind": "broken"}, "side": {}})
    assert "None" not in str(caught.value)
    assert "test_build" in str(caught.value)  # where the kind comes from


def test_a_plugin_whose_distributions_check_their_arguments_is_built():
    """torch's distributions do so unless told otherwise: an author need not know."""
    assert built({"point": {"kind": "plain"}, "side": {}})["point"] == Plain()
