"""What people have in Python, handed to ``run.generate``: taken, or refused in one error."""

import dataclasses
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toys import PLUGIN, toy_modalities, write_run

import mmgen
from mmgen.errors import GenerationError
from mmgen.generated import Generated
from mmgen_attributes import Attributes
from mmgen_image import Image
from mmgen_label import Label
from mmgen_vector import Vector

SMALL = {"encoder_widths": (4,), "decoder_widths": (4,)}
OWN = {
    "photo": Image(channels=3, height=4, width=6, binarise=False, **SMALL),
    "digit": Label(classes=("3", "7", "9"), **SMALL),
    "sure": Label(classes=("no", "yes"), **SMALL),
    "look": Attributes(names=("bold", "italic", "thin"), likelihood="gaussian", **SMALL),
    "size": Vector(
        names=("height", "weight"), mean=(1.5, 60.0), standard_deviation=(0.5, 10.0), **SMALL
    ),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "own"
    write_run(path, "jmvae", OWN, {"latent": 3})
    return mmgen.load(path, device="cpu")


def observed(run, name, value):
    """Returns what the nets see of a value, ``(B, *shape)``, and whether it was several."""
    from mmgen.given import observations

    x, rows = observations(run.modalities, {name: value}, run.device, torch.float32)
    return x[name], rows


PIXELS = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)


@pytest.mark.parametrize(
    "value",
    [
        PIXELS,
        PIXELS.transpose(2, 0, 1),
        PIXELS.astype(np.int64),
        PIXELS / 255,
        (PIXELS / 255).astype(np.float32),
        PIXELS.tolist(),
        torch.from_numpy(PIXELS.transpose(2, 0, 1).copy()),
        torch.from_numpy(PIXELS.transpose(2, 0, 1).astype(np.float32) / 255),
        np.dstack([PIXELS, np.full((4, 6), 255, np.uint8)]),
        PIL.Image.fromarray(PIXELS),
        PIL.Image.fromarray(PIXELS).convert("RGBA"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_picture_may_be_in_memory(run, value):
    x, rows = observed(run, "photo", value)
    assert rows is None
    torch.testing.assert_close(x[0].permute(1, 2, 0) * 255, torch.from_numpy(PIXELS).float())


def test_a_picture_may_be_a_path_of_any_size_or_mode(run, tmp_path):
    PIL.Image.fromarray(PIXELS).save(tmp_path / "x.png")
    for value in (tmp_path / "x.png", str(tmp_path / "x.png")):
        assert torch.equal(observed(run, "photo", value)[0], observed(run, "photo", PIXELS)[0])
    for mode in ("1", "L", "P", "CMYK", "I;16", "F", "LA"):
        picture = PIL.Image.new("L", (50, 40), 255)
        if mode in {"I;16", "F"}:
            dtype, white = (np.uint16, 65535) if mode == "I;16" else (np.float32, 1)
            picture = PIL.Image.fromarray(np.full((40, 50), white, dtype))
        else:
            picture = picture.convert(mode)
        assert (observed(run, "photo", picture)[0] == 1).all(), mode
    with PIL.Image.open(tmp_path / "x.png") as opened:
        assert torch.equal(observed(run, "photo", opened)[0], observed(run, "photo", PIXELS)[0])


def test_a_picture_that_was_opened_off_the_list_is_not_decoded(run, tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    with PIL.Image.open(tmp_path / "x.png") as opened:
        monkeypatch.setattr(type(opened), "load", lambda *_: pytest.fail("it was decoded"))
        with pytest.raises(GenerationError, match="opened as EPS is not read"):
            observed(run, "photo", opened)
    with pytest.raises(GenerationError, match="100,020,001 pixels"):
        observed(run, "photo", PIL.Image.new("1", (10_001, 10_001)))


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("7", 1),
        (7, 1),
        (7.0, 1),
        (np.int8(7), 1),
        (np.array(7), 1),
        (" 9 ", 2),
        (torch.tensor(1), 1),
    ],
)
def test_a_class_may_be_a_number(run, value, number):
    x, rows = observed(run, "digit", value)
    assert rows is None
    assert x.tolist() == [[float(i == number) for i in range(3)]]


def test_a_class_s_number_counts_where_no_class_is_called_by_one(run):
    assert observed(run, "sure", 1)[0].tolist() == observed(run, "sure", "yes")[0].tolist()
    for name, value in (("digit", 1), ("digit", 0), ("sure", 2), ("sure", -1), ("sure", 0.5)):
        with pytest.raises(GenerationError, match="class"):
            observed(run, name, value)
    for value in (torch.tensor(3), torch.tensor(-1)):
        with pytest.raises(GenerationError, match="is not from 0 to 2"):
            observed(run, "digit", value)


@pytest.mark.parametrize(
    "value",
    [
        "bold,thin",
        ["bold", "thin"],
        pytest.param({"bold", "thin"}, id="set"),
        {"bold": True, "italic": False, "thin": True},
        {"thin": 1, "bold": "yes"},
        {"thin": np.True_, "bold": 1.0, "italic": -1},
        [True, False, True],
        [1, 0, 1],
        [1, -1, 1],
        np.array([1.0, 0.0, 1.0]),
        torch.tensor([1, 0, 1]),
        torch.tensor([True, False, True]),
        torch.tensor([1.0, -1.0, 1.0]),
    ],
    ids=repr,
)
def test_attributes_may_be_a_dictionary_or_a_list(run, value):
    x, rows = observed(run, "look", value)
    assert rows is None
    assert x.tolist() == [[1, -1, 1]]


@pytest.mark.parametrize(
    "value",
    [
        "2.0, 70",
        [2.0, 70],
        (2, 70.0),
        np.array([2.0, 70.0]),
        {"weight": 70, "height": 2.0},
        torch.tensor([2, 70]),
        torch.tensor([1.0, 1.0]),  # standardised: as the nets see it
        [Fraction(2), 70],
    ],
    ids=repr,
)
def test_measurements_may_be_a_list_or_a_dictionary(run, value):
    x, rows = observed(run, "size", value)
    assert rows is None
    assert x.tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("digit", ["7", "9"]),
        ("digit", [7, "9"]),
        ("digit", np.array([7, 9])),
        ("digit", torch.tensor([1, 2])),
        ("digit", range(7, 10, 2)),
        ("size", [[2.0, 70], [1.5, 60]]),
        ("size", np.array([[2.0, 70], [1.5, 60]])),
        ("size", ["2,70", {"height": 1.5, "weight": 60}]),
        ("look", [["bold"], ["italic", "thin"]]),
        ("look", ["bold", "italic,thin"]),
        ("look", np.array([[1, 0, 0], [0, 1, 1]])),
        ("photo", np.stack([PIXELS, PIXELS])),
        ("photo", np.stack([PIXELS, PIXELS]).transpose(0, 3, 1, 2)),
        ("photo", [PIL.Image.fromarray(PIXELS), PIXELS]),
        ("photo", torch.zeros(2, 3, 4, 6)),
        ("photo", [torch.zeros(3, 4, 6), torch.ones(3, 4, 6)]),
    ],
)
def test_several_values_are_rows(run, name, values):
    x, rows = observed(run, name, values)
    assert rows == 2
    assert x.shape == (2, *run.modalities[name].shape)
    for row, value in zip(x, values, strict=True):
        one, single = observed(run, name, value)
        assert single is None
        assert torch.equal(one[0], row)
    other = next(n for n in OWN if n != name)
    generated = run.generate({name: values}, [other], 5)
    assert generated.z.shape == (5, 2, 3)
    assert generated[other].mean.shape == (5, 2, *run.modalities[other].shape)


def test_each_row_has_a_result_of_its_own_and_one_value_stands_for_all(run):
    several = run.generate(
        {"digit": [3, 9], "sure": "yes"}, ["size"], 4, temperature=0.0, iterations=2
    )
    for row, digit in enumerate((3, 9)):
        one = run.generate(
            {"digit": digit, "sure": "yes"}, ["size"], 4, temperature=0.0, iterations=2
        )
        assert one.z.shape == (4, 3)
        # Missing values are sampled on the way, so z differs; its rows do not mix.
        assert several.z[:, row].shape == one.z.shape
    given = {"digit": [3, 9], "sure": ["yes", "yes"]}
    same = run.generate(given, ["size"], 4, temperature=0.0, iterations=2, seed=1)
    one_for_all = run.generate(
        {"digit": [3, 9], "sure": "yes"}, ["size"], 4, temperature=0.0, iterations=2, seed=1
    )
    assert torch.equal(same.z, one_for_all.z)
    with pytest.raises(GenerationError, match="rows: digit has 2, sure has 3"):
        run.generate({"digit": [3, 9], "sure": ["yes"] * 3}, ["size"])


def test_rows_do_not_mix(tmp_path):
    modalities = toy_modalities(3)
    write_run(tmp_path / "run", "jmvae-kl", modalities, {})
    run = mmgen.load(tmp_path / "run", device="cpu", plugin_modules=[PLUGIN])
    words = ["red", "blue", "green"]
    several = run.generate({"colour": words}, ["picture", "point"], 2, temperature=0.0)
    for row, word in enumerate(words):
        one = run.generate({"colour": word}, ["picture", "point"], 2, temperature=0.0)
        torch.testing.assert_close(several.z[:, row], one.z)
        for name in ("picture", "point"):
            torch.testing.assert_close(several[name].mean[:, row], one[name].mean)


def test_z_comes_with_the_result_and_the_result_is_a_mapping(run):
    result = run.generate({"digit": 7}, ["size", "photo"], 4)
    assert isinstance(result, Generated)
    assert set(result) == {"size", "photo"}
    assert result.z.shape == (4, 3)
    torch.testing.assert_close(run.model.decode(result.z)["size"].mean, result["size"].mean)
    assert repr(result) == "Generated(photo (4, 3, 4, 6), size (4, 2), z (4, 3))"
    assert "image" not in result
    assert run.generate(samples=2).z.shape == (2, 3)


def test_a_seed_fixes_the_result_and_spares_the_caller(run):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = (run.generate({"digit": 7}, samples=4, seed=seed).z for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(
        run.generate(samples=3, seed=np.int64(1)).z, run.generate(samples=3, seed=1).z
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(run.generate(samples=3).z, run.generate(samples=3).z)


def test_one_target_needs_no_list(run):
    assert list(run.generate({"digit": 7}, "size", 2)) == ["size"]


class Hostile:
    """An object that raises whatever is asked of it."""

    def __getattribute__(self, name):
        raise RuntimeError(f"no {name}")

    def __repr__(self):
        raise RuntimeError("no words")

    __str__ = __len__ = __iter__ = __bool__ = __eq__ = __float__ = __repr__
    __hash__ = object.__hash__


ITSELF: list = []
ITSELF.append(ITSELF)

THINGS = [
    None,
    True,
    -1,
    10**400,
    0.5,
    float("nan"),
    float("inf"),
    1j,
    "",
    "x" * 100_000,
    "\0",
    "\udcff",
    b"7",
    bytearray(b"7"),
    [],
    (),
    {},
    set(),
    [[]],
    [None],
    ITSELF,
    [1, [2]],
    [Hostile()],
    {"bold": Hostile()},
    {"bold": 2},
    {"bould": True},
    {1: 2},
    {"height": 1.0},
    Hostile(),
    object(),
    int,
    len,
    iter("7"),
    Path("nowhere.png"),
    Path(),
    "/dev/zero",
    np.array([]),
    np.zeros((0, 4)),
    np.array("7"),
    np.array(["7", None], object),
    np.zeros((4, 6, 2)),
    np.full((4, 6), 300),
    np.full((4, 6), -1.0),
    np.full((4, 6, 3), np.nan),
    np.zeros((2, 2, 2, 2, 2)),
    np.array([1, 2], "datetime64[s]"),
    np.zeros(3, [("a", int)]),
    torch.tensor([]),
    torch.tensor(float("nan")),
    torch.full((3,), float("inf")),
    torch.zeros(3, dtype=torch.complex64),
    torch.zeros(3, device="meta"),
    torch.zeros(3, device="meta", dtype=torch.int64),
    torch.eye(3).to_sparse(),
    torch.tensor(12),
    torch.tensor([9, 9]),
    torch.zeros(2, 2, 2, 2, 2),
    torch.nn.Linear(2, 2),
    PIL.Image.new("RGB", (0, 0)),
    PIL.Image.fromarray(np.array([[np.nan]], np.float32)),
    PIL.Image.fromarray(np.array([[-5]], np.int32)),
]


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("number", range(len(THINGS)))
def test_anything_is_taken_or_refused_in_one_error(run, name, number):
    refused = False
    try:
        result = run.generate({name: THINGS[number]}, samples=2)
    except GenerationError as error:
        refused = len(str(error).splitlines()) == 1 and len(str(error)) < 1000
        refused = refused and str(error).startswith(name)
    else:
        refused = all(p.mean.isfinite().all() for p in result.values())
    assert refused


@pytest.mark.parametrize(
    "words",
    [
        {"given": ["digit"]},
        {"given": "digit"},
        {"given": 7},
        {"given": {7: "7"}},
        {"given": {None: "7"}},
        {"targets": 7},
        {"targets": [7]},
        {"targets": [None]},
        {"targets": ""},
        *({"samples": s} for s in (None, "4", 2.5, True, 0, -1, 10**30, [2], float("nan"))),
        *({"iterations": i} for i in ("4", 2.5, True, 0, -1, 10**30)),
        *({"temperature": t} for t in (None, "1", -1, 1j, [1], float("nan"))),
        *({"start": s} for s in (None, 0, "one", ["zero"], np.zeros(2))),
        *({"seed": s} for s in ("1", 1.5, True, -1, 2**63, 10**30, [1])),
    ],
    ids=repr,
)
def test_any_wrong_argument_is_one_error(run, words):
    with pytest.raises(GenerationError) as caught:
        run.generate(**{"given": {"digit": 7}, "samples": 2} | words)
    assert "\n" not in str(caught.value)


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=5),
        st.sampled_from(["3", "7", "yes", "bold", "1,2", 3, 7, 1.5, PIXELS]),
        st.lists(st.integers(0, 3), max_size=4).map(np.zeros),
        st.lists(st.integers(0, 3), max_size=4).map(torch.ones),
        st.lists(st.integers(0, 3), max_size=4).map(lambda shape: torch.ones(shape).long()),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from(["bold", "height", "weight", "x"]), inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(sorted(OWN)), values)
def test_any_values_are_taken_or_refused(run, name, value):
    try:
        result = run.generate({name: value}, samples=2, seed=0)
    except GenerationError as error:
        assert "\n" not in str(error)  # noqa: PT017 - it need not be refused
        return
    assert all(p.mean.isfinite().all() for p in result.values())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("digit", ["7", "8"], r"digit: row 1: no class '8'.*: 3, 7, 9"),
        ("digit", 8, "digit: no class '8'"),
        ("look", {"bould": True}, r"look: no attribute 'bould'; did you mean 'bold'\?"),
        ("look", {"bold": "maybe"}, "look: bold is on or off: True, False, 1, 0, not 'maybe'"),
        ("size", {"height": 1}, "size: it names height; needed are height, weight"),
        ("size", [1.0], r"size: '1.0' has 1 of the 2 numbers .*as several rows, row 0"),
        ("photo", np.full((4, 6), 300), "photo: pixels reach from 300 to 300"),
        ("photo", object(), "photo: a object is no picture"),
        ("photo", torch.zeros(3, 4, 5), r"photo: an observation has the shape \(3, 4, 6\), not"),
        ("photo", [], "photo: there are no rows"),
    ],
)
def test_what_is_refused_is_told_why(run, name, value, message):
    with pytest.raises(GenerationError, match=message):
        run.generate({name: value})


def test_a_kind_without_accept_takes_numbers_lists_and_stored_tensors(tmp_path):
    write_run(tmp_path / "run", "jmvae", toy_modalities(2), {})
    run = mmgen.load(tmp_path / "run", device="cpu", plugin_modules=[PLUGIN])
    for value in ([1, 2, 3], (1.0, 2.0, 3.0), np.array([1, 2, 3]), torch.tensor([1, 2, 3])):
        assert observed(run, "point", value)[0].tolist() == [[1, 2, 3]]
    assert observed(run, "point", np.ones((4, 3)))[1] == 4
    assert observed(run, "colour", ["red", "blue"])[1] == 2
    assert observed(run, "colour", torch.tensor([0, 2]))[0].argmax(1).tolist() == [0, 2]
    with pytest.raises(GenerationError, match="not what kind 'numbers' takes"):
        run.generate({"point": {"x": 1}})
    with pytest.raises(GenerationError, match=r"stored value is torch\.uint8"):
        run.generate({"colour": torch.tensor(300)})
    assert "PIL.Image" in sys.modules


def test_memory_is_asked_for_all_rows(run, monkeypatch):
    monkeypatch.setattr("mmgen.run.FEW", 0)
    monkeypatch.setattr("mmgen.run.sample_memory", lambda *_: 2.0**40)
    with pytest.raises(GenerationError, match="generating 4 samples for each of 3 rows"):
        dataclasses.replace(run).generate({"digit": ["7"] * 3}, samples=4)
