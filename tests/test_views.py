"""Windows that slide over an image, scales and mirror images."""

import pytest
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from harness.tasks import views


def images(height=30, width=41, count=3):
    return torch.randn(count, 2, height, width, generator=torch.Generator().manual_seed(0))


def network():
    """One that looks around, so that a window's border matters."""
    torch.manual_seed(0)
    return nn.Conv2d(2, 4, 5, padding=2).requires_grad_(False)


def pointwise(x):
    return torch.cat([x, x.square(), x.sin()], 1)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("window", [(16, 16), (8, 20), (30, 16), (30, 41)])
def test_windows_agree_with_monai(window, overlap):
    given, net = images(), network()
    expected = sliding_window_inference(given, window, 1, net, overlap=overlap)
    torch.testing.assert_close(views.windowed(net, given, window, overlap), expected)


@pytest.mark.parametrize("window", [(7, 9), (30, 41), (64, 50), (16, 64)])
@pytest.mark.parametrize("overlap", [0.0, 1 / 3, 0.9])
def test_windows_do_not_show_where_a_pixel_is_seen_alone(window, overlap):
    given = images()
    torch.testing.assert_close(views.windowed(pointwise, given, window, overlap), pointwise(given))


def test_every_window_has_the_size_that_the_model_takes():
    seen = []
    views.windowed(lambda x: seen.append(tuple(x.shape[2:])) or x, images(), (16, 20), 0.3)
    assert set(seen) == {(16, 20)}


def test_one_scale_without_mirror_is_the_prediction_itself():
    given, net = images(), network()
    assert torch.equal(views.averaged(net, given, [1.0], False, "softmax"), net(given))


@pytest.mark.parametrize("link", ["softmax", None])
def test_the_mean_of_views(link):
    given, net = images(), network()
    found = views.averaged(net, given, [1.0], True, link)
    both = torch.stack([net(given), net(given.flip(3)).flip(3)])
    expected = both.softmax(2).mean(0).log() if link == "softmax" else both.mean(0)
    torch.testing.assert_close(found, expected)


def test_what_is_mirrored_is_predicted_mirrored():
    given, net = images(), network()
    found = views.averaged(net, given, [0.5, 1.0, 1.5], True, "softmax")
    assert found.shape == (3, 4, 30, 41)
    torch.testing.assert_close(views.averaged(net, given.flip(3), [0.5, 1.0, 1.5], True, "softmax").flip(3), found)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(3, 30, 41))
