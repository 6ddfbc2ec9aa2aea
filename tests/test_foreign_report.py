"""The report of models that the core has never heard of: it says what they say of themselves."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from conftest import ROOT, small
from pages import report
from torch import nn

from mmgen import Modality, build, hookimpl
from mmgen.experiment import Experiment
from mmgen.gallery.size import OTHERS, growth
from mmgen.latent.gaussian import DiagonalGaussian, GaussianHead, standard_normal
from mmgen.model import Directions, Model, ModelSettings, log_likelihoods
from mmgen.nets.by_modality import ByModality
from mmgen.nets.dry_run import features
from mmgen.objective import Objective, Term
from mmgen.registry.loading import Registry
from mmgen.run import load
from mmgen.training import session

PLUGIN = str(Path(__file__).resolve())


class Meeting(Model):
    """Every modality has an encoder of its own, and where they meet is z <i>itself</i>.

    Not told in the report: this is a toy.
    """

    kind: ClassVar[str] = "meeting"
    api_version: ClassVar[int] = 1
    equation: ClassVar[tuple[str, ...]] = ("Σ_k log p(x_k | z)", "− γ D(q_{all} ‖ <i>M</i>)")

    def __init__(self, modalities: Mapping[str, Modality], settings: ModelSettings) -> None:
        super().__init__(modalities, settings)
        self.encoders = ByModality({n: m.encoder() for n, m in modalities.items()})
        self.heads = nn.ModuleDict(
            {
                n: GaussianHead(features(net, modalities[n].shape), self.latent)
                for n, net in self.encoders.items()
            }
        )

    def prior(self, given):
        return standard_normal(self.latent, like=self.like).named("M(z)")

    def posterior(self, x):
        if len(x) not in (1, len(self.names)):
            return None
        each = [self.heads[n](self.encoders[n](x[n])) for n in x]
        mean = torch.stack([q.mean for q in each]).mean(0)
        deviation = torch.stack([q.stddev for q in each]).mean(0)
        return DiagonalGaussian(mean, deviation, f"m({' & '.join(x)})")

    def objective(self, x):
        q = self.posterior(x.select(self.names))
        z = q.rsample()
        terms = [
            Term(f"sum.{n}", p, -1.0, about=(n,), title=f"how well {n} is met")
            for n, p in log_likelihoods(self, x, z).items()
        ]
        distance = q.log_prob(z) - self.prior(x).log_prob(z)
        return Objective([*terms, Term("apart", distance, 0.5, warmed_up=True)])


class Telling(Model):
    """Tells the first modality from the last, by way of a z that it alone decides."""

    kind: ClassVar[str] = "telling"
    api_version: ClassVar[int] = 1

    class Settings(ModelSettings):
        """Attributes: heard: What is told from."""

        heard: tuple[str, ...] = ()

    def __init__(self, modalities: Mapping[str, Modality], settings: ModelSettings) -> None:
        heard = settings.heard or (list(modalities)[-1],)
        told = next(n for n in modalities if n not in heard)
        used = {n: m for n, m in modalities.items() if n in (told, *heard)}
        super().__init__(used, settings, targets=(told,))
        self.directions = Directions(given=heard, targets=(told,))
        self.encoders = ByModality({n: used[n].encoder() for n in heard})
        width = sum(features(net, used[n].shape) for n, net in self.encoders.items())
        self.head = GaussianHead(width, self.latent)

    def prior(self, given):
        h = torch.cat([net(given[n]) for n, net in self.encoders.items()], dim=-1)
        return self.head(h, "t(z | heard)")

    def posterior(self, x):
        return self.prior(x).named("t(z | all)") if {*x} == {*self.names} else None

    def objective(self, x):
        z = self.posterior(x.select(self.names)).rsample()
        return Objective(
            [Term(n, p, -1.0, about=(n,)) for n, p in log_likelihoods(self, x, z).items()]
        )


class Failing(Model):
    """Cannot be built."""

    kind: ClassVar[str] = "failing"
    api_version: ClassVar[int] = 1

    def __init__(self, modalities, settings):
        raise RuntimeError("not with these modalities")

    prior = posterior = objective = None  # type: ignore[assignment]


@hookimpl
def mmgen_models() -> list[type[Model]]:
    return [Meeting, Telling, Failing]


OURS = (
    "one decoder each", "an encoder of its own", "one encoder", "JMVAE", "N(0, I)", "α",
    "KL of", "KL to", "the joint one", "three models", "Settings are below",
)  # fmt: skip
"""Words that are true of the models that come with mmgen alone."""


def train(out, small_glyphs, *words):
    words = [*small(small_glyphs), *words]
    experiment = Experiment.read(ROOT / "examples" / "glyphs.toml", words)
    prepared = session.prepare(experiment, [PLUGIN])
    session.start(prepared, out)
    list(session.train(prepared, out))
    return out


@pytest.fixture(scope="module")
def meeting(tmp_path_factory, small_glyphs):
    return train(tmp_path_factory.mktemp("runs") / "run", small_glyphs, "model.kind=meeting")


@pytest.fixture(scope="module")
def page(meeting):
    return report(meeting, plugin_modules=[PLUGIN])


def test_a_page_says_what_the_model_says_of_itself(page):
    told = "Every modality has an encoder of its own, and where they meet is z <i>itself</i>."
    assert "One meeting of image, label and attributes, trained on glyphs for 2 epochs" in page.text
    assert told in page.text_in("p")  # escaped: as it was written
    assert "this is a toy" not in page.text
    assert "Σ k log p(x k | z)" in page.text
    assert "− γ D(q all ‖ <i>M</i>)" in page.text
    assert {"k", "all"} <= {*page.text_in("sub")}
    assert page.all("i") == []


def test_a_page_says_truly_what_the_model_encodes(page):
    also = "It encodes all modalities together, and also: image; label; attributes."
    assert also in page.text
    assert "Given others, z is found by iterative sampling" in page.text
    assert "z from M(z)" not in page.text  # nothing is known of it but from the prior
    for way in ("z from m(label), at its mean.", "z from the prior M(z)"):
        assert way in page.text
    alts = [img["alt"] for img in page.all("img")]
    assert "image given label A, z at its mean; z from m(label)" in alts
    assert "image 1, given label and attributes, z at its mean; " in " ".join(alts)
    pair = next(a for a in alts if "given label and attributes" in a)
    assert pair.endswith("z by iterative sampling, T = 50")
    assert any(a.endswith("z from m(image & label & attributes)") for a in alts)


def test_the_terms_have_the_models_own_words(page):
    panels = [p.split(" over the epochs")[0] for p in page.text_in("title")]
    assert {"Loss", "how well image is met", "apart"} <= {*panels}
    assert "β, the weight of apart, rises to 1 over the first 0.2 epochs." in page.text


def test_nothing_is_said_that_is_true_of_our_models_alone(page):
    words = page.text.replace("Every modality has an encoder of its own", "")
    assert [each for each in OURS if each in words] == []


def test_models_that_cannot_be_built_break_no_page(page):
    rows = [" ".join(r.split()) for r in page.text_in("tr")]
    assert [r for r in rows if r.startswith("meeting this run3")]
    assert [r for r in rows if r.startswith("jmvae-kl")]
    assert not [r for r in rows if r.startswith(("failing", "telling"))]


def test_an_epochs_line_has_the_terms_in_short_and_all_is_drawn(mmgen, small_glyphs, tmp_path):
    words = [*small(small_glyphs, epochs=1), "model.kind=meeting", "--out", tmp_path / "run"]
    code, _, err = mmgen("-p", PLUGIN, "train", ROOT / "examples" / "glyphs.toml", *words)
    assert code == 0, err
    (epoch,) = [line for line in err.splitlines() if line.startswith("epoch 1/1")]
    assert "  kl " in epoch  # what is warmed up
    assert "  image -" in epoch
    assert "sum." not in epoch
    drawn = {file.name for file in (tmp_path / "run" / "figures").iterdir()}
    assert {"image_from_label.png", "image_reconstructed.png", "prior.png", "losses.png"} <= drawn


def test_a_conditional_model_has_the_page_of_its_direction(small_glyphs, tmp_path):
    run = train(tmp_path / "run", small_glyphs, "model.kind=telling", "model.heard=['label']")
    page = report(run, plugin_modules=[PLUGIN])
    assert "One telling that generates image from label, trained on glyphs" in page.text
    about = "Tells the first modality from the last, by way of a z that it alone decides."
    assert about in page.text_in("p")
    assert "Here T, what is generated, is image; C, what is given, is label." in page.text
    assert "attributes takes no part" in page.text
    assert "It encodes all modalities together, and no fewer." in page.text
    assert "iterative" not in page.text
    for way in ("z from t(z | heard), at its mean.", "z from t(z | all), at its mean."):
        assert way in page.text
    assert [a for a in (img["alt"] for img in page.all("img")) if a.endswith("z from t(z | heard)")]
    assert "β" not in page.text
    rows = [" ".join(r.split()) for r in page.text_in("tr")]
    (own,) = [r for r in rows if r.startswith("telling this run")]
    assert own.startswith("telling this run1")
    assert "+1" in own  # one more that is heard
    assert [r for r in rows if r.startswith("meeting3")]
    assert [each for each in OURS if each in page.text] == []


def test_a_model_with_many_others_beside_it_has_a_table_to_read(meeting):
    run = load(meeting, device="cpu", plugin_modules=[PLUGIN])
    registry = build.registry([PLUGIN])
    wide = [type(f"M{i}", (Meeting,), {"kind": f"m{i}", "parts": i + 1}) for i in range(12)]

    def widened(self, modalities, settings):
        Meeting.__init__(self, modalities, settings)
        self.more = torch.nn.Linear(self.parts, self.parts)

    for cls in wide:
        cls.__init__ = widened
    alike = type("Alike", (Meeting,), {"kind": "alike"})
    models = {**registry.models, **{cls.kind: cls for cls in wide}, "alike": alike}
    sizes = growth(run, Registry(registry.records, registry.kinds, models, registry.modules))
    assert next(iter(sizes.rows)) == ("meeting",)
    assert len(sizes.rows) == 1 + OTHERS
    assert sizes.left_out > 5
    shown = [kind for kinds in sizes.rows for kind in kinds]
    assert len(shown) + sizes.left_out == 1 + sum(
        m.kind not in ("cvae", "cmma", "telling", "failing", "meeting") for m in models.values()
    )
