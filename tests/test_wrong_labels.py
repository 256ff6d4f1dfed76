"""How many labels look wrong, in data whose labels are right, or were made wrong on purpose."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from datasets.labelled_tables import LabelledRows, LabelledTable
from datasets.splits import Images, Splits
from harness.look import wrong_labels


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    return found.data, found.target


def made_wrong(labels, rate, kind):
    """Return labels of which about a share is wrong: any other class, or always the next one."""
    stream = np.random.default_rng(3)
    wrong = stream.random(len(labels)) < rate
    shift = stream.integers(1, 10, len(labels)) if kind == "any" else np.ones(len(labels), int)
    return np.where(wrong, (labels + shift) % 10, labels)


@pytest.mark.parametrize(("rate", "kind"), [(0, "any"), (0.1, "any"), (0.3, "any"), (0.3, "next")])
def test_the_share_of_wrong_labels_is_found(digits, rate, kind):
    features, labels = digits
    given = made_wrong(labels, rate, kind)
    found = wrong_labels.estimated(features, given)
    truth = (given != labels).mean()
    assert found.possible
    assert found.share == pytest.approx(truth, abs=0.06)
    assert found.low <= truth <= found.high
    assert found.high - found.low < 0.2


def test_of_features_that_do_not_tell_classes_apart_it_says_so(digits):
    _, labels = digits
    found = wrong_labels.estimated(np.random.default_rng(0).normal(size=(len(labels), 10)), labels)
    assert not found.possible
    assert found.accuracy < 0.3


def test_the_commonest_mistake_is_named(digits):
    features, labels = digits
    given = labels.copy()
    given[np.flatnonzero(labels == 7)[:80]] = 2  # sevens called twos
    assert wrong_labels.estimated(features, given).pair == (2, 7)


def test_few_items_have_no_estimate(digits):
    features, labels = digits
    assert wrong_labels.estimated(features[:199], labels[:199]) is None
    assert wrong_labels.estimated(features, np.zeros_like(labels)) is None
    rare = np.where(np.arange(len(labels)) < 15, 10, labels)  # a class of fewer items than folds can do with
    assert wrong_labels.estimated(features, rare).share < 0.03


def images_of(features, labels):
    pixels = torch.from_numpy(features.reshape(-1, 1, 8, 8) * 15).to(torch.uint8)
    part = Images(pixels, torch.from_numpy(labels).long(), torch.arange(len(labels)))
    few = part.take(np.arange(20))
    return Splits(part, few, few, tuple(f"digit {number}" for number in range(10)))


def test_images_and_tables_get_a_sentence_and_what_follows_from_it(digits):
    features, labels = digits
    facts, none = wrong_labels.told(images_of(features, labels))
    assert not none
    assert facts[0].startswith("About 0 % of training labels look wrong [0, ")
    given = made_wrong(labels, 0.3, "next")
    _, (warning,) = wrong_labels.told(images_of(features, given))
    assert "symmetric_cross_entropy" in warning
    part = LabelledRows(torch.from_numpy(features).float(), torch.from_numpy(given), torch.arange(len(given)))
    table = LabelledTable(part, part, part, tuple(map(str, range(64))), tuple(map(str, range(10))))
    _, (warning,) = wrong_labels.told(table)
    assert "of training labels look wrong [" in warning


def test_masks_and_images_with_several_labels_have_none(digits):
    features, labels = digits
    splits = images_of(features, labels)
    masks = torch.zeros(len(labels), 8, 8, dtype=torch.uint8)
    part = Images(splits.train.images, masks, splits.train.index)
    assert wrong_labels.told(Splits(part, part, part, ("a", "b"))) == ([], [])
