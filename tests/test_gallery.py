from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, OneHotCategorical
from toys import KINDS, ONE_WAY, made

from mmgen.batch import Batch
from mmgen.errors import GenerationError
from mmgen.evaluation.growth import growth, plot_growth
from mmgen.experiment import Experiment
from mmgen.gallery import compare, draw_all, groups, png, save_grid
from mmgen.gallery.curves import loss_curves
from mmgen.gallery.groups import Group, how_found, likelihood
from mmgen.gallery.sheet import MARGIN, Block, Strip, beside, draw, magnified
from mmgen.inference.sample import sample_latent
from mmgen.modality import Modality
from mmgen.models.jmvae import JMVAE
from mmgen.nets.blocks import Likelihood, mlp
from mmgen.run import Run
from mmgen_suzuki2018.mnist.chains import Point
from mmgen_suzuki2018.mnist.drawings import figure_4


class Tile(Modality):
    kind: ClassVar[str] = "tile"
    api_version: ClassVar[int] = 1
    side: int = 6

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.side, self.side)

    def encoder(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), *mlp(self.side**2, [8]))

    def decoder(self, in_features: int) -> nn.Module:
        def pixels(out: Tensor) -> Distribution:
            return Independent(Bernoulli(logits=8 * out.unflatten(1, self.shape)), 2)

        return Likelihood(mlp(in_features, [8], self.side**2), pixels)

    def render(self, x: Tensor) -> Tensor:
        return x.unsqueeze(1).expand(-1, 3, -1, -1)


class Word(Modality):
    kind: ClassVar[str] = "word"
    api_version: ClassVar[int] = 1
    words: tuple[str, ...] = ("north", "east", "south_$1$", "西")

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.words),)

    def encoder(self) -> nn.Module:
        return mlp(len(self.words), [8])

    def decoder(self, in_features: int) -> nn.Module:
        net = mlp(in_features, [8], len(self.words))
        return Likelihood(net, lambda out: OneHotCategorical(logits=out))

    def parse(self, cell: str) -> Tensor:
        return torch.eye(len(self.words))[self.words.index(cell)]

    def describe(self, x: Tensor) -> list[str]:
        return [self.words[i] for i in x.argmax(1).tolist()]

    def choices(self) -> list[str]:
        return list(self.words)


def a_run(
    path: Path,
    kind: str = "jmvae-kl",
    modalities: dict[str, Modality] | None = None,
    direction: dict[str, Any] | None = None,
    **words: Any,
) -> Run:
    modalities = modalities or {"tile": Tile(), "word": Word(**words)}
    model = {"kind": kind, "latent": 3, **(direction or {})}
    experiment = Experiment.model_validate(
        {"name": "toy $x$", "data": {"path": "d"}, "model": model}
    )
    torch.manual_seed(0)
    built = made(kind, modalities, latent=3, **(direction or {}))
    return Run(path, experiment, modalities, built.eval(), torch.device("cpu"))


def observations(count: int = 12) -> Batch:
    words = torch.eye(4)[torch.arange(count) % 4]
    return Batch({"tile": torch.rand(count, 6, 6).round(), "word": words})


def page_of(run: Run, group: Group) -> np.ndarray[Any, Any]:
    """Returns the pixels of the page that a group is drawn as."""
    return pixels(png.save(group, run.path / "figures" / "page.png", "toy"))


def metrics(epochs: int) -> list[dict[str, Any]]:
    terms = ("reconstruction/tile", "reconstruction/word", "kl/prior", "loss")
    return [
        {
            "epoch": epoch,
            "beta": min(1.0, epoch / 5),
            "train": dict.fromkeys(terms, 100 / epoch),
            "validation": dict.fromkeys(terms, 90 / epoch),
        }
        for epoch in range(1, epochs + 1)
    ]


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("kind", ["jmvae-kl", "jmvae", "hierarchical"])
def test_every_figure_that_applies_is_drawn_whole(kind: str, tmp_path: Path) -> None:
    run = a_run(tmp_path, kind)
    before = torch.get_rng_state()
    torch.manual_seed(7)
    x, state = observations(), torch.get_rng_state()
    paths = draw_all(run, x, metrics(12))
    assert torch.equal(state, torch.get_rng_state())
    torch.set_rng_state(before)

    names = {"tile_from_word.png", "tile_reconstructed.png", "prior.png", "losses.png"}
    assert {path.name for path in paths} == names
    assert {file.name for file in (tmp_path / "figures").iterdir()} == names  # nothing beside
    for path in paths:
        height, width, _ = pixels(path).shape
        assert 800 <= width <= 2000
        assert 300 <= height <= 1500
        assert pixels(path).std() > 10  # not blank


def test_the_same_seed_draws_the_same_and_another_does_not(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    first, again, other = (page_of(run, groups.from_prior(run, 9, seed=s)) for s in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_rows_of_choices_differ_and_start_at_the_mean(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    page = page_of(run, groups.from_choices(run, "word", ["tile"], 3))
    means = [
        run.generate({"word": w}, ["tile"], 1, temperature=0.0)["tile"].mean for w in Word().words
    ]
    drawn = magnified(Tile().render(torch.cat(means)))
    assert len({picture.tobytes() for picture in drawn}) == 4
    places = [find(page, picture) for picture in drawn]
    assert len({left for _, left in places}) == 1
    assert [top for top, _ in places] == sorted(top for top, _ in places)


def test_pairs_make_a_table_of_what_both_together_generate(tmp_path: Path) -> None:
    modalities: dict[str, Modality] = {"tile": Tile(), "word": Word(), "other": Word()}
    run = a_run(tmp_path, modalities=modalities)
    page = page_of(run, groups.from_pairs(run, "word", "other", "tile"))
    places = {}
    for column, word in enumerate(Word().words):
        for row, other in enumerate(Word().words):
            p = run.generate({"word": word, "other": other}, ["tile"], 1, temperature=0.0)["tile"]
            top, left = find(page, magnified(Tile().render(p.mean))[0])
            places[column, row] = find(page, magnified(Tile().render(p.mean))[0])
    for (column, row), (top, left) in places.items():
        assert left == places[column, 0][1]
        assert top == places[0, row][0]
        assert (left > places[0, 0][1]) == (column > 0)
        assert (top > places[0, 0][0]) == (row > 0)


def find(page: np.ndarray[Any, Any], picture: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Returns where on the page the picture is, pixel by pixel."""
    wanted = (picture * 255).round().astype(np.uint8)
    height, width, _ = wanted.shape
    for top, left in np.argwhere((page == wanted[0, 0]).all(-1)):
        if np.array_equal(page[top : top + height, left : left + width], wanted):
            return int(top), int(left)
    raise AssertionError("the picture is not on the page")


def test_pictures_are_magnified_by_whole_factors() -> None:
    small = torch.rand(2, 3, 28, 14)
    assert magnified(small).shape == (2, 84, 42, 3)
    assert np.array_equal(magnified(small)[:, ::3, ::3], small.permute(0, 2, 3, 1).numpy())
    assert magnified(torch.rand(1, 3, 64, 64)).shape == (1, 64, 64, 3)
    assert max(magnified(torch.rand(1, 3, 1000, 500)).shape) <= 252
    both = beside([magnified(small), magnified(torch.rand(2, 3, 64, 64))])
    assert both.shape[:2] == (2, 84)


def test_a_page_holds_its_pictures_exactly(tmp_path: Path) -> None:
    pictures = magnified(torch.rand(3, 3, 10, 10))
    page = pixels(draw(tmp_path / "new" / "page.png", "t", "n", [Block([Strip("", pictures)])]))
    assert find(page, pictures[0])[1] == MARGIN
    assert len({find(page, picture)[0] for picture in pictures}) == 1


@pytest.mark.parametrize("count", [1, 5, 16])
def test_a_plain_grid_holds_its_pictures_exactly(count: int, tmp_path: Path) -> None:
    drawn = torch.rand(count, 3, 10, 7)
    page = pixels(save_grid(drawn, tmp_path / "new" / "grid.png"))
    places = [find(page, picture) for picture in magnified(drawn)]
    assert places == sorted(places)
    assert len(set(places)) == count


def test_many_choices_fill_several_columns(tmp_path: Path) -> None:
    run = a_run(tmp_path, words=[f"word_{i}" for i in range(48)])
    height, width, _ = page_of(run, groups.from_choices(run, "word", ["tile"], 8)).shape
    assert 0.6 < width / height < 1.8


THREE: dict[str, Modality] = {"tile": Tile(), "word": Word(), "other": Word()}

DIRECTIONS = {  # what is generated, what is given, the pages
    "a picture from a word": (["tile"], ["word"], {"tile_from_word", "tile_reconstructed"}),
    "from two words": (["tile"], [], {"tile_from_word+other", "tile_reconstructed"}),
    "with a word": (["tile", "other"], ["word"], {"tile_from_word", "tile_reconstructed"}),
    "a word from a picture": (["word"], ["tile"], set()),
}


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", ["cvae", "cmma"])
def test_a_model_of_one_direction_has_the_pages_of_that_direction(
    kind: str, direction: str, tmp_path: Path
) -> None:
    targets, given, names = DIRECTIONS[direction]
    run = a_run(tmp_path, kind, THREE, {"targets": targets, "given": given})
    x = observations()
    paths = draw_all(run, Batch({**x, "other": x["word"]}), metrics(3))
    assert {path.stem for path in paths} == {*names, "losses"}
    assert all(pixels(path).std() > 10 for path in paths)


@pytest.mark.parametrize("kind", ["cvae", "cmma"])
def test_reconstructions_of_one_direction_are_those_given_all_and_given_c(
    kind: str, tmp_path: Path
) -> None:
    run = a_run(tmp_path, kind, THREE, {"targets": ["tile"], "given": ["word"]})
    x = Batch({**observations(3), "other": torch.eye(4)[:3]})
    page = page_of(run, groups.reconstructions(run, x, "tile"))
    places = []
    with torch.no_grad():
        for names in (["tile", "word"], ["word"]):
            z = sample_latent(run.model, x.select(names), 1, temperature=0.0)[0]
            means = run.model.decode(z, x.select(names))["tile"].mean
            places += [find(page, picture) for picture in magnified(Tile().render(means))]
    assert len({top for top, _ in places}) == 2
    assert len({left for _, left in places}) == 3
    edges = (page == 204).all(-1)  # EDGE around each picture: as many rows as the page has
    assert len(np.flatnonzero(np.diff(edges.sum(1) > 100) > 0)) == 3 * 4
    other = Batch({**x, "other": x["other"].roll(1, 0)})  # what takes no part is not shown
    assert np.array_equal(page_of(run, groups.reconstructions(run, other, "tile")), page)


def test_pages_of_another_direction_are_an_error_that_says_the_possible_one(
    tmp_path: Path,
) -> None:
    run = a_run(tmp_path, "cvae", THREE, {"targets": ["tile"], "given": ["word"]})
    x = Batch({**observations(3), "other": torch.eye(4)[:3]})
    for group in (
        lambda: groups.from_choices(run, "other", ["tile"], 2),
        lambda: groups.from_pairs(run, "word", "other", "tile"),
        lambda: groups.reconstructions(run, x, "other"),
        lambda: groups.from_prior(run, 3),
    ):
        with pytest.raises(GenerationError, match="tile from word"):
            group()


@pytest.mark.parametrize(
    ("kind", "z", "written"),
    [("cvae", "N(0, I)", "p(tile | z, word)"), ("cmma", "p(z | word)", "p(tile | z)")],
)
def test_captions_say_where_z_comes_from_and_what_decoders_read(
    kind: str, z: str, written: str, tmp_path: Path
) -> None:
    run = a_run(tmp_path, kind, THREE, {"targets": ["tile"], "given": ["word"]})
    assert how_found(run.model, ["word"]) == f"z from {z}"
    assert how_found(run.model, ["tile", "word"]) == "z from q(z | x)"
    assert likelihood(run.model, ["tile"]) == written
    joint = a_run(tmp_path, "jmvae-kl").model
    assert how_found(joint, ["word"]) == "z from q(z | word)"
    assert how_found(joint, ["word"], 7) == "z by iterative sampling, T = 7"
    assert likelihood(joint, ["tile", "word"]) == "p(tile, word | z)"


def test_models_side_by_side(tmp_path: Path) -> None:
    way = {"targets": ["tile"]}
    runs = {k: a_run(tmp_path, k, direction=way if k in ONE_WAY else {}) for k in KINDS}
    path = compare(runs, "word", "tile", tmp_path / "compare.png", iterations=2)
    alone = compare({"a": a_run(tmp_path)}, "word", "tile", tmp_path / "one.png")
    assert pixels(path).shape[1] > 2 * pixels(alone).shape[1]


def test_what_cannot_be_drawn_is_an_error(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    with pytest.raises(GenerationError, match="word: told in words"):
        page_of(run, groups.reconstructions(run, observations(3), "word"))
    with pytest.raises(GenerationError, match="no choices"):
        groups.from_choices(run, "tile", ["word"], 2)
    with pytest.raises(GenerationError, match="did you mean 'word'"):
        groups.from_choices(run, "wrod", ["tile"], 2)
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("epochs", [1, 2, 60])
def test_losses_of_short_and_long_runs(epochs: int, tmp_path: Path) -> None:
    lines = metrics(epochs)
    lines[0]["validation"] = {}
    lines[-1]["train"] |= {f"kl/{i}": float(i) for i in range(40)}  # more than are drawn
    lines[-1]["train"]["loss"] = float("inf")
    assert pixels(loss_curves(lines, tmp_path / "losses.png")).shape[1] >= 800


@pytest.mark.parametrize("words", ["$x$", r"\input{/etc/passwd}", "a_b^c", "[/x]", "\x1b[31m"])
def test_words_start_no_program_whatever_the_current_folder_says(tmp_path, monkeypatch, words):
    # matplotlib obeys a file matplotlibrc of the current folder: with usetex, words are programs.
    import matplotlib as mpl

    def started(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", started)
    monkeypatch.setitem(mpl.rcParams, "text.usetex", True)
    losses = {"epoch": 1, "beta": 1.0, "train": {words: 1.0}, "validation": {}}
    loss_curves([losses], tmp_path / "losses.png", words)
    white = np.ones((1, 8, 8, 3), np.float32)
    draw(tmp_path / "sheet.png", words, words, [Block([Strip(words, white, [words])], words)])
    plot_growth(growth({"jmvae": JMVAE}, Tile(), [2], [1]), tmp_path / "growth.png")
    figure_4(
        [Point("jmvae", "image", "label", t, -float(t), 0.1) for t in (0, 1)], tmp_path / "4.png"
    )
    assert mpl.rcParams["text.usetex"]  # a caller's own figures are the caller's
