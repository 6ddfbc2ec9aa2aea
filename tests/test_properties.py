"""A thousand commands, right and wrong: a result, or one message and exit code 2."""

import string
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT, small
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmgen.errors import GenerationError, MmgenError
from mmgen.run import load

pytestmark = pytest.mark.ci  # many examples each

GLYPHS = ROOT / "examples" / "glyphs.toml"


def many(examples: int) -> settings:
    """The same examples each time, however long one takes."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


# Words that are almost right, and some that are not at all.
numbers = st.one_of(
    st.integers(-3, 40),
    st.sampled_from([0, 1, 2**31, 2**63, 10**18, 10**40, -(2**63)]),
    st.floats(allow_nan=True, allow_infinity=True),
)
words = st.one_of(
    st.sampled_from(
        [
            *("jmvae", "jmvae-kl", "hierarchical", "jmvea", "all", "single", "none", "auto", "cpu"),
            *("bernoulli", "gaussian", "mlp", "convolution", "image", "label", "attributes"),
            *("float32", "bfloat16", "cosine", "constant", "synthetic", "", "\x00", "~", "/", "é"),
        ]
    ),
    st.text(string.printable, max_size=8),
)
lists = st.lists(st.one_of(st.integers(-1, 20), words), max_size=4)


def toml(value: object) -> str:
    """Writes a value as TOML, as far as it has words for it."""
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value + "'"  # not always valid: quotes and line breaks within
    return str(value)


keys = st.sampled_from(
    [
        *("name", "data.path", "data.source", "data.rows", "data.classes", "data.seed", "data"),
        *("modalities.image.net", "modalities.image.likelihood", "modalities.image.height"),
        *("modalities.image.encoder_widths", "modalities.image.convolution_channels"),
        *("modalities.image.kind", "modalities.label.kind", "modalities.label.classes"),
        *("modalities.label", "modalities.attributes", "modalities.sound.kind", "modalities"),
        *("model", "model.kind", "model.latent", "model.alpha", "model.subsets", "model.fusion"),
        *("model.layers", "model.widths", "train", "train.epochs", "train.warmup_epochs"),
        *("train.batch_size", "train.learning_rate", "train.betas", "train.eps", "train.seed"),
        *(
            "train.device",
            "train.precision",
            "train.schedule",
            "train.gradient_clip",
            "train.gradient_clip_value",
            "trian.epochs",
        ),
        *("", ".", "a.b.c.d"),
    ]
)
values = st.one_of(numbers, words, lists, st.booleans())
sensible = st.one_of(
    st.sampled_from(["jmvae", "jmvae-kl", "hierarchical"]).map("model.kind={}".format),
    st.integers(1, 40).map("model.latent={}".format),
    st.lists(st.integers(1, 20), max_size=2).map("model.fusion={}".format),
    st.sampled_from(["constant", "cosine"]).map("train.schedule={}".format),
    st.sampled_from(["bernoulli", "gaussian"]).map("modalities.image.likelihood={}".format),
    st.sampled_from(["mlp", "convolution"]).map("modalities.image.net={}".format),
    st.floats(0, 2).map("train.warmup_epochs={}".format),
    st.integers(1, 2**62).map("train.batch_size={}".format),
    st.sampled_from(["float32", "bfloat16"]).map("train.precision={}".format),
)
wrong = st.one_of(
    st.tuples(keys, values).map(lambda pair: f"{pair[0]}={toml(pair[1])}"),
    st.tuples(keys, words).map(lambda pair: f"{pair[0]}={pair[1]}"),
)
overrides = st.one_of(
    st.lists(sensible, min_size=1, max_size=4),
    st.lists(st.one_of(sensible, wrong), min_size=1, max_size=3),
    st.lists(wrong, min_size=1, max_size=3),
)


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


OUTCOMES: Counter[tuple[str, bool]] = Counter()
"""How often each test saw a result, and a refusal."""


def one_message(test: str, code: int, err: str) -> bool:
    """Tells whether a command ended well, or with one message and exit code 2."""
    OUTCOMES[test, code == 0] += 1
    assert "Traceback" not in err
    return code == 0 or (code == 2 and err.count("error:") == 1) or (code == 2 and "Usage" in err)


@many(250)
@given(overrides)
def test_any_configuration_is_planned_or_refused_in_one_message(mmgen, small_glyphs, changes):
    changes = [change for change in changes if not change.startswith("-")]
    code, _, err = mmgen("train", GLYPHS, *small(small_glyphs), *changes, "--dry-run")
    assert one_message("planned", code, err), (changes, err)


@many(30)
@given(overrides)
def test_any_configuration_trains_or_leaves_nothing(mmgen, small_glyphs, tmp_path_factory, changes):
    out = tmp_path_factory.mktemp("properties")
    short = [*small(small_glyphs, 1), "train.batch_size=200"]
    bounded = [c for c in changes if not c.startswith(("-", "train.epochs", "train.batch_size"))]
    code, _, err = mmgen("train", GLYPHS, *short, *bounded, "--no-figures", "--out", out / "run")
    assert one_message("trained", code, err), (bounded, err)
    if code == 2 and "not finite" not in err:
        assert listing(out) == set()


lines = st.lists(
    st.one_of(
        st.sampled_from(["[data]", "[model]", "[train]", "[modalities.image]", "[", "[[data]]"]),
        st.tuples(keys, values).map(lambda pair: f"{pair[0].rpartition('.')[2]} = {toml(pair[1])}"),
        st.text(max_size=10),
    ),
    max_size=6,
)


@many(200)
@given(lines, st.sampled_from(["utf-8", "latin-1", "utf-16"]))
def test_any_file_is_a_configuration_or_refused_in_one_message(mmgen, tmp_path, text, encoding):
    file = tmp_path / "config.toml"
    file.write_bytes("\n".join(text).encode(encoding, errors="replace"))
    code, _, err = mmgen("train", file, "--dry-run")
    assert one_message("file", code, err), (text, err)
    assert listing(tmp_path) == {"config.toml"}


# Given values.


names = st.one_of(
    st.sampled_from(["image", "label", "attributes"]),
    st.sampled_from(["image", "label", "attributes", "lable", "", "image+label", "é"]),
)
cells = st.one_of(
    st.sampled_from(["A", "7", "bold", "bold,italic", "none", ""]),
    st.sampled_from(["A", "7", "bold", "bold,,italic", "none", "bold italic", "a"]),
    words,
    numbers.map(str),
    st.sampled_from([str(GLYPHS), ".", "/", "/dev/null", "nowhere.png", str(ROOT)]),
)


@pytest.fixture(scope="session")
def run(trained):
    return load(trained)


@many(400)
@given(
    st.dictionaries(names, cells, max_size=3),
    st.one_of(st.none(), st.lists(names, max_size=3)),
    st.sampled_from([1, 2, 0, -1]),
)
def test_any_given_values_generate_or_are_refused(run, given, targets, samples):
    try:
        generated = run.generate(given, targets, samples)
    except GenerationError:
        OUTCOMES["given", False] += 1
        return
    OUTCOMES["given", True] += 1
    assert generated
    assert not set(generated) & set(given)
    for name, p in generated.items():
        assert p.mean.shape == (samples, *run.modalities[name].shape)
        assert p.mean.isfinite().all()


@many(100)
@given(
    st.one_of(
        st.sampled_from([["label=A"], ["attributes=bold"], ["label=7", "attributes=none"]]),
        st.lists(st.one_of(cells, st.tuples(names, cells).map("=".join)), min_size=1, max_size=3),
    )
)
def test_any_given_words_are_understood_or_refused_in_one_message(mmgen, trained, tmp_path, given):
    given = [word for word in given if not word.startswith("-")]
    code, _, err = mmgen("generate", trained, "--given", *given, "-n", 1)
    assert one_message("words", code, err), (given, err)


@many(200)
@given(st.binary(max_size=60), st.sampled_from(["experiment.json", "environment.json"]))
def test_any_bytes_in_a_run_are_read_or_refused(trained, tmp_path, content, name):
    import shutil

    run = tmp_path / "run"
    if not run.exists():
        shutil.copytree(trained, run)
    kept = (run / name).read_bytes()
    (run / name).write_bytes(content)
    try:
        with suppress(MmgenError):
            load(run)
    finally:
        (run / name).write_bytes(kept)


def test_both_results_and_refusals_were_seen():
    for test in ("planned", "trained", "given", "words"):
        assert OUTCOMES[test, True] >= 5, OUTCOMES
        assert OUTCOMES[test, False] >= 10, OUTCOMES
    assert OUTCOMES["file", False] == 200  # nobody writes a configuration by chance
