"""Stress and shift, from their config groups to what a run records: harder training data, harder test data."""

import math

import pytest
import torch

from datasets import shifts
from harness import compose, plan
from harness.address import Addresses, setting_hash
from harness.errors import UsageError
from harness.training.job import check
from tests.conftest import SCRATCH, carried_out

HARDER = ("shift=[noise,blur,fade,attack]", "shift.noise.size=0.3", "shift.blur.size=0.1")
NEUTRAL = {
    "label_noise": "rate=0", "imbalance": "ratio=1", "imbalance_outliers": "ratio=1", "few": "share=1",
    "box_noise": "rate=0",
}  # fmt: skip
MASKED = ("task=segmentation", "dataset.train_size=32", "dataset.valid_size=16", "dataset.test_size=16",
          "model=fcn_micro")  # fmt: skip
BOXES = ("task=localisation", "dataset.size=[32,32]", "dataset.train_size=64", "dataset.valid_size=16",
         "dataset.test_size=16")  # fmt: skip


def key(spec):
    return Addresses(SCRATCH, SCRATCH).keys(spec, [1])[0]


# ---------------------------------------------------------------------- stress


def test_every_stress_has_a_neutral_size():
    assert {*NEUTRAL, "none"} == set(compose.options("stress"))


@pytest.mark.parametrize(("name", "size"), NEUTRAL.items())
def test_a_stress_of_neutral_size_is_no_part_of_a_run(spec, name, size):
    calm, hard = spec(), spec(f"stress={name}")
    assert calm.stress is None
    assert hard.stress["_target_"] == f"datasets.stress.{name}"
    assert key(hard) != key(calm)
    assert setting_hash(hard) != setting_hash(calm)
    assert spec(f"stress={name}", f"stress.{size}", "stress.seed=3") == calm
    assert key(spec(f"stress={name}", "stress.seed=3")) != key(hard)
    assert compose.compose_run([f"stress={name}"]).choices["stress"] == name
    assert compose.compose_run([]).choices["stress"] == "none"


@pytest.mark.parametrize(
    "stress",
    [
        ("label_noise", "rate=0.4"),
        ("label_noise", "kind=next"),
        ("imbalance", "ratio=10"),
        ("imbalance", "profile=step"),
        ("imbalance_outliers", "outliers=0.5"),
        ("few", "share=0.2"),
    ],
)
def test_stress_reaches_the_training_split_alone(loop, stress):
    name, size = stress
    easy, hard = loop().task, loop(f"stress={name}", f"stress.{size}").task
    for part in ("valid", "test"):
        assert torch.equal(getattr(hard.splits, part).targets, getattr(easy.splits, part).targets)
        assert torch.equal(getattr(hard.splits, part).images, getattr(easy.splits, part).images)
    assert (len(hard.splits.train) < len(easy.splits.train)) == (name != "label_noise")
    if name == "label_noise":
        wrong = (hard.splits.train.targets != easy.splits.train.targets).float().mean()
        assert wrong == pytest.approx(0.4, abs=0.05)
    assert hard.describe()["checksum"] != easy.describe()["checksum"]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["stress=label_nois"], "unknown stress 'label_nois': did you mean label_noise"),
        (["stress=label_noise", "stress.rat=0.2"], "unknown setting 'stress.rat': did you mean stress.rate"),
        (["shift=[noise,atack]"], "unknown shift 'atack': did you mean attack"),
        (["shift=blurr"], "unknown shift 'blurr': did you mean blur"),
        (
            ["shift=[noise]", "shift.noise.sizes=1"],
            "unknown setting 'shift.noise.sizes': did you mean shift.noise.size",
        ),
        (["shift=[noise]", "shift.blur.size=1"], "unknown setting 'shift.blur.size': did you mean"),
    ],
)
def test_wrong_names_get_the_nearest(spec, overrides, sentence):
    with pytest.raises(UsageError, match=sentence):
        spec(*overrides)
    base = compose.compose_run([])
    values = dict(plan.parsed(entry) for entry in overrides)
    with pytest.raises(UsageError, match=sentence):
        compose.swapped(base, values)


@pytest.mark.parametrize("profile", ["step", "tail"])
def test_outliers_are_frequent_images_in_rare_classes_and_leave_them_as_rare(loop, profile):
    easy = loop().task.splits.train
    truth = dict(zip(easy.index.tolist(), easy.targets.tolist(), strict=True))

    def stressed(name, *more):
        settings = (f"stress={name}", "stress.ratio=8", f"stress.profile={profile}", *more)
        return loop(*settings).task.splits.train

    plain, none = stressed("imbalance"), stressed("imbalance_outliers", "stress.outliers=0")
    assert torch.equal(plain.targets, none.targets)
    assert torch.equal(plain.index, none.index)
    counts = plain.targets.bincount(minlength=10)
    rare = set(((counts > 0) & (2 * counts < counts.max())).nonzero().flatten().tolist())
    assert (rare == {5, 6, 7, 8, 9}) or profile == "tail"
    assert 9 in rare
    found = {}
    for share in (0.25, 0.75):
        hard = stressed("imbalance_outliers", f"stress.outliers={share}")
        for label, count in enumerate(hard.targets.bincount(minlength=10).tolist()):
            assert count == counts[label] or (label not in rare and count < counts[label])
        items = dict(zip(hard.index.tolist(), hard.targets.tolist(), strict=True))
        assert len(items) == len(hard.targets)
        found[share] = {(item, label) for item, label in items.items() if truth[item] != label}
        for label in range(10):
            wrong = sum(each == label for _, each in found[share])
            assert wrong == (round(share * counts[label].item()) if label in rare else 0)
        assert not {truth[item] for item, _ in found[share]} & rare
    assert found[0.25] < found[0.75]


@pytest.mark.parametrize("stress", ["label_noise", "imbalance", "imbalance_outliers", "few"])
@pytest.mark.parametrize("task", ["segmentation", "localisation", "regression"])
def test_stress_on_masks_and_tables_is_refused_in_one_sentence(spec, job, stress, task):
    said = check(job(spec(f"task={task}", f"stress={stress}"), only_check=True))
    assert said == "stress changes items with a class each, which these data are not: use stress=none."


def test_a_wrong_size_of_stress_is_one_sentence(spec):
    with pytest.raises(UsageError, match=r"^stress\.rate=1: use a number, at least 0 and below 1\.$"):
        spec("stress=label_noise", "stress.rate=1")


def test_levels_of_stress_are_cells_with_their_controls():
    levels = ["axes.stress.rate=[0,0.4]", "base.stress=label_noise", "axes.loss=[cross_entropy,mae_prob]"]
    settings = plan.settings(plan.read_study("demo", levels))
    assert {setting.cell[2:] for setting in settings} == {("0",), ("0.4",)}
    negative = [setting for setting in settings if setting.role == "negative_control"]
    assert {setting.cell[2:] for setting in negative} == {("0",), ("0.4",)}
    assert {setting.spec.stress is None for setting in settings if setting.cell[2:] == ("0",)} == {True}


def test_kinds_of_stress_and_shift_can_be_crossed():
    axes = ["axes.stress=[none,few]", "axes.shift=[[noise],[noise,blur]]", "axes.model=[cnn_micro]"]
    settings = plan.settings(plan.read_study("smoke", axes))
    found = {(setting.choices["stress"], setting.choices["shift"]) for setting in settings}
    assert found == {(stress, shift) for stress in ("none", "few") for shift in ("noise", "noise+blur")}
    assert all(set(setting.spec.shift) == set(setting.choices["shift"].split("+")) for setting in settings)


# ---------------------------------------------------------------------- shift


def test_shifts_are_measured_when_asked_for_and_part_of_the_key_only_then(spec, loop):
    calm, asked = spec(), spec(*HARDER)
    assert calm.shift is None
    assert list(asked.shift) == ["noise", "blur", "fade", "attack"]
    assert asked.shift["noise"]["size"] == 0.3
    assert (
        len({key(calm), key(asked), key(spec("shift=[noise]")), key(spec("shift=[noise]", "shift.noise.size=0.1"))})
        == 4
    )
    assert setting_hash(calm) != setting_hash(asked)
    assert compose.compose_run(list(HARDER)).choices["shift"] == "noise+blur+fade+attack"
    assert compose.compose_run(["shift=blur"]).choices["shift"] == "blur"
    assert compose.compose_run([]).choices["shift"] == "none"
    swapped = compose.swapped(compose.compose_run([]), {"shift": ["noise", "fade"], "shift.fade.size": 0.2})
    assert swapped.config["shift"] == compose.compose_run(["shift=[noise,fade]", "shift.fade.size=0.2"]).config["shift"]
    assert swapped.choices["shift"] == "noise+fade"


def test_a_run_records_what_shifted_test_data_give(loop, tmp_path):
    run = loop(*HARDER, "dataset.train_size=640", "trainer.epochs=3")
    record = carried_out(run, tmp_path)
    assert list(record["shifted"]) == ["noise", "blur", "fade", "attack"]
    assert all(found.keys() == record["test"].keys() for found in record["shifted"].values())
    assert record["shifted"]["attack"]["top1"] < record["test"]["top1"]
    assert len({found["nll"] for found in (record["test"], *record["shifted"].values())}) == 5
    noise = run.shifts["noise"]
    assert run.evaluate("test", noise) == run.evaluate("test", noise) == record["shifted"]["noise"]
    calm = carried_out(loop("dataset.train_size=640", "trainer.epochs=3"), tmp_path / "calm")
    assert calm["test"] == record["test"]
    assert "shifted" not in calm


@pytest.mark.parametrize("task", [MASKED, BOXES], ids=["segmentation", "localisation"])
def test_images_with_masks_can_be_shifted_but_not_attacked(spec, job, loop, task, tmp_path):
    record = carried_out(loop(*task, "shift=[noise,blur,fade]"), tmp_path)
    assert list(record["shifted"]) == ["noise", "blur", "fade"]
    assert all(found != record["test"] for found in record["shifted"].values())
    said = check(job(spec(*task, "shift=[noise,attack]"), only_check=True))
    assert said == "shift=attack misleads classifiers of images: leave it out with this task."


def test_rows_of_numbers_cannot_be_shifted(spec, job):
    said = check(job(spec("task=regression", "shift=[noise]"), only_check=True))
    assert said == "shift changes images, and this task has rows of numbers: leave it out."


@pytest.mark.parametrize("name", compose.options("shift"))
def test_a_wrong_size_of_a_shift_is_refused_before_training(spec, job, name):
    assert check(job(spec(f"shift=[{name}]"), only_check=True)) is None
    with pytest.raises(UsageError, match=rf"^shift\.{name}\.size=2: use a number from 0 to 1\.$"):
        spec(f"shift=[{name}]", f"shift.{name}.size=2")


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 32, 20)])
def test_blur_and_lost_contrast_take_detail_and_keep_the_mean(shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for change in (shifts.blurred, shifts.faded):
        spread = [change(images, size=size).std() for size in (0.01, 0.1, 0.5, 1.0)]
        assert spread == sorted(spread, reverse=True)
        assert spread[0] <= images.std()
        torch.testing.assert_close(change(torch.full(shape, 0.3), size=0.5), torch.full(shape, 0.3))
    means = images.mean((1, 2, 3))
    torch.testing.assert_close(shifts.faded(images, size=0.4).mean((1, 2, 3)), means)
    torch.testing.assert_close(shifts.faded(images, size=1.0), means.view(-1, 1, 1, 1).expand(shape))
    dot = torch.zeros(1, 1, 9, 9)
    dot[..., 4, 4] = 1.0
    seen = shifts.blurred(dot, size=1 / 9)[0, 0]  # a deviation of one pixel
    assert float(seen[4, 5] / seen[4, 4]) == pytest.approx(math.exp(-0.5), rel=1e-4)
    assert float(seen.sum()) == pytest.approx(1, abs=1e-4)


def test_noise_has_the_size_asked_for():
    images = torch.full((4, 1, 50, 50), 0.5)
    found = shifts.noisy(images, size=0.1, generator=torch.Generator().manual_seed(0))
    assert float(found.std()) == pytest.approx(0.1, rel=0.05)
    assert float(found.mean()) == pytest.approx(0.5, abs=0.01)
    assert shifts.noisy(images, size=1.0, generator=torch.Generator().manual_seed(0)).aminmax() == (0, 1)


def test_an_attack_moves_every_pixel_against_the_class_however_confident_the_scores():
    weights = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # (C, pixels)
    images, target = torch.tensor([0.9, 0.2]).view(1, 1, 1, 2), torch.tensor([0])

    def scores(images, scale=1.0):
        return scale * images.flatten(1) @ weights.T

    for scale in (1.0, 1e4):  # at the second the gradient of cross-entropy is 0
        moved = shifts.attacked(images, size=0.05, target=target, scores=lambda x, scale=scale: scores(x, scale))
        torch.testing.assert_close(moved.flatten(), torch.tensor([0.85, 0.25]))
    assert shifts.attacked(images, size=0.5, target=target, scores=scores).amin() >= 0
