"""Where other libraries go wrong, shown on them, and what ours does instead."""

import pytest
import torch
from kornia import losses as kornia
from loss_registry import build
from segmentation_models_pytorch import losses as smp
from torch.nn import functional
from torchmetrics.functional import log_cosh_error


def test_log_cosh_overflows_in_torchmetrics():
    prediction, target = torch.tensor([1000.0]), torch.zeros(1)
    assert log_cosh_error(prediction, target).isinf()
    ours = build("log_cosh", dtype=torch.float32)(prediction, target)
    assert ours.item() == pytest.approx(1000 - 0.6931472)


def test_log_cosh_loses_small_errors_in_torchmetrics():
    prediction, target = torch.tensor([1e-4]), torch.zeros(1)
    assert log_cosh_error(prediction, target).item() != pytest.approx(5e-9, rel=0.5)
    ours = build("log_cosh", dtype=torch.float32)(prediction, target)
    assert ours.item() == pytest.approx(5e-9, rel=1e-3)


def test_a_batch_without_labels_is_not_a_number_in_torch():
    logits, target = torch.zeros(2, 3), torch.full((2,), -100)
    assert functional.cross_entropy(logits, target).isnan()
    nothing = torch.zeros(2, dtype=torch.bool)
    assert build("cross_entropy")(logits, target.clamp_min(0), nothing) == 0


def test_a_class_that_is_not_there_may_be_predicted_for_free_in_smp():
    """The true pixels are class 0 alone; half of the probability goes to class 1, or to class 2, or stays."""
    target = torch.zeros(1, 2, 2, dtype=torch.int64)
    wrong = torch.tensor([0.5, 0.5, 1e-9]).log().view(1, 3, 1, 1).expand(1, 3, 2, 2)
    right = torch.tensor([1.0, 1e-9, 1e-9]).log().view(1, 3, 1, 1).expand(1, 3, 2, 2)
    theirs, ours = smp.DiceLoss("multiclass"), build("dice")
    # three classes: theirs counts the first alone, and divides by three all the same
    assert theirs(wrong, target).item() == pytest.approx((1 - 2 / 3) / 3, abs=1e-6)
    assert ours(wrong, target).item() == pytest.approx((1 - 2 / 3 + 1) / 3, abs=1e-3)
    assert ours(right, target).item() == pytest.approx(0, abs=1e-3)


def test_ssim_is_halved_in_kornia():
    # in float64, because in float32 their variances of flat images are what rounding leaves of them
    first, second = (torch.full((1, 1, 16, 16), grey, dtype=torch.float64) for grey in (0.5, 0.6))
    ours = build("ssim")(first, second).item()
    assert kornia.ssim_loss(first, second, 11, padding="valid").item() == pytest.approx(ours / 2, rel=1e-4)


def test_alpha_of_focal_means_foreground_in_kornia():
    """All classes but the first get alpha, the first 1 - alpha: no factor for all classes does that."""
    logits = torch.zeros(1, 3, 1, 2)
    theirs = kornia.focal_loss(logits, torch.tensor([[[0, 1]]]), alpha=0.25, gamma=2.0)
    first, second = (theirs.sum(1).flatten()[place].item() for place in (0, 1))
    assert first == pytest.approx(3 * second, rel=1e-4)
