"""Augmentation of images together with their masks."""

import pytest
import torch

from datasets import joint
from datasets.splits import VOID


def draws(count=8, seed=0, **augment):
    return joint.draw(count, augment, torch.Generator().manual_seed(seed))


def blocks(count=8):
    """Images whose value is their class plus one, in blocks of eight pixels, so that image and mask can be compared."""
    small = torch.randint(0, 5, (count, 4, 6), generator=torch.Generator().manual_seed(1))
    masks = small.repeat_interleave(8, 1).repeat_interleave(8, 2)
    return (masks + 1.0).unsqueeze(1), masks.to(torch.uint8)


def test_nothing_drawn_changes_nothing():
    images, masks = blocks()
    assert draws() is None
    assert joint.apply(images, masks, None) == (images, masks)


def test_a_flip_is_exact():
    images, masks = blocks()
    drawn = draws(flip=True)
    new_images, new_masks = joint.apply(images, masks, drawn)
    flipped = drawn[:, 0] < 0
    assert 0 < flipped.sum() < 8
    for place in range(8):
        image, mask = (
            (images[place].flip(-1), masks[place].flip(-1)) if flipped[place] else (images[place], masks[place])
        )
        torch.testing.assert_close(new_images[place], image, atol=1e-4, rtol=0)  # as exact as places in the grid are
        assert torch.equal(new_masks[place], mask)


@pytest.mark.parametrize("zoom", [(0.5, 1.0), (1.0, 2.0), (0.6, 1.7)])
def test_image_and_mask_stay_together(zoom):
    images, masks = joint.apply(*blocks(), draws(zoom=zoom, flip=True))
    inside = masks != VOID
    # where an image is not a mixture of two classes, its value tells the class of the mask
    whole = (images.squeeze(1) - images.squeeze(1).round()).abs() < 1e-4
    agree = images.squeeze(1).round() == masks + 1.0
    assert agree[whole & inside].float().mean() > 0.99
    assert (whole & inside).float().mean() > 0.2


def test_what_comes_into_sight_is_void_and_mean():
    images, masks = joint.apply(*blocks(), draws(zoom=(0.5, 0.5)))
    void = masks == VOID
    assert void.float().mean() == pytest.approx(0.75, abs=0.05)
    assert (images.squeeze(1)[void] == 0).float().mean() > 0.9  # the rest is the blurred border


def test_enlarged_images_have_no_void():
    _, masks = joint.apply(*blocks(), draws(zoom=(1.0, 3.0)))
    assert not (masks == VOID).any()


def test_colour_leaves_masks_alone():
    images, masks = blocks()
    drawn = draws(colour=0.3)
    new_images, new_masks = joint.apply(images, masks, drawn)
    assert torch.equal(new_masks, masks)
    expected = images * drawn[:, 4].view(-1, 1, 1, 1) + drawn[:, 5].view(-1, 1, 1, 1)
    torch.testing.assert_close(new_images, expected, rtol=1e-4, atol=1e-4)


def test_batches_of_any_size_get_the_same():
    images, masks = blocks()
    drawn = draws(zoom=(0.5, 2.0), flip=True, colour=0.2)
    whole = joint.apply(images, masks, drawn)
    halves = [joint.apply(images[part], masks[part], drawn[part]) for part in (slice(0, 3), slice(3, 8))]
    torch.testing.assert_close(torch.cat([half[0] for half in halves]), whole[0])
    assert torch.equal(torch.cat([half[1] for half in halves]), whole[1])


def test_one_setting_does_not_move_another():
    alone, beside = draws(flip=True), draws(flip=True, zoom=(0.5, 2.0), colour=0.2)
    assert torch.equal(alone[:, 0].sign(), beside[:, 0].sign())


def crops(crop, count=8, **augment):
    images, masks = blocks(count)
    generator = torch.Generator().manual_seed(0)
    drawn = joint.draw(count, augment, generator, images.shape[2:], crop)
    return joint.apply(images, masks, drawn, crop)


@pytest.mark.parametrize("crop", [(16, 16), (32, 20), (7, 48), (32, 48)])
def test_a_crop_is_a_part_of_its_image(crop):
    images, masks = blocks()
    new_images, new_masks = crops(crop)
    assert new_masks.shape == (8, *crop)
    height, width = crop
    for image, mask, new_image, new_mask in zip(images, masks, new_images, new_masks, strict=True):
        places = [
            (row, column)
            for row in range(32 - height + 1)
            for column in range(48 - width + 1)
            if torch.equal(mask[row : row + height, column : column + width], new_mask)
        ]
        assert places
        parts = [image[:, row : row + height, column : column + width] for row, column in places]
        assert any(torch.allclose(part, new_image, atol=1e-4) for part in parts)


def test_crops_lie_all_over_the_image():
    images = torch.arange(100.0).expand(1, 1, 60, 100).repeat(400, 1, 1, 1)
    drawn = joint.draw(400, {}, torch.Generator().manual_seed(0), (60, 100), (30, 40))
    first = joint.apply(images, torch.zeros(400, 60, 100, dtype=torch.uint8), drawn, (30, 40))[0][:, 0, 0, 0]
    assert first.min() < 3
    assert first.max() > 57
    assert first.mean() == pytest.approx(30, abs=3)


def small_objects(count=400):
    """Images with one object of two by two pixels each, somewhere; the value of a pixel is its class."""
    masks = torch.zeros(count, 40, 60, dtype=torch.uint8)
    place = torch.rand(count, 2, generator=torch.Generator().manual_seed(3))
    for mask, (row, column) in zip(masks, (place * torch.tensor([39, 59])).int().tolist(), strict=True):
        mask[row : row + 2, column : column + 2] = 1
    return masks.float().unsqueeze(1), masks


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_crops_are_moved_over_the_foreground_as_often_as_asked(share):
    images, masks = small_objects()
    drawn = joint.draw(400, {"foreground": share}, torch.Generator().manual_seed(0), (40, 60), (10, 12))
    new_images, new_masks = joint.apply(images, masks, drawn, (10, 12))
    seen = (new_masks == 1).flatten(1).any(1).float().mean()
    by_chance = 0.08  # (11 x 13) / (40 x 60), and a little more near the border
    assert seen == pytest.approx(share + (1 - share) * by_chance, abs=0.04)
    assert not (new_masks == VOID).any()
    torch.testing.assert_close(new_images[:, 0], new_masks.float(), atol=1e-4, rtol=0)  # nothing is blurred
    if share == 1:
        where = (new_masks == 1).float().mean(0)
        assert where[2:-2, 2:-2].gt(0).float().mean() > 0.9  # not always in the centre


def test_without_foreground_the_crop_stays_where_it_was():
    images, masks = torch.rand(8, 1, 40, 60), torch.zeros(8, 40, 60, dtype=torch.uint8)
    masks[:, :5] = VOID  # void is no foreground
    made = [
        joint.apply(
            images,
            masks,
            joint.draw(8, {"foreground": share}, torch.Generator().manual_seed(0), (40, 60), (9, 9)),
            (9, 9),
        )
        for share in (0.0, 1.0)
    ]
    torch.testing.assert_close(made[0][0], made[1][0])
    assert torch.equal(made[0][1], made[1][1])


def test_a_zoomed_crop_shows_a_smaller_part():
    images, masks = crops((16, 16), zoom=(2.0, 2.0))
    assert images.shape == (8, 1, 16, 16)
    assert not (masks == VOID).any()
    assert max(len(mask.unique()) for mask in masks) <= 4  # 8 x 8 pixels of the image touch four blocks at most


@pytest.mark.parametrize(
    ("augment", "sentence"),
    [
        ({"shift": 2}, "Unknown augmentation shift"),
        ({"zoom": [0, 1]}, "zoom is"),
        ({"colour": 1.5}, "colour is"),
        ({"foreground": 2}, "foreground is"),
    ],
)
def test_wrong_settings_are_refused(augment, sentence):
    with pytest.raises(ValueError, match=sentence):
        joint.draw(1, augment, torch.Generator())
