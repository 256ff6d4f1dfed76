"""Wrong labels, rare classes and few images: as many as asked for, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets import stress
from datasets.sources.digits import digits
from datasets.sources.scenes import scenes

CALM = {"share": 1.0, "imbalance_ratio": 1, "imbalance": "tail", "label_noise": 0.0, "noise": "symmetric", "seed": 0}


@pytest.fixture(scope="module")
def splits():
    return digits(train_size=None, valid_size=237, test_size=None, split_seed=0)


def train(splits, **changes):
    return stress.applied(splits, **{**CALM, **changes}).train


def truth(splits, part):
    return splits.train.targets[torch.searchsorted(splits.train.index, part.index)]


def test_without_stress_nothing_changes(splits):
    assert stress.applied(splits, **CALM).checksum == splits.checksum


@pytest.mark.parametrize("profile", stress.PROFILES)
@pytest.mark.parametrize("ratio", [2, 10, 50])
def test_classes_are_as_rare_as_asked(splits, profile, ratio):
    counts = torch.bincount(train(splits, imbalance_ratio=ratio, imbalance=profile).targets, minlength=10)
    most = torch.bincount(splits.train.targets).max()
    assert counts[-1] == max(1, round(float(most) / ratio))
    if profile == "step":
        assert (counts[5:] == counts[-1]).all()
    else:
        assert (counts[1:] <= counts[:-1] + 3).all()  # classes of digits differ by a few images
    assert counts[0] == torch.bincount(splits.train.targets)[0]


@pytest.mark.parametrize("noise", stress.NOISES)
@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_as_many_labels_are_wrong_as_asked(splits, noise, share):
    part = train(splits, label_noise=share, noise=noise)
    wrong = part.targets != truth(splits, part)
    assert wrong.float().mean() == pytest.approx(share, abs=3 * (share * (1 - share) / len(part)) ** 0.5)
    away = (part.targets - truth(splits, part)) % 10
    assert set(away[wrong].tolist()) == ({1} if noise == "next" else set(range(1, 10)))
    assert torch.equal(part.images, splits.train.images)


def test_a_stronger_stress_changes_what_a_weaker_one_changed(splits):
    weak, strong = (train(splits, label_noise=share) for share in (0.2, 0.5))
    assert torch.equal(
        weak.targets[weak.targets != splits.train.targets], strong.targets[weak.targets != splits.train.targets]
    )
    for name, (more, less) in {"imbalance_ratio": (5, 20), "share": (0.5, 0.2)}.items():
        large, small = (train(splits, **{name: value}) for value in (more, less))
        assert set(small.index.tolist()) <= set(large.index.tolist())
    few, all_of = train(splits, label_noise=0.3, imbalance_ratio=10), train(splits, label_noise=0.3)
    place = torch.searchsorted(all_of.index, few.index)
    assert torch.equal(few.targets, all_of.targets[place])


def test_an_image_is_mislabelled_alike_whatever_comes_after_it(splits):
    whole = train(splits, label_noise=0.5)
    begun = replace(splits, train=splits.train.take(np.arange(300)))
    assert torch.equal(train(begun, label_noise=0.5).targets, whole.targets[:300])


def test_few_images_keep_every_class(splits):
    part = train(splits, share=0.001)
    assert sorted(part.targets.tolist()) == list(range(10))
    half = torch.bincount(train(splits, share=0.5).targets)
    assert np.abs(half.numpy() - 60).max() <= 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"share": 0}, "stress.share is 0; it must be above 0"),
        ({"imbalance_ratio": 0.5}, "stress.imbalance_ratio is 0.5; it must be 1 or more"),
        ({"label_noise": 1}, "stress.label_noise is 1"),
        ({"imbalance": "head"}, "stress.imbalance is head; it must be tail or step"),
        ({"noise": "none"}, "stress.noise is none; it must be symmetric or next"),
    ],
)
def test_what_cannot_be_is_refused(splits, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        train(splits, **changes)


def test_masks_have_no_stress():
    given = scenes(size=[16, 16], digits=[0, 1], train_size=2, valid_size=2, test_size=2, split_seed=0)
    with pytest.raises(ValueError, match="this data set has masks"):
        train(given, label_noise=0.1)
