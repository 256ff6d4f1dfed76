"""Wrong labels, rare classes and few images: as many as asked for, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets import stress
from datasets.sources.diabetes import diabetes
from datasets.sources.digits import digits
from datasets.sources.scenes import scenes

SETTINGS = {
    "label_noise": {"rate": 0.4, "kind": "symmetric", "seed": 0},
    "imbalance": {"ratio": 50, "profile": "tail", "seed": 0},
    "few": {"share": 0.1, "seed": 0},
}


@pytest.fixture(scope="module")
def splits():
    return digits(train_size=None, valid_size=237, test_size=None, split_seed=0)


def stressed(splits, name, **changes):
    return getattr(stress, name)(splits, **{**SETTINGS[name], **changes})


def train(splits, name, **changes):
    return stressed(splits, name, **changes).train


def truth(splits, part):
    return splits.train.targets[torch.searchsorted(splits.train.index, part.index)]


def test_without_stress_nothing_changes(splits):
    for name, size in {"label_noise": {"rate": 0}, "imbalance": {"ratio": 1}, "few": {"share": 1}}.items():
        assert stressed(splits, name, **size).checksum == splits.checksum
        assert stressed(splits, name).checksum != splits.checksum


@pytest.mark.parametrize("profile", stress.PROFILES)
@pytest.mark.parametrize("ratio", [2, 10, 50])
def test_classes_are_as_rare_as_asked(splits, profile, ratio):
    counts = torch.bincount(train(splits, "imbalance", ratio=ratio, profile=profile).targets, minlength=10)
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
    part = train(splits, "label_noise", rate=share, kind=noise)
    wrong = part.targets != truth(splits, part)
    assert wrong.float().mean() == pytest.approx(share, abs=3 * (share * (1 - share) / len(part)) ** 0.5)
    away = (part.targets - truth(splits, part)) % 10
    assert set(away[wrong].tolist()) == ({1} if noise == "next" else set(range(1, 10)))
    assert torch.equal(part.images, splits.train.images)


def test_a_stronger_stress_changes_what_a_weaker_one_changed(splits):
    weak, strong = (train(splits, "label_noise", rate=share) for share in (0.2, 0.5))
    assert torch.equal(
        weak.targets[weak.targets != splits.train.targets], strong.targets[weak.targets != splits.train.targets]
    )
    for name, size, (more, less) in (("imbalance", "ratio", (5, 20)), ("few", "share", (0.5, 0.2))):
        large, small = (train(splits, name, **{size: value}) for value in (more, less))
        assert set(small.index.tolist()) <= set(large.index.tolist())
    few, all_of = train(stressed(splits, "imbalance", ratio=10), "label_noise"), train(splits, "label_noise")
    place = torch.searchsorted(all_of.index, few.index)
    assert torch.equal(few.targets, all_of.targets[place])


def test_an_image_is_mislabelled_alike_whatever_comes_after_it(splits):
    whole = train(splits, "label_noise", rate=0.5)
    begun = replace(splits, train=splits.train.take(np.arange(300)))
    assert torch.equal(train(begun, "label_noise", rate=0.5).targets, whole.targets[:300])


def test_few_images_keep_every_class(splits):
    part = train(splits, "few", share=0.001)
    assert sorted(part.targets.tolist()) == list(range(10))
    half = torch.bincount(train(splits, "few", share=0.5).targets)
    assert np.abs(half.numpy() - 60).max() <= 3


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("few", {"share": 0}, "stress.share is 0; it must be above 0"),
        ("few", {"share": 1.5}, "stress.share is 1.5; it must be above 0 and at most 1"),
        ("imbalance", {"ratio": 0.5}, "stress.ratio is 0.5; it must be 1 or more"),
        ("imbalance", {"profile": "head"}, "stress.profile is head; it must be tail or step"),
        ("label_noise", {"rate": 1}, "stress.rate is 1; it must be at least 0 and below 1"),
        ("label_noise", {"kind": "none"}, "stress.kind is none; it must be symmetric or next"),
    ],
)
def test_what_cannot_be_is_refused(splits, name, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        train(splits, name, **changes)


@pytest.mark.parametrize("name", SETTINGS)
def test_masks_and_numbers_have_no_stress(name):
    given = scenes(size=[16, 16], digits=[0, 1], train_size=2, valid_size=2, test_size=2, split_seed=0)
    table = diabetes(train_size=None, valid_size=110, test_size=110, split_seed=0, outliers=0.0, outlier_size=10.0)
    for each in (given, table):
        with pytest.raises(ValueError, match="stress changes items with a class each, which these data are not"):
            train(each, name)
