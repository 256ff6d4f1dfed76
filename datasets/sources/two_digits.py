"""Numbers of two handwritten digits, made of those that come with scikit-learn: 100 classes, no download."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from datasets.by_class import ClassSplits, split_by_class
from datasets.sources.digits import TEST_SEED, TEST_SIZE
from datasets.splits import stratified_order

NUMBERS = 100


def two_digits(
    root: Path | None = None, *, download: bool = False, classes: Sequence[int], images_per_class: int, split_seed: int
) -> ClassSplits:
    """Numbers 00 to 99 in 8x16 pixels with one channel, some trained on, some validated and some tested.

    Which numbers are in which split is drawn. A number is two images side by side, drawn from 1,437 for training and
    validation and from the other 360 for the test.

    Args:
        root: Not used; the images are part of scikit-learn. Every data set is called alike.
        download: Not used.
        classes: Number of training, validation and test classes.
        images_per_class: Images of each number, two or more.
        split_seed: Chooses the numbers of each split, and the images; at least 0.

    Raises:
        ValueError: There are not so many classes, or a setting is out of its range.

    Source:
        Oh et al., Modeling Uncertainty with Hedged Instance Embedding, ICLR 2019, arXiv:1810.00319, section 4.1, who
        do the same with MNIST.
    """
    if images_per_class < 2 or split_seed < 0:
        raise ValueError(
            f"dataset.images_per_class is {images_per_class} and dataset.split_seed is {split_seed}; they must be at "
            "least 2 and 0."
        )
    train, valid, test = classes
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    # 17 grey levels, 0..16, spread over 0..255
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    order = stratified_order(labels, TEST_SEED)
    pools = [[part[labels[part] == digit] for digit in range(10)] for part in (order[TEST_SIZE:], order[:TEST_SIZE])]
    generator = np.random.PCG64(split_seed)
    numbers = np.argsort(generator.random_raw(NUMBERS), kind="stable")
    words = generator.random_raw(NUMBERS * images_per_class * 2).reshape(NUMBERS, images_per_class, 2)
    made = []
    for place, number in enumerate(numbers.tolist()):
        pool = pools[place >= NUMBERS - test]
        halves = [pool[digit][words[number, :, at] % len(pool[digit])] for at, digit in enumerate(divmod(number, 10))]
        made.append(np.concatenate([images[half] for half in halves], 2))
    return split_by_class(
        "two_digits",
        torch.from_numpy(np.concatenate(made)).unsqueeze(1),
        torch.arange(NUMBERS).repeat_interleave(images_per_class),
        [f"{number:02}" for number in numbers.tolist()],
        (train, valid, test),
    )
