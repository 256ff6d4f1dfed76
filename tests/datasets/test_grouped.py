"""Whole groups are dealt out, in nearly the shares that were asked for."""

import numpy as np
import pytest

from datasets.grouped import deal


def drawn(count, groups, classes, seed=0):
    random = np.random.PCG64(seed).random_raw(2 * count)
    return (random[:count] % groups).astype(np.int64), (random[count:] % classes).astype(np.int64)


@pytest.mark.parametrize(("count", "groups", "near"), [(600, 60, 0.03), (300, 20, 0.06), (90, 6, 0.12)])
def test_groups_stay_whole_and_shares_are_met(count, groups, near):
    group, label = drawn(count, groups, 3)
    for seed in range(3):
        part = deal(group, label, (0.6, 0.2, 0.2), seed)
        assert all(len(set(part[group == number])) == 1 for number in range(groups))
        for number, share in enumerate((0.6, 0.2, 0.2)):
            assert abs((part == number).mean() - share) <= near
            for of_class in range(3):
                assert abs((part[label == of_class] == number).mean() - share) <= 2 * near


def test_the_seed_chooses_and_nothing_else():
    group, label = drawn(400, 50, 2)
    first = deal(group, label, (0.8, 0.2), 1)
    assert (first == deal(group, label, (0.8, 0.2), 1)).all()
    assert (first != deal(group, label, (0.8, 0.2), 2)).any()


def test_groups_of_very_different_sizes_are_met_too():
    """One patient with half of the images is trained on; the test takes small ones."""
    group = np.concatenate([np.zeros(100, dtype=np.int64), np.repeat(np.arange(1, 21), 5)])
    part = deal(group, np.arange(200) % 2, (0.75, 0.25), 0)
    assert set(part[:100]) == {0}
    assert (part == 1).sum() == pytest.approx(50, abs=5)


def test_a_class_in_one_group_alone_is_trained_on():
    group = np.repeat(np.arange(10), 10)
    label = (group == 3).astype(np.int64)
    assert all((deal(group, label, (0.7, 0.3), seed)[group == 3] == 0).all() for seed in range(5))
