import numpy as np
import pytest
import torch

from datasets.augment import apply, draw

KINDS = [
    {"shift": 2},
    {"flip": True},
    {"cutout": 3},
    {"cutout": 4, "flip": True},
    {"shift": 4, "flip": True, "cutout": 5},
]
DTYPES = [torch.uint8, torch.float32, torch.bfloat16]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count=50, channels=3, height=9, width=7, dtype=torch.uint8):
    return torch.randint(1, 256, (count, channels, height, width), generator=seeded(9)).to(dtype)


def one_by_one(images, draws):
    """The same, image by image and pixel by pixel, as a textbook would write it."""
    done = np.zeros_like(images)
    _, _, height, width = images.shape
    for n, image in enumerate(images):
        down, right = draws.shift[n].tolist() if draws.shift is not None else (draws.reach, draws.reach)
        for row in range(height):
            for column in range(width):
                # the place in the output, before mirroring, and where its pixel comes from
                place = width - 1 - column if draws.flip is not None and draws.flip[n] else column
                source = row + down - draws.reach, column + right - draws.reach
                if 0 <= source[0] < height and 0 <= source[1] < width:
                    done[n, :, row, place] = image[:, source[0], source[1]]
        if draws.hole is not None:
            top, left = (draws.hole[n] % torch.tensor([height, width]) - draws.side // 2).tolist()
            done[n, :, max(top, 0) : max(top + draws.side, 0), max(left, 0) : max(left + draws.side, 0)] = 0
    return done


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("augment", KINDS, ids=str)
def test_equals_the_same_done_image_by_image(augment, dtype):
    images = pictures(dtype=dtype)
    before = images.clone()
    draws = draw(len(images), augment, seeded())
    done = apply(images, draws)
    assert done.dtype == dtype
    assert done.shape == images.shape
    np.testing.assert_array_equal(done.float().numpy(), one_by_one(images.float().numpy(), draws))
    assert (done != images).any()
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    "augment", [{}, {"shift": 0, "flip": False, "cutout": 0}, {"shift": None, "flip": None}], ids=str
)
def test_nothing_drawn_changes_nothing(augment):
    images = pictures()
    generator = seeded()
    assert apply(images, draw(len(images), augment, generator)) is images
    assert torch.equal(generator.get_state(), seeded().get_state())


@pytest.mark.parametrize("augment", KINDS, ids=str)
def test_batches_may_be_cut_and_ordered_anyhow(augment):
    images = pictures()
    draws = draw(len(images), augment, seeded())
    whole = apply(images, draws)
    order = torch.randperm(len(images), generator=seeded(1))
    for size in (1, 7, 50):
        for chosen in order.split(size):
            assert torch.equal(apply(images[chosen], draws[chosen]), whole[chosen])
    assert torch.equal(apply(images[3:9], draws[3:9]), whole[3:9])


@pytest.mark.parametrize("augment", KINDS, ids=str)
def test_layout_in_memory_and_empty_batches_do_not_matter(augment):
    images = pictures()
    draws = draw(len(images), augment, seeded())
    other = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(apply(other, draws), apply(images, draws))
    assert apply(images[:0], draws[:0]).shape == (0, 3, 9, 7)


def test_the_generator_alone_decides():
    augment = KINDS[-1]
    torch.manual_seed(0)
    first = draw(20, augment, seeded(5))
    torch.manual_seed(1)
    second, other = draw(20, augment, seeded(5)), draw(20, augment, seeded(6))
    for field in ("shift", "flip", "hole"):
        assert torch.equal(getattr(first, field), getattr(second, field))
        assert not torch.equal(getattr(first, field), getattr(other, field))


def test_every_shift_both_sides_and_every_centre_are_equally_likely():
    draws = draw(90_000, {"shift": 4, "flip": True, "cutout": 1}, seeded())
    pairs = (draws.shift[:, 0] * 9 + draws.shift[:, 1]).bincount(minlength=81)
    # 90,000 / 81 = 1,111 each, deviation 33; 165 is five of them
    assert (pairs - 90_000 / 81).abs().max() < 165
    assert abs(draws.flip.float().mean() - 0.5) < 5 * 0.5 / 300
    centres = (draws.hole % 10).flatten().bincount(minlength=10)
    assert (centres - 18_000).abs().max() < 5 * 127


@pytest.mark.parametrize("augment", KINDS, ids=str)
def test_images_stay_on_their_device(augment):
    images = pictures().to("meta")
    assert apply(images, draw(len(images), augment, seeded()).to("meta")).device.type == "meta"


@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="no GPU to compare with the CPU; meta tensors stand for it in the test before",
)
@pytest.mark.parametrize("augment", KINDS, ids=str)
def test_a_gpu_gives_the_same_images(augment):
    images = pictures()
    draws = draw(len(images), augment, seeded())
    assert torch.equal(apply(images.cuda(), draws.to("cuda")).cpu(), apply(images, draws))


@pytest.mark.parametrize(
    ("augment", "sentence"),
    [
        ({"shift": 1, "rotate": 5}, "Unknown augmentation rotate; allowed are shift, flip, cutout."),
        ({"shift": -1}, "shift is -1 and cutout is 0 pixels; neither may be negative."),
        ({"cutout": -3}, "shift is 0 and cutout is -3 pixels; neither may be negative."),
    ],
)
def test_what_does_not_exist_is_said_in_one_sentence(augment, sentence):
    with pytest.raises(ValueError, match=r"\w") as caught:
        draw(3, augment, seeded())
    assert str(caught.value) == sentence
