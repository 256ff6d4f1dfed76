"""Worked values of losses of generators, critics, images and motion, and agreement with torchmetrics."""

import pytest
import torch
from loss_registry import build, pair_of
from torchmetrics.functional.image import structural_similarity_index_measure

from losses import generative, structural


def double(values):
    return torch.tensor(values, dtype=torch.float64)


REAL, FAKE = double([1.0]), double([-0.5])
BOTH = torch.cat([REAL, FAKE]), double([1, 0])
MAPS = double([[[[1, 2, 0, 1]], [[0, 1, 1, 2]]]]), double([[[[1, 1, 1, 1]], [[0, 2, 0, 2]]]])
FLOWS = double([[3, 0], [4, 0]]).view(1, 2, 1, 2), torch.zeros(1, 2, 1, 2, dtype=torch.float64)
GREY = torch.full((1, 1, 16, 16), 0.5, dtype=torch.float64), torch.full((1, 1, 16, 16), 0.6, dtype=torch.float64)
VALUES = [
    ("gan_discriminator", {}, BOTH, 0.78733867 / 2),
    ("gan_minimax", {}, (FAKE, 0 * FAKE), -0.47407698),
    ("gan_nonsaturating", {}, (FAKE, 0 * FAKE), 0.97407698),
    ("lsgan_discriminator", {}, BOTH, 0.125 / 2),
    ("lsgan_generator", {}, (FAKE, 0 * FAKE), 1.125),
    ("hinge_discriminator", {}, BOTH, 0.5 / 2),
    ("wgan_critic", {}, BOTH, -1.5 / 2),
    ("wgan_generator", {}, (FAKE, 0 * FAKE), 0.5),
    ("cycle", {}, MAPS, 4 / 8),
    ("feature_matching", {}, MAPS, 4 / 8),
    ("ddpm_eps", {}, MAPS, 0.5),
    ("ddpm_x0", {}, MAPS, 0.5),
    ("perceptual", {}, MAPS, 0.5),
    ("content", {}, MAPS, 2.0),
    ("style", {}, MAPS, 0.03125),
    ("style", {"scaling": "johnson"}, MAPS, 0.125),
    ("style", {"scaling": "absolute"}, MAPS, 4 / 8),
    ("temporal_consistency", {}, MAPS, 4.0),
    ("motion_consistency", {}, FLOWS, 12.5),
    ("motion_consistency", {"squared": False}, FLOWS, 2.5),
    ("siamfc", {"balanced": False}, (double([2, -1, 0.5]), double([1, 0, 0])), 0.47142223),
    ("ssim", {}, GREY, 1 - 0.98360924),
    ("attention_target", {}, (torch.full((1, 2, 4), 0.25, dtype=torch.float64), double([3])), 1.38629436),
]
WORKED = {name for name, *_ in VALUES} | {"context"}


@pytest.mark.parametrize(("name", "settings", "data", "expected"), VALUES)
def test_value(name, settings, data, expected):
    prediction, target = data
    assert build(name, **settings)(prediction, target).item() == pytest.approx(expected, abs=1e-6)


def test_siamfc_weighs_both_kinds_of_places_alike():
    values = structural.siamfc(torch.zeros(4), torch.tensor([1.0, 0, 0, 0]))
    assert values[0].item() == pytest.approx(values[1:].sum().item())
    assert values.mean().item() == pytest.approx(torch.tensor(2.0).log().item())


def test_context_is_least_where_every_feature_is_found_in_any_place():
    prediction, target = pair_of(build("context"), count=3)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    moved = target.flatten(2)[:, :, order].view_as(target)
    same, moved, other = (structural.context(data, target) for data in (target, moved, prediction))
    torch.testing.assert_close(same, moved)
    assert (same < other).all()


@pytest.mark.parametrize("function", [structural.ssim, structural.style])
def test_images_nearly_alike_keep_their_digits_in_float32(function):
    draw = torch.Generator().manual_seed(0)
    first, second = (0.6 + 1e-5 * torch.randn(4, 3, 16, 16, generator=draw) for _ in range(2))
    torch.testing.assert_close(
        function(first, second).double(), function(first.double(), second.double()), rtol=1e-3, atol=0
    )


def test_style_mixes_precisions():
    first, second = (data.float() for data in MAPS)
    half = first.bfloat16().requires_grad_()
    structural.style(half, second).sum().backward()
    assert half.grad.isfinite().all()


def test_no_gradient_reaches_the_real_features():
    prediction, target = pair_of(build("feature_matching"))
    target.requires_grad_()
    build("feature_matching")(prediction, target).backward()
    assert target.grad is None


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_agrees_with_torchmetrics_on_a_padded_image(channels):
    """torchmetrics pads by reflection and counts the border, where the paper's windows do not lie inside the image."""
    draw = torch.Generator().manual_seed(channels)
    first, second = (torch.rand(2, channels, 24, 20, generator=draw, dtype=torch.float64) for _ in range(2))
    mine, theirs = first.clone().requires_grad_(), first.clone().requires_grad_()
    padded = [torch.nn.functional.pad(image, (5, 5, 5, 5), mode="reflect") for image in (mine, second)]
    ours = 1 - structural.ssim(*padded)
    peer = structural_similarity_index_measure(theirs, second, data_range=1.0, reduction="none")
    torch.testing.assert_close(ours, peer.to(ours.dtype), atol=1e-6, rtol=1e-6)
    assert (1 - structural.ssim(mine, second) - ours).abs().min() > 1e-3
    ours.sum().backward()
    peer.sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-6, rtol=1e-5)


def test_identical_images_cost_nothing_and_small_ones_are_refused():
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert structural.ssim(image, image).abs().max() < 1e-12
    with pytest.raises(ValueError, match="sides of 11 or more"):
        structural.ssim(image[:, :, :8], image[:, :, :8])


def test_least_squares_critic_and_minimax_are_where_they_should_be():
    scores = double([-3, 0, 3]).requires_grad_()
    generative.gan_minimax(scores, 0 * scores.detach()).sum().backward()
    assert scores.grad[0].abs() < 0.06  # it fades where the critic is sure, where the non-saturating form does not
    again = double([-3, 0, 3]).requires_grad_()
    generative.gan_nonsaturating(again, 0 * again.detach()).sum().backward()
    assert again.grad[0].abs() > 0.94
