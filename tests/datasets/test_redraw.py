"""Splits by seed: the same items and sizes, other parts for every seed, equal parts for every loss."""

import numpy as np
import pytest
import torch

from datasets.decoded import in_memory
from datasets.redraw import PARTS, combined, redrawn
from datasets.sources.breast_cancer import breast_cancer
from datasets.sources.crowded_scenes import crowded_scenes
from datasets.sources.diabetes import diabetes
from datasets.sources.digits import digits
from datasets.sources.folder import folder
from datasets.sources.images import images
from datasets.sources.labelled_table import labelled_table
from datasets.sources.scenes import scenes
from datasets.sources.table import table
from datasets.sources.two_digits import two_digits
from harness import compose
from harness.errors import UsageError
from harness.feeds import splits_for
from harness.tasks import Setup

SMALL = {"train_size": 60, "valid_size": 20, "test_size": 30, "split_seed": 0}


def written(root):
    """Write a folder of images with masks, one of images by class, and two tables."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(110):
        for home, content in (("mine/images", rng.integers(0, 256, (8, 8, 3))), ("mine/masks", np.eye(8))):
            (root / home).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content.astype(np.uint8)).save(root / home / f"{number:03}.png")
        part = root / "kinds" / ("train" if number < 80 else "test") / "ab"[number % 2]
        part.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8)).save(part / f"{number:03}.png")
    rows = [f"{x:.6f},{2 * x:.6f},{'ab'[number % 2]}" for number, x in enumerate(rng.normal(size=110))]
    (root / "words.csv").write_text("\n".join(["x,y,kind", *rows]))
    (root / "numbers.csv").write_text("\n".join(["x,y", *(row.rpartition(",")[0] for row in rows)]))
    return root


def of(name, **changed):
    """Return the settings of a data set as its file has them, apart from these."""
    return {key: value for key, value in compose.option("dataset", name).items() if key not in APART} | SMALL | changed


APART = ("_target_", "augment", "split")
GROSS = {"outliers": 0.0, "outlier_size": 10.0}
MADE = {
    "digits": lambda root: digits(**SMALL),
    "scenes": lambda root: scenes(size=[16, 16], digits=[0, 1], **SMALL),
    "crowded_scenes": lambda root: crowded_scenes(
        size=[32, 32], digits=[0, 1], objects=[1, 2], sides=[8, 12], overlap=0.2, **SMALL
    ),
    "breast_cancer": lambda root: breast_cancer(**SMALL),
    "diabetes": lambda root: diabetes(**SMALL, **GROSS),
    "table": lambda root: table(root, **of("table", path="numbers.csv", target="y")),
    "labelled_table": lambda root: labelled_table(root, **of("labelled_table", path="words.csv", target="kind")),
    "images": lambda root: images(root, **of("images", path="kinds", channels=1)),
    "folder": lambda root: folder(root, **of("folder", path="mine", size=[8, 8])),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = written(tmp_path_factory.mktemp("data"))
    return {name: make(root) for name, make in MADE.items()}


def contents(splits):
    """Return what every item is, in the order of the pool: its arrays as bytes, by index where there is one."""
    found = {}
    for name in PARTS:
        part = getattr(splits, name)
        arrays = [value for key, value in vars(part).items() if key in ("images", "features", "targets", "values")]
        arrays = [np.asarray(in_memory(each) if hasattr(each, "read") else each) for each in arrays]
        found |= {
            int(place): tuple(each[row].tobytes() for each in arrays) for row, place in enumerate(part.index.tolist())
        }
    return found


@pytest.mark.parametrize("name", MADE)
def test_parts_keep_their_sizes_share_nothing_and_hold_all_items_under_their_number_in_the_pool(made, name):
    given = made[name]
    first, second, again = redrawn(given, 1), redrawn(given, 2), redrawn(given, 1)
    assert [len(getattr(first, part)) for part in PARTS] == [len(getattr(given, part)) for part in PARTS]
    places = [set(getattr(first, part).index.tolist()) for part in PARTS]
    assert set.union(*places) == set(range(sum(map(len, places))))
    assert first.checksum == again.checksum != second.checksum
    assert first.test.index.tolist() != second.test.index.tolist()
    assert contents(first) == contents(second)
    before = [item for part in PARTS for item in contents(_only(given, part)).values()]
    assert sorted(before) == sorted(contents(first).values())
    assert first.made_for == given.made_for
    assert first.test.index.tolist() == sorted(first.test.index.tolist())


def _only(splits, name):
    return type("One", (), {part: getattr(splits, name) for part in PARTS})


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "labelled_table", "images"])
def test_parts_are_stratified(made, name):
    splits = redrawn(made[name], 5)
    parts = [getattr(splits, part).targets for part in PARTS]
    whole = torch.bincount(torch.cat(parts)).double()
    for targets in parts:
        expected = whole / whole.sum() * len(targets)
        assert (torch.bincount(targets, minlength=len(whole)) - expected).abs().max() <= 2


def test_where_parts_share_no_class_classes_are_drawn():
    given = two_digits(classes=[60, 10, 30], images_per_class=4, split_seed=0)
    first, second = redrawn(given, 1), redrawn(given, 2)
    assert len(set(first.classes) | set(first.unseen["valid"]) | set(first.unseen["test"])) == 100
    assert [len(first.classes), *map(len, first.unseen.values())] == [60, 10, 30]
    assert set(first.unseen["test"]) != set(second.unseen["test"]) != set(given.unseen["test"])
    labels = [getattr(first, part).targets.unique().tolist() for part in PARTS]
    assert labels == [list(range(60)), list(range(60, 70)), list(range(70, 100))]
    images_of = {}
    for splits in (given, first, second):
        named = [*splits.classes, *splits.unseen["valid"], *splits.unseen["test"]]
        for part in PARTS:
            for image, target in zip(getattr(splits, part).images, getattr(splits, part).targets.tolist(), strict=True):
                images_of.setdefault(named[target], set()).add(image.numpy().tobytes())
    assert all(len(found) <= 4 for found in images_of.values())  # a number keeps its images


def test_gross_errors_stay_in_training():
    given = diabetes(**SMALL, outliers=0.2, outlier_size=10.0)
    clean = diabetes(**{**SMALL, "train_size": None, "valid_size": 100, "test_size": 100}, **GROSS)
    true = {float(value) for part in PARTS for value in getattr(clean, part).values}
    splits = redrawn(given, 3)
    wrong = [sum(float(value) not in true for value in getattr(splits, part).values) for part in PARTS]
    assert wrong == [12, 0, 0]
    assert redrawn(splits, 3).gross == (0.2, 10.0)


def setup(dataset, seed, stress=None, **settings):
    config = {**compose.option("dataset", dataset), **settings}
    return Setup(config, {"root": "nowhere", "download": False}, torch.device("cpu"), 8, 8, stress=stress, seed=seed)


def test_a_fixed_split_is_the_same_for_all_seeds_and_one_by_seed_is_not():
    assert splits_for(setup("digits", 1)) is splits_for(setup("digits", 2))
    one, other = (splits_for(setup("digits", seed, split="by_seed")) for seed in (1, 2))
    assert one.checksum != other.checksum
    assert one is splits_for(setup("digits", 1, split="by_seed"))


@pytest.mark.parametrize("stress", ["label_noise", "imbalance", "few"])
def test_what_makes_training_harder_follows_the_seed_with_the_split(stress):
    config = compose.option("stress", stress)
    first, second, fixed, still = (
        splits_for(setup("digits", seed, config, split=split))
        for seed, split in ((1, "by_seed"), (2, "by_seed"), (1, "fixed"), (2, "fixed"))
    )
    assert fixed is still
    assert first.test.index.tolist() != second.test.index.tolist()
    plain = splits_for(setup("digits", 1, split="by_seed"))
    assert first.test.index.tolist() == plain.test.index.tolist()
    kept = set(first.train.index.tolist())
    assert kept <= set(plain.train.index.tolist())
    if stress == "label_noise":
        clean = dict(zip(plain.train.index.tolist(), plain.train.targets.tolist(), strict=True))
        wrong = [clean[i] != y for i, y in zip(first.train.index.tolist(), first.train.targets.tolist(), strict=True)]
        assert np.mean(wrong) == pytest.approx(0.4, abs=0.05)


def test_seeds_are_combined_in_order():
    assert len({combined(1, 2), combined(2, 1), combined(12), combined(1, 2, 0)}) == 4


@pytest.mark.parametrize(
    ("dataset", "split", "sentence"),
    [
        ("digits", "by_sed", "unknown dataset.split 'by_sed': did you mean by_seed?"),
        ("fashion_mnist", "by_seed", "the data set fashion_mnist has an official test part, which stays what it is"),
    ],
)
def test_what_cannot_be_is_said(dataset, split, sentence, monkeypatch):
    monkeypatch.setattr("datasets.sources.fashion_mnist.read_official", lambda *_, **__: digits(**SMALL))
    with pytest.raises(UsageError, match=sentence):
        splits_for(setup(dataset, 1, split=split))
