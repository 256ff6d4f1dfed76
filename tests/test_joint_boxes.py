"""Augmentation of images together with their boxes."""

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as v2

from datasets import joint_boxes
from datasets.boxes import CROWD, DIFFICULT

HEIGHT, WIDTH = 32, 48


def draws(count=8, seed=0, **augment):
    return joint_boxes.draw(count, augment, torch.Generator().manual_seed(seed))


def rectangles(count=8, seed=1):
    """Images with one bright rectangle each, and its box; a second row is no box."""
    draw = torch.Generator().manual_seed(seed)
    corner = (torch.rand(count, 2, generator=draw) * torch.tensor([WIDTH - 20, HEIGHT - 20])).floor()
    boxes = torch.cat([corner, corner + 8 + (torch.rand(count, 2, generator=draw) * 12).floor()], 1)
    targets = torch.zeros(count, 2, 6)
    targets[:, 0, :4], targets[:, 0, 4], targets[:, 1, 4] = boxes, 2, -1
    images = torch.zeros(count, 1, HEIGHT, WIDTH)
    for image, (left, top, right, bottom) in zip(images, boxes.int().tolist(), strict=True):
        image[:, top:bottom, left:right] = 1
    return images, targets


def test_nothing_drawn_changes_nothing():
    images, targets = rectangles()
    assert draws() is draws(visible=0.5) is None
    assert joint_boxes.apply(images, targets, None, {}) == (images, targets)


def test_colours_leave_places_alone():
    images, targets = rectangles()
    drawn = draws(colour=0.5)
    changed, same = joint_boxes.apply(images, targets, drawn, {"colour": 0.5})
    assert same is targets
    for image, one, (contrast, brightness) in zip(changed, images, drawn[:, 4:].tolist(), strict=True):
        torch.testing.assert_close(image, one * contrast + brightness)
    assert drawn[:, 4].unique().numel() == 8


def test_a_flip_is_torchvisions():
    images, targets = rectangles()
    drawn = draws(flip=True)
    changed, boxes = joint_boxes.apply(images, targets, drawn, {"flip": True})
    flipped = drawn[:, 0] < 0
    assert 0 < flipped.sum() < 8
    wanted = v2.horizontal_flip(
        tv_tensors.BoundingBoxes(targets[:, 0, :4], format="XYXY", canvas_size=(HEIGHT, WIDTH))
    ).as_subclass(torch.Tensor)
    torch.testing.assert_close(boxes[:, 0, :4], torch.where(flipped[:, None], wanted, targets[:, 0, :4]))
    torch.testing.assert_close(
        changed, torch.where(flipped.view(-1, 1, 1, 1), images.flip(-1), images), atol=1e-4, rtol=0
    )
    assert (boxes[:, 1] == targets[:, 1]).all()


def test_a_window_is_torchvisions_crop():
    """The window is 24 pixels wide and 16 high, and begins at (12, 4)."""
    images, targets = rectangles()
    window = torch.tensor([[0.5, 0.0, 0.5, (4 + 8) / 16 - 1, 1, 0]]).expand(8, 6)
    changed, boxes = joint_boxes.apply(images, targets, window, {"zoom": (2, 2), "visible": 0})
    given = tv_tensors.BoundingBoxes(targets[:, 0, :4], format="XYXY", canvas_size=(HEIGHT, WIDTH))
    wanted = v2.clamp_bounding_boxes(v2.resized_crop(given, 4, 12, 16, 24, size=[HEIGHT, WIDTH])).as_subclass(
        torch.Tensor
    )
    there = (wanted[:, 2:] > wanted[:, :2]).all(1)
    assert 0 < there.sum() < 8
    torch.testing.assert_close(boxes[there, 0, :4], wanted[there])
    assert (boxes[~there, 0] == torch.tensor([0.0, 0, 0, 0, -1, 0])).all()
    inside = v2.resized_crop(images, 4, 12, 16, 24, size=[HEIGHT, WIDTH], antialias=False)
    torch.testing.assert_close(changed[..., 2:-2, 2:-2], inside[..., 2:-2, 2:-2])  # it does not look beyond the crop


@pytest.mark.parametrize("zoom", [(0.5, 1.0), (1.0, 2.0), (0.6, 1.7)])
def test_a_box_stays_around_what_it_holds(zoom):
    augment = {"zoom": zoom, "flip": True}
    images, targets = rectangles(64)
    changed, boxes = joint_boxes.apply(images, targets, draws(64, **augment), augment)
    for image, box in zip(changed[:, 0], boxes[:, 0], strict=True):
        bright = image > 0.5
        if box[4] < 0:
            assert not bright.any()
        elif bright.any():
            rows, columns = bright.any(1).nonzero(), bright.any(0).nonzero()
            around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert (box[:4] - torch.tensor(around)).abs().max() <= 1.01
    assert (boxes[..., 4] >= 0).sum() > 40


def test_what_is_hardly_in_sight_does_not_count():
    """The left half of the image becomes the whole: boxes of which 70, 20 and 0 % are in it, and a crowd."""
    left = torch.tensor([[17.0, 4, 27, 9, 1, 0], [18, 4, 33, 9, 1, 0], [24, 4, 34, 9, 1, 0], [22, 4, 32, 9, 0, CROWD]])
    left[1, 2] = 48
    window = torch.tensor([[0.5, -0.5, 1.0, 0.0]])
    found = joint_boxes.moved(left[None], window, (HEIGHT, WIDTH), 0.25)[0]
    assert found[:, 5].tolist() == [0, DIFFICULT, 0, CROWD]
    assert found[:, 4].tolist() == [1, 1, -1, 0]
    assert found[0, :4].tolist() == [34, 4, 48, 9]
    assert joint_boxes.moved(left[None], window, (HEIGHT, WIDTH), 0)[0, 1, 5] == 0


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"cutout": 3}, "augment.cutout does not work with boxes"),
        ({"visible": 2}, "augment.visible is 2.0; it must be a share"),
        ({"zoom": [2, 1]}, "zoom is"),
    ],
)
def test_what_cannot_be_is_refused(augment, message):
    with pytest.raises(ValueError, match=message):
        draws(**augment)
