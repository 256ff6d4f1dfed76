"""Every way in which data come with classes refuses a class that there is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets.boxes import BoxSplits
from datasets.by_class import ClassSplits
from datasets.labelled_tables import LabelledRows, LabelledTable
from datasets.splits import VOID, Images, Splits, numbered

LABELS = [0, 1, 2, 1]


def images(targets):
    return numbered(np.zeros((len(targets), 1, 2, 2), np.uint8), targets)


def masks(label):
    targets = torch.tensor([[[0, 2], [VOID, label]]], dtype=torch.uint8)
    return Images(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), targets, torch.arange(1))


def boxes(label, ignored=0):
    targets = torch.tensor([[[0.0, 0, 2, 2, label, ignored], [0, 0, 0, 0, -1, 0]]])
    return Images(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), targets, torch.arange(1))


def rows(targets):
    return LabelledRows(torch.zeros(len(targets), 2), torch.tensor(targets), torch.arange(len(targets)))


def three(make, right, wrong, place):
    return [make(wrong if place == part else right) for part in ("train", "valid", "test")]


NAMES = ("a", "b", "c")


@pytest.mark.parametrize("place", ["train", "valid", "test"])
@pytest.mark.parametrize("label", [-1, 3, 255])
def test_images_and_rows_of_a_class_that_there_is_not_are_refused(label, place):
    wrong = [*LABELS[:3], label]
    with pytest.raises(ValueError, match=rf"^the {place} targets hold the class {label}; allowed are 0 to 2: .*\.$"):
        Splits(*three(images, LABELS, wrong, place), NAMES)
    with pytest.raises(ValueError, match=rf"^the {place} targets hold the class {label}; allowed are 0 to 2: .*\.$"):
        LabelledTable(*three(rows, LABELS, wrong, place), ("x", "y"), NAMES)


@pytest.mark.parametrize("place", ["train", "valid", "test"])
def test_pixels_and_boxes_of_a_class_that_there_is_not_are_refused(place):
    assert len(Splits(*three(masks, 1, 1, place), NAMES).train) == 1
    with pytest.raises(
        ValueError, match=rf"^the {place} targets hold the class 3; allowed are 0 to 2, and 255 for void"
    ):
        Splits(*three(masks, 1, 3, place), NAMES)
    assert len(BoxSplits(*three(boxes, 1, 1, place), NAMES).train) == 1
    with pytest.raises(ValueError, match=rf"^the {place} targets hold the class 3; allowed are 0 to 2: "):
        BoxSplits(*three(boxes, 1, 3, place), NAMES)
    right = boxes(1)
    unknown = {name: boxes(1, 3) if name == place else right for name in ("train", "valid", "test")}
    with pytest.raises(ValueError, match=rf"^the sixth column of the {place} boxes must be 0, 1 or 2"):
        BoxSplits(**unknown, classes=NAMES)


def test_classes_of_training_are_none_of_validation_and_test():
    right = ClassSplits(images(LABELS), images([3, 4]), images([5, 6]), NAMES)
    with pytest.raises(ValueError, match=r"^the train targets hold the class 3; allowed are 0 to 2"):
        replace(right, train=images([0, 3]))
    with pytest.raises(ValueError, match=r"^the test targets hold the class 2, but 0 to 2 are the training classes"):
        replace(right, test=images([2, 5]))
