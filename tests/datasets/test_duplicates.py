"""Copies of images are found by their bytes and by their look, and what only resembles each other is none."""

import hashlib

import numpy as np
import pytest
from PIL import Image, ImageFilter

from datasets import duplicates


def photograph(number):
    """Return a smooth random picture, 48 x 64, with as much structure as photographs have."""
    values = np.random.PCG64(number).random_raw(8 * 6 * 3).astype(np.uint8).reshape(6, 8, 3)
    return Image.fromarray(values).resize((64, 48), Image.Resampling.BICUBIC)


def sets(images):
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    return duplicates.sets(digests, [duplicates.look(image.convert("RGB")) for image in images]).tolist()


def compressed(image, tmp_path):
    image.save(tmp_path / "a.jpg", quality=40)
    return Image.open(tmp_path / "a.jpg")


def test_nearly_the_same_pictures_are_one_set_and_others_are_not(tmp_path):
    first, second = photograph(0), photograph(1)
    copies = [
        first.copy(),
        compressed(first, tmp_path),
        first.resize((200, 150)),
        first.resize((24, 18), Image.Resampling.BOX),
        first.point(lambda value: value * 0.8 + 20),
        first.filter(ImageFilter.GaussianBlur(1)),
    ]
    others = [photograph(number) for number in range(2, 40)]
    found = sets([first, second, *copies, *others])
    assert [number == found[0] for number in found] == [True, False, *[True] * len(copies), *[False] * len(others)]
    assert len(set(found)) == 2 + len(others)


def test_plain_pictures_are_copies_only_byte_by_byte():
    plain = [Image.new("RGB", (20, 20), (shade, shade, shade)) for shade in (10, 11, 200, 10)]
    found = sets(plain)
    assert found[0] == found[3]
    assert len(set(found)) == 3


def test_every_pair_is_found_among_many():
    """As many as do not fit into one block of comparisons, each with a copy of another size far behind it."""
    images = [photograph(number) for number in range(3 * duplicates.ROWS)]
    found = np.array(sets([*images, *(image.resize((40, 30)) for image in images)]))
    assert (found[: len(images)] == found[len(images) :]).all()
    assert len(set(found)) == len(images)


@pytest.mark.parametrize("count", [0, 1])
def test_few_images_have_no_copies(count):
    assert sets([photograph(0)] * count) == [0] * count
