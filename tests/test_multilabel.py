"""Several labels per image: metrics, data, and which losses learn them."""

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from datasets.sources.digit_sets import digit_sets
from harness.metrics.multilabel import MultilabelMetrics
from tests.datasets.test_images_folder import picture, read

SIZES = {"train_size": 300, "valid_size": 80, "test_size": 120, "split_seed": 0}


def scored(logits, truth, link="sigmoid"):
    found = MultilabelMetrics(link)
    for rows in np.array_split(np.arange(len(truth)), 3):
        found.add(torch.from_numpy(logits[rows]).float(), torch.from_numpy(truth[rows]))
    return found.scores()


def test_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth = (rng.random((200, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.4]).astype(np.int64)
    logits = rng.normal(size=truth.shape) + 2 * truth - 1
    found, guessed = scored(logits, truth), logits > 0
    assert found["map"] == pytest.approx(reference.average_precision_score(truth, logits, average="macro"))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(truth, guessed, average="macro"))
    assert found["micro_f1"] == pytest.approx(reference.f1_score(truth, guessed, average="micro"))
    assert found["exact_match"] == pytest.approx(reference.accuracy_score(truth, guessed))
    assert found["label_accuracy"] == pytest.approx(1 - reference.hamming_loss(truth, guessed))
    each = [reference.log_loss(truth[:, k], 1 / (1 + np.exp(-logits[:, k]))) for k in range(6)]
    assert found["nll"] == pytest.approx(np.mean(each), rel=1e-5)
    assert scored(logits, truth, None)["nll"] is None


def test_labels_that_do_not_occur_and_scores_that_are_no_numbers():
    truth = np.array([[1, 0], [0, 0], [1, 0]])
    logits = np.array([[2.0, -1.0], [1.0, -1.0], [np.nan, -1.0]])
    found = scored(logits, truth)
    assert found["map"] == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(found["per_class"][1])
    assert found["macro_f1"] == pytest.approx(0.5)  # of one that occurs: one hit, one miss, one false alarm
    assert scored(logits, 0 * truth)["map"] == 0


def test_sets_of_digits_are_what_their_labels_say():
    splits = digit_sets(**SIZES)
    assert splits.made_for == "multilabel"
    assert [len(part) for part in splits.parts.values()] == [300, 80, 120]
    counts = splits.train.class_counts(10)
    assert counts[0] > 3 * counts[9] > 0
    quarters = splits.train.images.reshape(300, 2, 8, 2, 8).sum((2, 4)) > 0
    present = splits.train.targets.sum(1)
    assert (quarters.sum((1, 2)) >= present).all()
    assert ((present == 0) == (quarters.sum((1, 2)) == 0)).all()
    again, other = digit_sets(**SIZES), digit_sets(**{**SIZES, "split_seed": 1})
    assert torch.equal(again.test.images, splits.test.images)
    assert not torch.equal(other.test.images, splits.test.images)


@pytest.mark.parametrize("how", ["separator", "columns", "label", "groups"])
def test_own_images_may_have_several_labels(tmp_path, how):
    home = tmp_path / "mine"
    home.mkdir()
    names = [f"p{number // 4}_{number}.png" for number in range(40)]
    labels = [
        [name for name, every in (("cat", 2), ("dog", 3), ("eel", 5)) if number % every == 0] for number in range(40)
    ]
    for number, name in enumerate(names):
        picture(number, size=(12, 10)).save(home / name)
    if how == "columns":
        lines = ["image,cat,dog,eel"]
        marks = [",".join(str(int(name in found)) for name in ("cat", "dog", "eel")) for found in labels]
        lines += [f"{name},{marked}" for name, marked in zip(names, marks, strict=True)]
    else:
        lines = ["image,labels", *(f"{name},{';'.join(found)}" for name, found in zip(names, labels, strict=True))]
    (home / "list.csv").write_text("\n".join(lines))
    splits = read(
        tmp_path,
        group=r"regex:^(\w+)_" if how == "groups" else None,
        label=["eel", "cat", "dog"] if how == "columns" else "labels" if how == "label" else None,
    )
    assert splits.made_for == "multilabel"
    assert sorted(splits.classes) == ["cat", "dog", "eel"]
    assert sum(map(len, splits.parts.values())) == 40
    for part in splits.in_memory().parts.values():
        assert part.targets.shape == (len(part), 3)
    for part in (*splits.parts.values(), *splits.redrawn(3).parts.values()):
        for item, marks in zip(part.images.items, part.targets, strict=True):
            entry = item if hasattr(item, "path") else item[1]
            number = int(entry.path.stem.split("_")[1])
            assert {splits.classes[k] for k in marks.nonzero()[:, 0].tolist()} == set(labels[number])


def test_a_task_of_one_label_refuses_several(loop):
    with pytest.raises(ValueError, match="any number of labels for every image: use task=multilabel"):
        loop("task=classification", "dataset=digit_sets")


def test_what_can_be_learnt_is_learnt_but_not_what_a_control_ignores(loop, tmp_path):
    made = ("task=multilabel", "model=mlp", "model.widths=[128]", "trainer.epochs=8", "trainer.batch_size=32")
    scores = {}
    for name in ("binary_cross_entropy", "negative_control_labels"):
        record, *_ = loop(*made, f"loss={name}").run(tmp_path / name, lambda: False, lambda *_: None)
        scores[name] = record["test"]["map"]
    assert scores["binary_cross_entropy"] > scores["negative_control_labels"] + 0.1
