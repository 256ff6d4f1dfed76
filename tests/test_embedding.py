"""Embedding: batches of P classes x K images, splits by class, learning, resume, refusals."""

import pytest
import torch
from PIL import Image

from datasets.by_class import split_by_class
from datasets.sources.omniglot import omniglot
from datasets.sources.two_digits import two_digits
from datasets.splits import MissingData
from harness import address, compose
from harness.errors import UsageError
from harness.feeds import samplers
from harness.tasks import Seeds
from harness.training.job import Job, Stopped
from harness.training.loop import Loop

SMALL = ("dataset.classes=[40,10,10]", "dataset.images_per_class=16", "trainer.epochs=3")
BASE = ("task=embedding", "dataset=two_digits", *SMALL)


def job(*overrides, seed=1):
    config = compose.compose_run(["device=cpu", *overrides])
    spec = address.spec_of(config.config)
    data = {"root": "nowhere", "download": False}
    return Job("key", config.choices, "", "run", spec, seed, data, config.config["feed"], "", 1e9, {}, {})


def run(made, folder, stop=lambda: False):
    return made.run(folder, stop, lambda *_: None)[:3]


# ---------------------------------------------------------------- samplers


def test_balanced_batches_hold_p_classes_with_k_different_images_each():
    target = torch.arange(9).repeat_interleave(torch.arange(5, 14))  # 5 to 13 images of each class
    order = samplers.balanced(target, 3, classes=4, images=5)
    assert len(order) == len(target) // 20 * 20
    for batch in order.view(-1, 20):
        _, counts = target[batch].unique(return_counts=True)
        assert counts.tolist() == [5] * 4
        assert len(batch.unique()) == 20


def test_a_class_goes_through_all_its_images_before_any_comes_again():
    target = torch.arange(4).repeat_interleave(12)
    order = samplers.balanced(target, 0, classes=4, images=3)  # every class in every batch
    assert torch.equal(order.sort().values, torch.arange(48))


def test_equal_seeds_give_equal_orders_and_other_seeds_others():
    target = torch.arange(6).repeat(20)
    for sampler in (samplers.shuffled, lambda t, s: samplers.balanced(t, s, classes=3, images=4)):
        assert torch.equal(sampler(target, 5), sampler(target, 5))
        assert not torch.equal(sampler(target, 5), sampler(target, 6))
    assert torch.equal(samplers.shuffled(target, 5).sort().values, torch.arange(120))


# ---------------------------------------------------------------- data


def test_no_class_is_in_two_splits():
    splits = two_digits(classes=[60, 10, 30], images_per_class=20, split_seed=0)
    targets = [part.targets.unique().tolist() for part in (splits.train, splits.valid, splits.test)]
    assert targets == [[*range(60)], [*range(60, 70)], [*range(70, 100)]]
    names = [*splits.classes, *splits.unseen["valid"], *splits.unseen["test"]]
    assert sorted(names) == [f"{number:02}" for number in range(100)]
    assert splits.train.images.shape == (1200, 1, 8, 16)
    assert splits.checksum == two_digits(classes=[60, 10, 30], images_per_class=20, split_seed=0).checksum
    with pytest.raises(ValueError, match="90 training, 10 validation and 10 test classes were asked for"):
        two_digits(classes=[90, 10, 10], images_per_class=20, split_seed=0)


def test_the_test_takes_the_last_classes():
    images, targets = torch.zeros(10, 1, 2, 2, dtype=torch.uint8), torch.arange(10)
    splits = split_by_class("toy", images, targets, [*"abcdefghij"], (3, 2, 4))
    assert (splits.classes, splits.unseen) == (("a", "b", "c"), {"valid": ("d", "e"), "test": ("g", "h", "i", "j")})
    assert splits.test.targets.tolist() == [6, 7, 8, 9]


@pytest.fixture
def drawings(tmp_path):
    """Write a small Omniglot in the official layout: 3 and 2 alphabets of 2 characters with 2 drawings each."""
    for folder, alphabets in (("images_background", "CAB"), ("images_evaluation", "XY")):
        for alphabet in alphabets:
            for character in (1, 2):
                home = tmp_path / "omniglot" / "omniglot-py" / folder / alphabet / f"character{character:02}"
                home.mkdir(parents=True)
                for drawing in (1, 2):
                    image = Image.new("1", (105, 105), 1)
                    image.paste(0, (0, 0, 105, 35 * character))  # ink in the upper part
                    image.save(home / f"{character:04}_{drawing:02}.png")
    return tmp_path


OFFICIAL = {"train_folder": "images_background", "test_folder": "images_evaluation", "valid_alphabets": 1}


def test_omniglot_is_read_in_its_official_layout(drawings):
    splits = omniglot(drawings, **OFFICIAL, test_alphabets=None, size=21)
    assert splits.classes == ("A/character01", "A/character02", "B/character01", "B/character02")
    assert splits.unseen["valid"] == ("C/character01", "C/character02")
    assert splits.unseen["test"][-1] == "Y/character02"
    assert [len(part) for part in (splits.train, splits.valid, splits.test)] == [8, 4, 8]
    assert splits.train.images[0, 0, :, 0].tolist() == [255] * 7 + [0] * 14  # white ink on black
    both = {**OFFICIAL, "test_folder": "images_background"}
    assert omniglot(drawings, **both, test_alphabets=1, size=21).unseen["test"] == ("C/character01", "C/character02")


def test_omniglot_says_what_is_missing(drawings):
    with pytest.raises(MissingData, match="Omniglot's images_background is absent in"):
        omniglot(drawings / "elsewhere", **OFFICIAL, test_alphabets=None, size=21)
    with pytest.raises(ValueError, match="4 validation and 2 test alphabets were asked for"):
        omniglot(drawings, **{**OFFICIAL, "valid_alphabets": 4}, test_alphabets=None, size=21)
    with pytest.raises(ValueError, match=r"dataset\.size is 200"):
        omniglot(drawings, **OFFICIAL, test_alphabets=None, size=200)
    broken = next(drawings.glob("omniglot/omniglot-py/images_evaluation/X/*/*.png"))
    broken.write_bytes(b"no picture")
    with pytest.raises(MissingData, match=r"cannot be read .*: unpack Omniglot anew"):
        omniglot(drawings, **OFFICIAL, test_alphabets=None, size=21)


# ---------------------------------------------------------------- the task


def test_batches_of_the_task_and_its_record():
    task = Loop(job(*BASE, "trainer.batch_size=32")).task
    whole, rest = list(task.epoch(Seeds(3, 4))), list(task.epoch(Seeds(3, 4), first=15))
    assert len(whole) == task.steps_per_epoch == 20
    for batch in whole:
        assert batch.target.unique(return_counts=True)[1].tolist() == [4] * 8
    for one, other in zip(whole[15:], rest, strict=True):
        assert torch.equal(one.inputs[0], other.inputs[0])
    described = task.describe()
    assert (described["classes_per_batch"], described["images_per_class"]) == (8, 4)
    assert described["class_numbers"] == {"train": 40, "valid": 10, "test": 10}
    assert not {*described["classes"]} & {*described["valid_classes"], *described["test_classes"]}


def test_dimension_and_length_of_an_embedding_are_settings():
    free, fixed = (
        Loop(job(*BASE, *more)) for more in (("task.dimension=null",), ("task.dimension=16", "task.normalise=true"))
    )
    assert (free.model.num_features, fixed.model.num_features) == (128, 16)
    batch = next(fixed.task.epoch(Seeds(3, 4)))
    fixed.model.eval()
    features = fixed.task.pairs(fixed.model(*batch.inputs), batch)["features"].prediction
    torch.testing.assert_close(features.norm(dim=1), torch.ones(64))


def test_both_samplers_show_equally_many_images():
    seen = [
        sum(len(batch.target) for batch in Loop(job(*BASE, f"task.sampler={sampler}")).task.epoch(Seeds(3, 4)))
        for sampler in ("balanced", "shuffled")
    ]
    assert seen == [640, 640]


def test_two_views_give_losses_pairs_of_embeddings():
    made = Loop(job(*BASE, "loss=clip_contrastive", "task.views=2"))
    batch = next(made.task.epoch(Seeds(3, 4)))
    assert len(batch.inputs[0]) == len(batch.target) == 128
    first, second = batch.inputs[0].chunk(2)
    assert not torch.equal(first, second)
    made.model.eval()
    pair = made.task.pairs(made.model(*batch.inputs), batch)["embeddings"]
    torch.testing.assert_close(pair.target, made.model(second)["features"])
    made.step(batch)


@pytest.mark.parametrize("loss", ["cross_entropy", "contrastive", "arcface"])
def test_unseen_classes_come_together_far_beyond_an_untrained_network_and_pixels(loss, tmp_path):
    made = Loop(job("task=embedding", "dataset=two_digits", "trainer.epochs=6", f"loss={loss}"))
    before = made.evaluate("test")["map_at_r"]
    record, _, examples, items = made.run(tmp_path, lambda: False, lambda *_: None)
    assert record["data"]["floors"]["untrained_network"]["map_at_r"] == pytest.approx(before, abs=1e-6)
    assert items["test/map_at_r"].mean() == pytest.approx(record["test"]["map_at_r"], abs=1e-6)
    assert examples["neighbours"].shape == (6, 6, 1, 8, 16)
    assert examples["right"].mean() > 0.2
    assert record["metrics"][0]["key"] == "map_at_r"
    assert record["test"]["map_at_r"] > max(before, record["data"]["trivial"]["map_at_r"]) + 0.1


def test_a_run_resumes_bit_for_bit_in_mid_epoch(tmp_path):
    settings = (*BASE, "loss=center_cross_entropy", "trainer.epochs=2")
    straight, history, _ = run(Loop(job(*settings)), tmp_path / "a")
    stopped = Loop(job(*settings))
    with pytest.raises(Stopped):
        run(stopped, tmp_path / "b", lambda: stopped.state.step == 13)
    resumed, again, _ = run(Loop(job(*settings)), tmp_path / "b")
    assert resumed["test"] == straight["test"]
    assert history["train.loss"].tolist() == again["train.loss"].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("task.images_per_class=1",), r"task.images_per_class is 1; it must be two or more and divide"),
        (("task.images_per_class=5",), r"must be two or more and divide trainer.batch_size, 64"),
        (("trainer.batch_size=128", "task.images_per_class=2"), "but there are 40 training classes"),
        (("task.images_per_class=32",), "but a class has only 16 training images"),
        (("task.views=2", "dataset.augment.shift=0"), "both views would be the same"),
        (("loss=clip_contrastive",), "compares embeddings, but this task offers only class_logits and features"),
        (("loss=mse",), "compares values"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(changes, message):
    with pytest.raises(UsageError, match=message) as refusal:
        Loop(job(*BASE, *changes))
    assert "\n" not in str(refusal.value)


def test_data_of_other_tasks_are_refused_and_the_reverse():
    with pytest.raises(
        UsageError, match=r"digits has a class for every image, not every pixel: use task=classification"
    ):
        Loop(job("task=embedding", "dataset=digits"))
    with pytest.raises(UsageError, match=r"two_digits has other classes in validation and test .*: use task=embedding"):
        Loop(job("task=classification", "dataset=two_digits"))
    with pytest.raises(UsageError, match="shift=attack misleads classifiers"):
        Loop(job(*BASE, "shift=attack")).evaluate("test", shift=lambda images, target, scores: images)
