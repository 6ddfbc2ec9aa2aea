"""The image plugin: likelihoods by hand, binarisation, reading and drawing pictures."""

import math

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from mmgen.testing import parametrize_with_checks
from mmgen_image import Image

SMALL = {"encoder_widths": (16,), "decoder_widths": (16,)}


@parametrize_with_checks(
    Image(height=2, width=3, **SMALL),
    Image(height=1, width=1, binarise=False, **SMALL),
    Image(height=1, width=1, likelihood="gaussian", standard_deviation=0.2, **SMALL),
    Image(channels=3, height=9, width=14, net="convolution", convolution_channels=(4, 6)),
    Image(height=4, width=4, encoder_widths=(), decoder_widths=()),
    Image(height=3, width=3, likelihood="gaussian", scale="signed", **SMALL),
    Image(height=2, width=1, likelihood="gaussian", standard_deviation="learned", **SMALL),
    Image(height=2, width=1, likelihood="gaussian", scale="standardised", **SMALL).fit(
        torch.arange(8, dtype=torch.uint8).reshape(4, 1, 2, 1)
    ),
    Image(channels=3, height=8, width=8, net="convolution", batch_norm=True),
)
def test_contract(modality, check):
    check(modality)


def decoded(image: Image) -> tuple[torch.Tensor, torch.distributions.Distribution]:
    """Returns the net's raw output, shaped as pictures, and the likelihood of it."""
    torch.manual_seed(0)
    decoder, h = image.decoder(4), torch.randn(5, 4)
    return decoder.net(h).reshape(5, *image.shape), decoder(h)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_bernoulli_log_likelihood_is_the_binary_cross_entropy_of_logits():
    image = Image(channels=3, height=4, width=5, **SMALL)
    out, p = decoded(image)
    x = image.observe(image.example(torch.arange(5), generator()), generator())
    q = out.sigmoid()
    expected = (x * q.log() + (1 - x) * (1 - q).log()).flatten(1).sum(1)
    torch.testing.assert_close(p.log_prob(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(p.mean, q)


def test_gaussian_log_likelihood_is_the_squared_error_and_a_constant():
    image = Image(height=4, width=5, likelihood="gaussian", standard_deviation=0.3, **SMALL)
    out, p = decoded(image)
    x = torch.rand(5, 1, 4, 5, generator=generator())
    squares = ((x - out.sigmoid()) ** 2).flatten(1).sum(1) / (2 * 0.3**2)
    expected = -squares - 20 * math.log(0.3 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(p.log_prob(x), expected, rtol=1e-4, atol=1e-4)


def photographs(count=200):
    """Colour pictures of 4 × 5 whose pixels have means and deviations of their own."""
    rising = torch.linspace(20, 200, 60).reshape(3, 4, 5)
    noise = torch.randn(count, 3, 4, 5, generator=generator())
    return (rising + (5 + rising / 10) * noise).clamp(0, 255).to(torch.uint8)


GAUSSIAN = {"channels": 3, "height": 4, "width": 5, "likelihood": "gaussian", **SMALL}


def test_signed_pictures_are_observed_around_tanh():
    image = Image(**GAUSSIAN, scale="signed")
    stored = photographs(5)
    x = image.observe(stored)
    torch.testing.assert_close(x, stored / 127.5 - 1)
    out, p = decoded(image)
    torch.testing.assert_close(p.mean, out.tanh())
    assert ((image.render(x) * 255).round() == stored).all()


def test_standardised_pixels_have_mean_0_and_deviation_1_on_the_training_split():
    stored = photographs()
    image = Image(**GAUSSIAN, scale="standardised")
    assert image.needs_fit
    image = image.fit(stored)
    assert not image.needs_fit
    assert image == Image(**{k: v for k, v in image.to_config().items() if k != "kind"})
    x = image.observe(stored)
    # Statistics have 8 bits: half a grey level of the mean, half a 512th of the deviation.
    deviation = (stored / 255.0).std(0, correction=0)
    assert (x.mean(0).abs() * deviation <= 0.51 / 255).all()
    assert ((x.std(0, correction=0) - 1).abs() * deviation <= 0.51 / 512 * 1.02).all()
    assert ((image.render(x) * 255).round() == stored).all()
    out, p = decoded(image)
    torch.testing.assert_close(p.mean, out)


def test_a_constant_pixel_is_standardised_too():
    stored = torch.full((7, 1, 2, 2), 9, dtype=torch.uint8)
    settings = {"height": 2, "width": 2, "likelihood": "gaussian", "scale": "standardised"}
    image = Image(**settings, **SMALL).fit(stored)
    assert image.observe(stored).abs().max() == 0


def test_averaged_colours_divide_the_log_likelihood_and_nothing_else():
    plain = decoded(Image(**GAUSSIAN))[1]
    image = Image(**GAUSSIAN, average_colours=True)
    x = image.observe(photographs(5))
    p = decoded(image)[1]
    torch.testing.assert_close(p.log_prob(x), plain.log_prob(x) / 3)
    torch.testing.assert_close(p.mean, plain.mean)
    torch.testing.assert_close(p.entropy(), plain.entropy() / 3)


def test_a_constant_picture_has_the_paper_s_floor():
    """−5,812 nats: 4,096 pixels of mean 0 and variance 1, averaged over colours."""
    settings = {"channels": 3, "height": 64, "width": 64, "likelihood": "gaussian"}
    image = Image(**settings, scale="standardised", average_colours=True)
    p = image._gaussian(torch.zeros(100, 3 * 64 * 64), 1.0)
    x = torch.randn(100, 3, 64, 64, generator=generator())
    assert p.log_prob(x).mean().item() == pytest.approx(-5812, abs=3)


def test_one_deviation_is_learned_for_all_pixels():
    image = Image(**GAUSSIAN, standard_deviation="learned")
    x = image.observe(photographs())
    decoder = image.decoder(2)
    optimiser = torch.optim.Adam([decoder.log_deviation], lr=0.05)
    h = torch.zeros(len(x), 2)
    for _ in range(300):
        optimiser.zero_grad()
        p = decoder(h)
        (-p.log_prob(x).mean()).backward()
        optimiser.step()
    residual = (x - p.mean).square().mean().sqrt()  # the deviation of most likelihood
    torch.testing.assert_close(p.variance.sqrt().mean(), residual, rtol=1e-3, atol=1e-4)
    decoder.log_deviation.data.fill_(-1e9)
    assert decoder(h).variance.min() > 0


def test_the_nets_of_the_paper_s_faces():
    image = Image(
        channels=3, height=64, width=64, net="convolution", batch_norm=True,
        convolution_channels=(64, 128, 256, 256),
    )  # fmt: skip
    names = [type(layer).__name__ for layer in image.encoder()]
    block = ["Conv2d", "BatchNorm2d", "ReLU"]
    assert names == ["Conv2d", "ReLU", *block, *block, *block, "Flatten"]  # C64R-C128BR-…-F
    net = image.decoder(128).net
    block = ["ConvTranspose2d", "BatchNorm2d", "ReLU"]
    names = [type(layer).__name__ for layer in net]
    assert names == ["Linear", "ReLU", "Unflatten", *block * 3, "ConvTranspose2d"]
    assert net[0].out_features == 4096
    assert [layer.out_channels for layer in net if hasattr(layer, "stride")] == [256, 128, 64, 3]


def test_grey_values_have_the_continuous_bernoulli_s_closed_form():
    """Loaiza-Ganem, Cunningham 2019, equation 5: C(λ) = 2 artanh(1 - 2λ) / (1 - 2λ)."""
    image = Image(height=4, width=5, binarise=False, **SMALL)
    out, p = decoded(image)
    x = image.observe(image.example(torch.arange(5), generator()))
    assert ((x > 0) & (x < 1)).float().mean() > 0
    rate = out.double().sigmoid()
    constant = 2 * torch.atanh(1 - 2 * rate) / (1 - 2 * rate)
    each = -F.binary_cross_entropy_with_logits(out.double(), x.double(), reduction="none")
    expected = (each + constant.log()).flatten(1).sum(1).float()
    torch.testing.assert_close(p.log_prob(x), expected, rtol=1e-3, atol=1e-3)


def test_binarisation_draws_black_and_white_with_the_grey_value_as_mean():
    image = Image(height=16, width=16)
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(4000, -1, -1, -1)
    x = image.observe(grey, generator())
    assert set(x.unique().tolist()) == {0.0, 1.0}
    p = torch.arange(256).view(1, 16, 16) / 255
    # Five standard errors of the mean of 4000 draws; black and white stay exactly.
    error = 5 * (p * (1 - p) / 4000).sqrt()
    assert ((x.mean(0) - p).abs() <= error + 1e-6).all()
    assert torch.equal(x, image.observe(grey, generator()))
    assert not torch.equal(x, image.observe(grey, generator(1)))


def test_other_observations_are_the_grey_values_themselves():
    grey = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    for options in ({"binarise": False}, {"likelihood": "gaussian"}):
        x = Image(height=1, width=3, **options).observe(grey)
        torch.testing.assert_close(x.flatten(), torch.tensor([0.0, 0.2, 1.0]))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_picture_of_the_right_size_is_read_exactly_and_drawn_again(tmp_path, channels, mode):
    image = Image(channels=channels, height=3, width=4, binarise=False)
    pixels = np.arange(12 * channels, dtype=np.uint8).reshape(3, 4, channels) * 7
    PIL.Image.fromarray(pixels.squeeze(), mode).save(tmp_path / "x.png")
    stored = image.parse(str(tmp_path / "x.png"))
    assert stored.dtype == torch.uint8
    assert torch.equal(stored, torch.from_numpy(pixels).permute(2, 0, 1))
    drawn = image.render(image.observe(stored.unsqueeze(0)))
    assert drawn.shape == (1, 3, 3, 4)
    expected = torch.from_numpy(pixels).permute(2, 0, 1).expand(3, -1, -1) / 255
    torch.testing.assert_close(drawn[0], expected)


def test_pictures_of_other_sizes_and_modes_are_fitted_with_antialiasing(tmp_path):
    # A fine chequerboard: without antialiasing it would come out black or white, not grey.
    board = (np.indices((64, 96)).sum(0) % 2 * 255).astype(np.uint8)
    for mode in ("L", "RGB", "RGBA", "P", "1"):
        PIL.Image.fromarray(board).convert(mode).save(tmp_path / f"{mode}.png")
        small = Image(height=8, width=12).parse(str(tmp_path / f"{mode}.png"))
        assert small.shape == (1, 8, 12)
        assert (small.float() - 127.5).abs().max() < 8, mode
    assert Image(channels=3, height=8, width=8).parse(str(tmp_path / "L.png")).shape == (3, 8, 8)


def test_a_picture_stands_as_its_camera_says(tmp_path):
    pixels = np.zeros((8, 12), np.uint8)
    pixels[:, :6] = 255  # white at the left
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned to the right: white comes to the top
    PIL.Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    stored = Image(height=12, width=8).parse(str(tmp_path / "x.png"))
    assert (stored[0, :6] == 255).all()
    assert (stored[0, 6:] == 0).all()
    settings = Image.infer_settings({"file": [str(tmp_path / "x.png")]})
    assert (settings["height"], settings["width"]) == (12, 8)


def test_sixteen_bits_become_eight_and_transparent_pixels_white(tmp_path):
    deep = np.array([[0, 256 * 7 + 99, 65535]], np.uint16)
    PIL.Image.fromarray(deep).save(tmp_path / "deep.png")
    assert Image(height=1, width=3).parse(str(tmp_path / "deep.png")).tolist() == [[[0, 7, 255]]]
    clear = np.array([[[9, 9, 9, 255], [9, 9, 9, 0]]], np.uint8)
    PIL.Image.fromarray(clear).save(tmp_path / "clear.png")
    assert Image(height=1, width=2).parse(str(tmp_path / "clear.png")).tolist() == [[[9, 255]]]


def test_tables_columns_of_picture_files_are_recognised_by_suffix():
    assert Image.match_score(["a.png", "b.JPG", "deep/c.webp"]) == 1
    assert Image.match_score(["a.png", "b.png", "oops", "c.jpeg"]) == 0.75
    assert Image.match_score(["cat", "1.5", "2024.01.02"]) == 0


def test_settings_come_from_the_pictures_that_can_be_read(tmp_path):
    (tmp_path / "0.png").write_text("no picture")
    sizes = {"1.png": ("L", (178, 218)), "2.png": ("L", (20, 30)), "3.png": ("RGB", (9, 9))}
    for name, (mode, size) in sizes.items():
        PIL.Image.new(mode, size).save(tmp_path / name)
    paths = [str(tmp_path / f"{i}.png") for i in range(4)]
    expected = {
        "channels": 1,
        "height": 64,
        "width": 52,
        "net": "convolution",
        "likelihood": "gaussian",
        "standard_deviation": 0.3,
    }
    assert Image.infer_settings({"file": paths[:3]}) == expected
    assert Image.infer_settings({"file": paths}) == expected | {"channels": 3}
    small = Image.infer_settings({"file": paths[2:]})
    assert (small["height"], small["width"], "net" in small) == (30, 20, False)
    assert Image.infer_settings({"file": paths[:1]}) == {}
    many = paths[1:3] * 50 + paths[3:] * 50  # the coloured ones come late
    assert Image.infer_settings({"file": many})["channels"] == 3


def test_what_is_no_picture_is_refused_with_its_name(tmp_path):
    (tmp_path / "text.png").write_text("this is no picture")
    good = tmp_path / "good.png"
    PIL.Image.fromarray(np.zeros((50, 50), np.uint8)).save(good)
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:60])
    for cell in ("gone.png", str(tmp_path), str(tmp_path / "text.png"), str(tmp_path / "cut.png")):
        with pytest.raises(ValueError, match="is no picture") as caught:
            Image().parse(cell)
        assert repr(cell) in str(caught.value)


def test_means_out_of_range_are_clamped_when_drawn():
    drawn = Image(height=1, width=3).render(torch.tensor([-1.0, 0.5, 2.0]).view(1, 1, 1, 3))
    assert drawn[0, 0, 0].tolist() == [0, 0.5, 1]


def test_the_class_decides_synthetic_pictures_up_to_noise():
    image = Image(channels=3, height=8, width=8)
    x = image.example(torch.tensor([0, 1, 0]), generator()).float()
    assert x.shape == (3, 3, 8, 8)
    same, other = (x[0] - x[2]).square().mean(), (x[0] - x[1]).square().mean()
    assert 0 < same < other / 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"height": 0}, "greater than 0"),
        ({"channels": 2}, "1 or 3"),
        ({"likelihood": "laplace"}, "'bernoulli' or 'gaussian'"),
        ({"standard_deviation": 0.0}, "greater than 0"),
        ({"encoder_widths": (8, 0)}, "greater than 0"),
        ({"hieght": 3}, "Extra inputs are not permitted"),
        ({"scale": "signed"}, 'needs likelihood = "gaussian"'),
        ({"crop": "face", "height": 8, "width": 6}, "takes a square, which 8×6 pixels are not"),
        ({**GAUSSIAN, "scale": "standardised", "pixel_means": "AAAA"}, "set together"),
        (
            {**GAUSSIAN, "pixel_means": "AAAA", "pixel_deviations": "AAAA"},
            "have 3 of the 60 bytes",
        ),
        ({**GAUSSIAN, "pixel_means": "!", "pixel_deviations": "!"}, "are base64 text"),
    ],
)
def test_impossible_settings_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        Image(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"height": 3, "width": 64}, "2 convolutions of stride 2 do not fit a picture of 3x64"),
        ({"convolution_channels": ()}, "0 convolutions of stride 2 do not fit"),
    ],
)
def test_convolutions_that_do_not_fit_the_picture_are_refused(settings, words):
    image = Image(net="convolution", **settings)
    with pytest.raises(ValueError, match=words):
        image.encoder()
    with pytest.raises(ValueError, match=words):
        image.decoder(3)


@pytest.mark.parametrize(
    ("settings", "recommended"),
    [
        ({}, {"net": "convolution"}),
        ({"height": 8, "width": 30}, {"net": "convolution"}),
        ({"height": 7, "width": 30}, {}),
        ({"encoder_widths": (64,)}, {}),
        ({"decoder_widths": (64,)}, {}),
    ],
)
def test_convolutions_are_recommended_where_they_fit_and_no_layers_were_chosen(
    settings, recommended
):
    assert Image(**settings).recommended() == recommended
