"""Augmentation of images together with their rotated boxes."""

import math

import pytest
import torch
from shapely import Polygon, affinity, box

from datasets import joint_boxes, joint_rotated

HEIGHT, WIDTH, COUNT = 48, 64, 12


def painted(boxes):
    """Return images (N,1,H,W) that are 1 at the pixels whose centres lie in the box (N,5) of each."""
    down, across = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    x, y, width, height, angle = (values.view(-1, 1, 1) for values in boxes.unbind(1))
    right, lower = across - x, down - y
    along, beside = right * angle.cos() + lower * angle.sin(), lower * angle.cos() - right * angle.sin()
    return ((along.abs() <= width / 2) & (beside.abs() <= height / 2)).float().unsqueeze(1)


def scenes(seed=0):
    """Return images with one bright box each, and targets, of which the second row is no box."""
    draw = torch.rand(COUNT, 5, generator=torch.Generator().manual_seed(seed))
    low, high = torch.tensor([20, 18, 16, 8, -math.pi / 2]), torch.tensor([44, 30, 28, 14, math.pi / 2])
    targets = torch.zeros(COUNT, 2, 6)
    targets[:, 0, :5], targets[:, 0, 5], targets[:, 1, 5] = low + (high - low) * draw, 2, -1
    return painted(targets[:, 0, :5]), targets


def draws(seed=1, **augment):
    return joint_boxes.draw(COUNT, augment, torch.Generator().manual_seed(seed))


def polygon(x, y, width, height, angle):
    upright = box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return affinity.rotate(upright, angle, origin=(x, y), use_radians=True)


@pytest.mark.parametrize("augment", [{"flip": True}, {"zoom": (0.6, 1.6)}, {"flip": True, "zoom": (0.6, 1.6)}], ids=str)
def test_boxes_stay_where_their_pixels_go(augment):
    images, targets = scenes()
    drawn = draws(**augment)
    changed, found = joint_rotated.apply(images, targets, drawn, augment)
    assert ("flip" in augment) == bool((drawn[:, 0] < 0).any())
    there = found[:, 0, 5] == 2
    assert there.sum() > COUNT / 2
    expected, pixels = painted(found[there, 0, :5]) > 0.5, changed[there] > 0.5
    overlap = (expected & pixels).flatten(1).sum(1) / (expected | pixels).flatten(1).sum(1)
    assert overlap.min() > 0.85  # what is left are pixels on the edges
    angles = found[there, 0, 4]
    assert ((angles >= -math.pi / 2) & (angles < math.pi / 2)).all()
    assert (found[:, 1] == targets[:, 1]).all()


def test_a_mirror_image_turns_the_sign_of_the_angle_and_twice_is_nothing():
    targets = torch.tensor([[[20.0, 10, 8, 4, 0.3, 1], [20, 10, 8, 4, -math.pi / 2, 1]]])
    mirror = torch.tensor([[-1.0, 0, 1, 0]])
    once = joint_rotated.moved(targets, mirror, (HEIGHT, WIDTH), 0.25)
    expected = [[WIDTH - 20, 10, 8, 4, -0.3, 1], [WIDTH - 20, 10, 8, 4, -math.pi / 2, 1]]
    torch.testing.assert_close(once, torch.tensor([expected]))
    torch.testing.assert_close(joint_rotated.moved(once, mirror, (HEIGHT, WIDTH), 0.25), targets)


def test_boxes_out_of_sight_are_taken_away_and_those_at_the_edge_stay_whole():
    # the window is the left upper quarter; a box lies in it, on its right edge by half, by a tenth, and outside
    targets = torch.tensor([[[x, 12.0, 10, 6, 0, 0] for x in (16, 32, 36, 50)]])
    window = torch.tensor([[0.5, -0.5, 0.5, -0.5]])
    found = joint_rotated.moved(targets, window, (HEIGHT, WIDTH), 0.25)
    assert found[0, :, 5].tolist() == [0, 0, -1, -1]
    torch.testing.assert_close(found[0, :2, :5], torch.tensor([[32.0, 24, 20, 12, 0], [64, 24, 20, 12, 0]]))
    assert not found[0, 2:, :5].any()
    assert joint_rotated.moved(targets, window, (HEIGHT, WIDTH), 0.0)[0, :, 5].tolist() == [0, 0, 0, -1]


def test_the_share_in_sight_is_that_of_the_area():
    draw = torch.rand(40, 5, generator=torch.Generator().manual_seed(3))
    boxes = torch.tensor([-8, -8, 6, 6, -1.5]) + draw * torch.tensor([WIDTH + 16, HEIGHT + 16, 30, 30, 3.0])
    image = Polygon([(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)])
    exact = [(each := polygon(*row)).intersection(image).area / each.area for row in boxes.tolist()]
    torch.testing.assert_close(joint_rotated.in_sight(boxes, (HEIGHT, WIDTH)), torch.tensor(exact), atol=0.08, rtol=0)


def test_nothing_drawn_or_colours_alone_change_no_box():
    images, targets = scenes()
    assert joint_rotated.apply(images, targets, None, {}) == (images, targets)
    changed, same = joint_rotated.apply(images, targets, draws(colour=0.5), {"colour": 0.5})
    assert same is targets
    assert not torch.equal(changed, images)
