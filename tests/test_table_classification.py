"""Classification of tables: splits, class counts, learning, resume bit for bit, and what is refused."""

import pytest
import torch

from datasets.labelled_tables import split
from datasets.sources.breast_cancer import breast_cancer
from datasets.sources.labelled_table import labelled_table
from datasets.splits import MissingData
from harness import address, compose
from harness.errors import UsageError
from harness.tasks import Seeds
from harness.training.job import Job, Stopped
from harness.training.loop import Loop

SIZES = {"train_size": None, "valid_size": 142, "test_size": 142, "split_seed": 0}
BASE = ("task=table_classification", "model.widths=[32]", "trainer.batch_size=32", "trainer.epochs=8")


def job(*overrides, seed=1):
    config = compose.compose_run(["device=cpu", *overrides])
    spec = address.spec_of(config.config)
    data = {"root": "nowhere", "download": False}
    return Job("key", config.choices, "", "run", spec, seed, data, config.config["feed"], "", 1e9, {}, {})


def run(made, folder, stop=lambda: False):
    return made.run(folder, stop, lambda *_: None)[:3]


def test_every_part_has_the_same_share_of_every_class_and_no_row_twice():
    table = breast_cancer(**SIZES)
    assert table.classes == ("benign", "malignant")
    assert [len(part) for part in (table.train, table.valid, table.test)] == [285, 142, 142]
    for part in (table.train, table.valid, table.test):
        assert float(part.targets.float().mean()) == pytest.approx(212 / 569, abs=0.01)
    indices = torch.cat([table.train.index, table.valid.index, table.test.index])
    assert indices.unique().numel() == 569
    assert table.checksum == breast_cancer(**SIZES).checksum
    assert table.checksum != breast_cancer(**{**SIZES, "split_seed": 1}).checksum
    smaller = breast_cancer(**{**SIZES, "train_size": 100})
    assert set(smaller.train.index.tolist()) < set(table.train.index.tolist())


def test_a_csv_file_with_words_has_its_classes_sorted_by_name(tmp_path):
    rows = [f"{number},{word},{label}" for number in range(20) for word, label in (("x", "pear"), ("y", "apple"))]
    (tmp_path / "fruit.csv").write_text("\n".join(["size,shape,kind", *rows]))
    sizes = {"train_size": None, "valid_size": 8, "test_size": 8, "split_seed": 0}
    table = labelled_table(tmp_path, path="fruit.csv", target="kind", **sizes)
    assert table.classes == ("apple", "pear")
    assert table.names == ("size", "shape_x", "shape_y")
    assert torch.equal(table.train.features[:, 1].long(), table.train.targets)  # every pear has shape x
    with pytest.raises(MissingData, match=r"nothing\.csv does not exist"):
        labelled_table(tmp_path, path="nothing.csv", target="kind", **sizes)
    with pytest.raises(ValueError, match=r"has no column taste: set dataset\.target to one of size, shape, kind"):
        labelled_table(tmp_path, path="fruit.csv", target="taste", **sizes)


@pytest.mark.parametrize(
    ("labels", "changes", "message"),
    [
        (["a"] * 50, {}, "has only one class, a"),
        (
            ["a"] * 30 + ["b"] * 20,
            {"test_size": 1},
            "test_size is 1, but toy has 50 rows in all",
        ),
        (["a"] * 30 + ["b"] * 20, {"valid_size": 45}, "train_size is -5"),
        (["a"] * 49 + ["b"], {}, r"the class b of toy is so rare \(1 rows\) that no training row has it"),
    ],
)
def test_tables_that_cannot_be_split_are_refused(labels, changes, message):
    sizes = {"train_size": None, "valid_size": 10, "test_size": 10, "split_seed": 0} | changes
    if labels.count("b") == 1:
        sizes |= {"train_size": 10}
    with pytest.raises(ValueError, match=message):
        split("toy", torch.rand(50, 3).numpy(), labels, ("x", "y", "z"), **sizes)


def test_features_are_standardised_by_the_training_rows_and_statistics_are_theirs():
    task = Loop(job(*BASE)).task
    torch.testing.assert_close(task.inputs["train"].mean(0), torch.zeros(30), atol=1e-5, rtol=0)
    torch.testing.assert_close(task.inputs["train"].std(0, correction=0), torch.ones(30))
    counts = torch.bincount(task.targets["train"])
    assert task.statistic("class_counts") == counts.tolist() == task.describe()["class_counts"]
    weights = torch.tensor(task.statistic("class_weights"))
    torch.testing.assert_close(weights * counts, torch.full((2,), len(task.targets["train"]) / 2))
    rare = Loop(job(*BASE, "stress=imbalance", "stress.ratio=10", "stress.profile=step")).task
    assert rare.describe()["class_counts"] == [counts[0], round(int(counts[0]) / 10)]


def test_equal_seeds_give_equal_batches_from_any_batch_on():
    task = Loop(job(*BASE)).task
    whole, rest = list(task.epoch(Seeds(3, 4))), list(task.epoch(Seeds(3, 4), first=5))
    assert len(whole) == task.steps_per_epoch == 8
    for one, other in zip(whole[5:], rest, strict=True):
        assert torch.equal(one.inputs[0], other.inputs[0])
        assert torch.equal(one.target, other.target)
    assert not torch.equal(whole[0].target, next(task.epoch(Seeds(4, 4))).target)


@pytest.mark.parametrize("loss", ["cross_entropy", "cosface", "center_cross_entropy"])
def test_a_network_learns_far_beyond_an_untrained_one(loss, tmp_path):
    made = Loop(job(*BASE, f"loss={loss}"))
    before = made.evaluate("test")["auc"]
    record, _, _ = run(made, tmp_path)
    assert record["status"] == "done"
    assert record["test"]["auc"] > max(0.95, before)
    assert record["test"]["top1"] > 0.9
    assert record["metrics"][0]["key"] == "top1"


def test_a_run_resumes_bit_for_bit_in_mid_epoch(tmp_path):
    straight, history, _ = run(Loop(job(*BASE)), tmp_path / "a")
    stopped = Loop(job(*BASE))
    with pytest.raises(Stopped):
        run(stopped, tmp_path / "b", lambda: stopped.state.step == 13)
    resumed, again, _ = run(Loop(job(*BASE)), tmp_path / "b")
    assert resumed["test"] == straight["test"]
    assert history["train.loss"].tolist() == again["train.loss"].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("loss=mse",), "compares values, but this task offers only class_logits and features"),
        (("loss=triplet",), "trains features alone"),
        (("dataset=diabetes",), "diabetes has a number to predict for every row of a table: use task=regression"),
        (("dataset=digits",), "digits has a class for every image, not every pixel: use task=classification"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(changes, message):
    changes = [
        *(entry for entry in BASE if not entry.startswith("model") or "model=cnn_micro" not in changes),
        *changes,
    ]
    with pytest.raises(ValueError, match=message) as refusal:
        Loop(job(*changes))
    assert "\n" not in str(refusal.value)


def test_shifts_are_refused_and_other_tasks_refuse_the_table():
    made = Loop(job(*BASE))
    with pytest.raises(UsageError, match="this task has rows of numbers"):
        made.evaluate("test", shift=lambda images: images)
    for task in ("classification", "regression"):
        with pytest.raises(UsageError, match="breast_cancer has a class for every row of a table"):
            Loop(job(f"task={task}", "dataset=breast_cancer", "model=mlp"))


def test_labels_can_be_noisy():
    clean = Loop(job(*BASE)).task.targets["train"]
    noisy = Loop(job(*BASE, "stress=label_noise", "stress.rate=0.3")).task
    assert 0.2 < float((noisy.targets["train"] != clean).float().mean()) < 0.4
