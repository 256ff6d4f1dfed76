import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import datasets
from datasets.sources.digit_pair import digit_pair
from datasets.sources.digits import digits
from datasets.splits import Images, Splits, numbered, split, stratified_order

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"train_size": None, "valid_size": 237, "test_size": None, "split_seed": 0}


def indices(part):
    return set(part.index.tolist())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(0, 2**40))
def test_every_beginning_of_the_order_holds_the_same_share_of_every_class(labels, seed):
    targets = np.array(labels)
    order = stratified_order(targets, seed)
    assert sorted(order) == list(range(len(targets)))
    counts = np.bincount(targets)
    present = counts > 0
    for k in range(1, len(targets) + 1):
        taken = np.bincount(targets[order[:k]], minlength=len(counts))
        # taken = share * counts up to half an item, for one share common to all classes
        least = ((taken - 0.5) / np.maximum(counts, 1))[present].max()
        most = ((taken + 0.5) / np.maximum(counts, 1))[present].min()
        assert least <= most + 1e-12


def test_seeds_choose_different_orders_and_the_global_stream_has_no_say():
    targets = np.arange(100) % 10
    np.random.seed(1)
    torch.manual_seed(1)
    first = stratified_order(targets, 3)
    np.random.seed(2)
    torch.manual_seed(2)
    np.testing.assert_array_equal(first, stratified_order(targets, 3))
    assert (first != stratified_order(targets, 4)).any()


def test_the_order_stays_what_it_was():
    """Recorded once: another order would silently change every split ever published."""
    assert stratified_order(np.arange(12) % 3, 0).tolist() == [11, 3, 1, 2, 6, 7, 8, 0, 4, 10, 5, 9]
    assert digits(**SIZES).checksum == "a32e6439716b6724"


def test_splits_are_disjoint_stratified_and_of_the_asked_sizes():
    splits = digits(**{**SIZES, "train_size": 600, "valid_size": 200, "test_size": 100})
    parts = splits.train, splits.valid, splits.test
    assert [len(part) for part in parts] == [600, 200, 100]
    assert len(indices(splits.train) | indices(splits.valid) | indices(splits.test)) == 900
    for part in parts:
        assert part.targets.bincount().float().std() < 0.02 * len(part)
        assert part.index.tolist() == sorted(part.index.tolist())


def test_null_takes_everything_that_is_left():
    splits = digits(**SIZES)
    assert [len(part) for part in (splits.train, splits.valid, splits.test)] == [1200, 237, 360]


def test_smaller_sets_are_parts_of_larger_ones_and_move_nothing_else():
    large, small = (digits(**{**SIZES, "train_size": n, "test_size": m}) for n, m in ((800, 300), (100, 50)))
    assert indices(small.train) < indices(large.train)
    assert indices(small.test) < indices(large.test)
    assert indices(small.valid) == indices(large.valid)
    more_valid = digits(**{**SIZES, "train_size": 800, "valid_size": 400})
    assert indices(more_valid.train) == indices(large.train)
    assert indices(large.valid) < indices(more_valid.valid)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"train_size": 1201}, "train_size is 1201, but digits allows 10 (one image per class) to 1200 here."),
        ({"train_size": 0}, "train_size is 0, but digits allows 10 (one image per class) to 1200 here."),
        ({"valid_size": 1430}, "valid_size is 1430, but digits allows 10 (one image per class) to 1427 here."),
        ({"valid_size": -1}, "valid_size is -1, but digits allows 10 (one image per class) to 1427 here."),
        ({"test_size": 361}, "test_size is 361, but digits allows 10 (one image per class) to 360 here."),
        ({"split_seed": -1}, "split_seed is -1; it must not be negative."),
    ],
)
def test_what_cannot_be_had_is_said_in_one_sentence(change, sentence):
    with pytest.raises(ValueError, match=r"it must not be negative|allows") as caught:
        digits(**{**SIZES, **change})
    assert str(caught.value) == sentence


def test_checksum_tells_pixels_indices_labels_and_membership_apart():
    def checksum(train, valid, relabel=0, repaint=0):
        targets = torch.tensor([0, 1, 0, 1, 0, 1])
        everything = numbered(torch.zeros(6, 1, 2, 2, dtype=torch.uint8), targets)
        changed = Images(everything.images + repaint, targets + relabel, everything.index)
        return Splits(
            changed.take(np.array(train)), everything.take(np.array(valid)), everything, ("a", "b", "c")
        ).checksum

    found = {checksum([0, 1, 2], [3]), checksum([0, 1], [2, 3]), checksum([0, 1, 3], [2]), checksum([0, 1, 2], [3], 1)}
    found.add(checksum([0, 1, 2], [3], repaint=1))
    assert len(found) == 5
    assert checksum([0, 1, 2], [3]) == checksum([2, 1, 0], [3])
    assert all(len(text) == 16 for text in found)


def test_mean_and_deviation_are_those_of_the_training_pixels():
    images = torch.randint(0, 256, (40, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    everything = numbered(images, torch.arange(40) % 2)
    splits = split(
        "noise", everything, everything, ("a", "b"), train_size=20, valid_size=20, test_size=None, split_seed=0
    )
    pixels = splits.train.images.double() / 255
    torch.testing.assert_close(torch.tensor(splits.mean).double(), pixels.mean((0, 2, 3)))
    torch.testing.assert_close(torch.tensor(splits.std).double(), pixels.std((0, 2, 3), correction=0))


def test_digits_are_whole_scaled_and_keep_their_test_images_under_every_seed():
    from sklearn.datasets import load_digits

    grey, labels = load_digits(return_X_y=True)
    first, second = digits(**SIZES), digits(**{**SIZES, "split_seed": 5})
    assert indices(first.test) == indices(second.test)
    assert indices(first.valid) != indices(second.valid)
    assert len(indices(first.train) | indices(first.valid) | indices(first.test)) == 1797
    for part in (first.train, first.valid, first.test):
        rows = part.index.numpy()
        np.testing.assert_allclose(part.images.numpy().reshape(-1, 64), grey[rows] * 255 / 16, atol=0.5)
        np.testing.assert_array_equal(part.targets.numpy(), labels[rows])
    assert first.train.images.max() == 255
    assert first.classes == tuple("0123456789")


def test_a_pair_of_digits_is_all_there_is_of_two():
    from sklearn.datasets import load_digits

    grey, labels = load_digits(return_X_y=True)
    splits = digit_pair(digits=[8, 3], train_size=None, valid_size=80, test_size=None, split_seed=0)
    rows = np.flatnonzero(np.isin(labels, (3, 8)))
    assert splits.classes == ("8", "3")
    assert sorted(index for part in splits.parts.values() for index in part.index.tolist()) == list(range(len(rows)))
    for part in splits.parts.values():
        shown = rows[part.index.numpy()]
        np.testing.assert_allclose(part.images.numpy().reshape(-1, 64), grey[shown] * 255 / 16, atol=0.5)
        np.testing.assert_array_equal(part.targets.numpy(), labels[shown] == 3)
    for wrong in ([3], [3, 3], [3, 10], [1, 2, 3]):
        with pytest.raises(ValueError, match=r"dataset\.digits is \[.*\]; it must be two different digits"):
            digit_pair(digits=wrong, train_size=None, valid_size=80, test_size=None, split_seed=0)


def test_the_package_is_ours_and_light():
    assert Path(datasets.__file__).is_relative_to(ROOT)
    code = "import datasets, sys; sys.exit(bool({'torch', 'numpy', 'torchvision'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
