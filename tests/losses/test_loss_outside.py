"""Losses used by themselves, without the harness: as torch's are, and compared with torch or with a formula."""

import functools

import pytest
import torch
from loss_registry import NAMES, build, config
from segmentation_models_pytorch import losses as smp
from torch.nn import functional

from losses import adapters, margin, probability, quantity, region
from losses.angular import ArcFace
from losses.compound import Sum
from losses.imbalance import weighted_cross_entropy
from losses.loss import Loss

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(3, 4, 2, 5, generator=GENERATOR, dtype=torch.float64)
TARGET = torch.randint(4, (3, 2, 5), generator=GENERATOR)
SOFT = torch.randn(3, 4, 2, 5, generator=GENERATOR, dtype=torch.float64).softmax(1)
LABELS = (torch.rand(3, 4, 2, 5, generator=GENERATOR) < 0.4).double()
KNOWN = torch.rand(3, 2, 5, generator=GENERATOR) < 0.7
WEIGHTS = [0.5, 1.0, 2.0, 0.0]
close = torch.testing.assert_close
REDUCTIONS = ["mean", "sum", "none"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reductions_and_ignored_labels_are_torchs(reduction):
    holes = torch.where(KNOWN, TARGET, 255)
    for ours, theirs in (
        (Loss(probability.cross_entropy, reduction=reduction), functional.cross_entropy),
        (
            Loss(probability.cross_entropy, reduction=reduction, ignore_index=255),
            functools.partial(functional.cross_entropy, ignore_index=255),
        ),
    ):
        target = TARGET if ours.ignore_index is None else holes
        close(ours(LOGITS, target), theirs(LOGITS, target, reduction=reduction))
    values, labels = LOGITS[:, 0], LABELS[:, 0]
    close(
        Loss(quantity.squared_error, reduction=reduction)(values, labels),
        functional.mse_loss(values, labels, reduction=reduction),
    )
    binary = functional.binary_cross_entropy_with_logits(values, labels, reduction=reduction)
    close(Loss(probability.binary_cross_entropy, reduction=reduction)(values, labels), binary)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reductions_agree_with_each_other_for_every_loss(reduction):
    for function in (region.dice, probability.focal, margin.hinge_cs):
        values = Loss(function, reduction="none")(LOGITS, TARGET, KNOWN)
        kept = KNOWN if values.ndim > 1 else KNOWN.flatten(1).any(1)
        assert not values[~kept].any()
        expected = {"none": values, "sum": values.sum(), "mean": values.sum() / kept.sum()}[reduction]
        close(Loss(function, reduction=reduction)(LOGITS, TARGET, KNOWN), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignore_index", [-100, 255])
def test_class_weights_beside_smoothing_are_torchs(smoothing, ignore_index):
    holes = torch.where(KNOWN, TARGET, ignore_index)
    theirs = functools.partial(
        functional.cross_entropy, LOGITS, holes, weight=torch.tensor(WEIGHTS, dtype=torch.float64),
        ignore_index=ignore_index, label_smoothing=smoothing,
    )  # fmt: skip
    settings = {"weights": WEIGHTS, "smoothing": smoothing, "ignore_index": ignore_index}
    close(Loss(weighted_cross_entropy, **settings)(LOGITS, holes), theirs())
    for reduction in ("sum", "none"):
        ours = Loss(weighted_cross_entropy, over="count", reduction=reduction, **settings)
        close(ours(LOGITS, holes), theirs(reduction=reduction))
    close(
        Loss(weighted_cross_entropy, smoothing=0.1)(LOGITS, TARGET),
        functional.cross_entropy(LOGITS, TARGET, label_smoothing=0.1),
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("function", [probability.cross_entropy, region.dice, margin.hinge_ww])
def test_classes_may_be_integers_of_any_width(function, dtype):
    close(Loss(function)(LOGITS, TARGET.to(dtype)), Loss(function)(LOGITS, TARGET))
    ignored = 255 if dtype is torch.uint8 else -1
    holes = torch.where(KNOWN, TARGET, ignored).to(dtype)
    close(Loss(function, ignore_index=ignored)(LOGITS, holes), Loss(function)(LOGITS, TARGET, KNOWN))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64])
def test_binary_labels_may_be_integers(dtype):
    logits, labels = LOGITS[:, 0], LABELS[:, 0]
    expected = functional.binary_cross_entropy_with_logits(logits, labels)
    close(Loss(probability.binary_cross_entropy)(logits, labels.to(dtype)), expected)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_classes_may_be_one_hot(dtype):
    hot = functional.one_hot(TARGET, 4).movedim(-1, 1)
    for function in (probability.focal, region.tversky, margin.hinge_cs):
        close(Loss(function)(LOGITS, hot.to(dtype)), Loss(function)(LOGITS, TARGET))
    with pytest.raises(ValueError, match="that are not one-hot"):
        Loss(probability.focal)(LOGITS, torch.ones_like(hot))


def test_probabilities_are_targets_where_a_loss_takes_them():
    log_p, p = LOGITS.log_softmax(1), LOGITS.softmax(1)
    close(Loss(probability.cross_entropy)(LOGITS, SOFT), functional.cross_entropy(LOGITS, SOFT))
    close(Loss(probability.label_smoothing)(LOGITS, SOFT), functional.cross_entropy(LOGITS, SOFT, label_smoothing=0.1))
    close(Loss(probability.cross_entropy)(LOGITS, SOFT, KNOWN), -(SOFT * log_p).sum(1)[KNOWN].mean())
    close(build("brier")(LOGITS, SOFT), (p - SOFT).square().sum(1).mean())
    bce = functional.binary_cross_entropy_with_logits(LOGITS, SOFT, reduction="none").sum(1).mean()
    close(build("bce_ovr")(LOGITS, SOFT), bce)
    hinge = SOFT * (1 - LOGITS).relu() + (1 - SOFT) * (1 + LOGITS).relu()
    close(Loss(adapters.one_vs_rest, base=margin.hinge)(LOGITS, SOFT), hinge.sum(1).mean())
    both, sizes = ((part * KNOWN.unsqueeze(1)).sum((2, 3)) for part in (p * SOFT, p + SOFT))
    close(Loss(region.dice, smooth=0.0)(LOGITS, SOFT, KNOWN), 1 - (2 * both / sizes).mean())


SOFTLY = ["cross_entropy", "label_smoothing", "dice", "jaccard", "tversky", "focal_tversky", "log_cosh_dice",
          "generalized_dice", "brier", "negative_control_worse", "bce_ovr", "focal_ovr", "hinge_ovr"]  # fmt: skip


def softly(name):
    """Whether a loss takes probabilities: those above, and all that are made by an adapter."""
    return name in SOFTLY or config(name)["_target_"].startswith("losses.adapters.")


@pytest.mark.parametrize("name", SOFTLY)
def test_a_one_hot_target_of_probabilities_is_its_class(name):
    hot = functional.one_hot(TARGET, 4).movedim(-1, 1).double()
    for mask in (None, KNOWN, KNOWN[:, :, 0]):
        close(build(name, num_classes=4)(LOGITS, hot, mask), build(name, num_classes=4)(LOGITS, TARGET, mask))


@pytest.mark.parametrize("name", [name for name in NAMES if build(name).about.kinds == ("class_logits",)])
def test_a_loss_takes_probabilities_or_says_that_it_needs_classes(name):
    loss, logits, soft = build(name, num_classes=4), LOGITS[:, :, 0, 0], SOFT[:, :, 0, 0]
    if all(softly(term) for term in config(name).get("terms", [name])):
        assert loss(logits, soft).isfinite()
    else:
        with pytest.raises(ValueError, match=r"^target: shape \(3, 4\), allowed is \(3,\), .* its argmax\(1\)$"):
            loss(logits, soft)


REGIONS = [
    (region.dice, {}, lambda tp, fp, fn: 2 * tp / (2 * tp + fp + fn)),
    (region.jaccard, {}, lambda tp, fp, fn: tp / (tp + fp + fn)),
    (region.tversky, {"alpha": 0.2, "beta": 0.6}, lambda tp, fp, fn: tp / (tp + 0.2 * fp + 0.6 * fn)),
    (region.log_cosh_dice, {}, None),
]


@pytest.mark.parametrize("mode", ["binary", "multilabel"])
@pytest.mark.parametrize(("function", "settings", "share"), REGIONS)
@pytest.mark.parametrize("masked", [False, True])
def test_regions_of_labels_that_may_overlap(function, settings, share, mode, masked):
    axes = (1, 2, 3) if mode == "binary" else (2, 3)
    mask = LABELS.roll(1, 0) < 0.5 if masked else torch.ones_like(LABELS, dtype=torch.bool)
    p, g = LOGITS.sigmoid() * mask, LABELS * mask
    tp, fp, fn = ((part * mask).sum(axes) for part in (p * g, p * (1 - g), (1 - p) * g))
    if share is None:
        expected = (1 - 2 * tp / (2 * tp + fp + fn)).view(3, -1).mean(1).cosh().log().mean()
    else:
        expected = 1 - share(tp, fp, fn).mean()
    loss = Loss(function, mode=mode, smooth=0.0, **settings)
    close(loss(LOGITS, LABELS, mask if masked else None), expected)
    close(loss(LOGITS, torch.where(mask, LABELS, 255).to(torch.uint8), mask), expected)
    leaf = LOGITS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, LABELS, mask), leaf)


@pytest.mark.parametrize("mode", ["binary", "multilabel"])
def test_dice_of_labels_is_that_of_smp_over_a_batch(mode):
    logits = LOGITS[:, :1] if mode == "binary" else LOGITS
    labels = LABELS[:, :1] if mode == "binary" else LABELS
    theirs = smp.DiceLoss(mode, eps=0.0)(logits, labels)
    close(Loss(region.dice, mode=mode, smooth=0.0, over_batch=True)(logits, labels), theirs)


def test_any_number_stands_where_a_function_is_told_to_leave_it_out():
    holes = torch.where(KNOWN, TARGET, 255)
    leaf = LOGITS.clone().requires_grad_()
    values = region.dice(leaf, holes, mask=holes != 255)
    close(values, region.dice(LOGITS, TARGET, mask=KNOWN))
    values.mean().backward()
    assert not leaf.grad.movedim(1, -1)[~KNOWN].any()


def test_settings_are_given_and_shown():
    close(
        Loss(probability.focal, gamma=1.0)(LOGITS, TARGET),
        Loss(functools.partial(probability.focal, gamma=1.0))(LOGITS, TARGET),
    )
    assert repr(Loss(probability.focal, gamma=1.0)) == "Loss(focal, gamma=1.0, alpha=None)"
    shown = repr(
        Loss(adapters.one_vs_rest, base=functools.partial(margin.hinge, margin=2.0), reduction="sum", ignore_index=255)
    )
    assert shown == "Loss(one_vs_rest, base=hinge(margin=2.0), over_classes='sum', reduction='sum', ignore_index=255)"
    head = Loss(ArcFace, num_classes=3, num_features=4, margin=0.25)
    assert head.function.weight.shape == (3, 4)
    assert repr(head) == "Loss(ArcFace, scale=64.0, margin=0.25)"
    assert repr(Loss(region.dice, mode="binary")).startswith(
        "Loss(dice, smooth=1e-05, squared=False, over_batch=False, mode='binary'"
    )
    with pytest.raises(ValueError, match=r"^gama=1.0: allowed are the settings gamma, alpha$"):
        Loss(probability.focal, gama=1.0)
    with pytest.raises(ValueError, match="reduction='median': allowed is 'mean' or 'sum' or 'none'"):
        Loss(probability.focal, reduction="median")


def test_what_is_known_follows_the_mode():
    assert Loss(region.dice, mode="multilabel").about.kinds == ("binary_logits",)
    assert (Loss(region.dice).about.link, Loss(region.dice, mode="binary").about.link) == ("softmax", "sigmoid")


def test_a_sum_takes_a_prediction_and_its_target():
    total = Sum({"a": Loss(probability.cross_entropy), "b": Loss(region.dice)}, {"a": 1.0, "b": 0.5})
    expected = Loss(probability.cross_entropy)(LOGITS, TARGET, KNOWN) + 0.5 * Loss(region.dice)(LOGITS, TARGET, KNOWN)
    close(total(LOGITS, TARGET, KNOWN), expected)
    assert "weights={'a': 1.0, 'b': 0.5}" in repr(total)
    assert "Loss(dice" in repr(total)
    several = build("center_cross_entropy")
    with pytest.raises(ValueError, match="allowed are pairs by kind, here of class_logits and features"):
        several(LOGITS, TARGET)
