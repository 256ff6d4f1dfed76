"""Losses on the Lovász extension of the Jaccard loss: an overlap of sets, made continuous in the errors of its pixels.

A dense prediction gives one value per image, (N,); without further dimensions every item is an image of one pixel. With
`over_batch` the pixels of the whole batch are those of one image, and every image carries its value.
"""

from typing import Literal

import torch
from torch import Tensor

from losses.adapters import is_target
from losses.checks import check_choice, check_class_logits, check_pair
from losses.loss import about
from losses.shared import masked_labels, spread_mask


def _extension(errors: Tensor, truth: Tensor, mask: Tensor | None) -> Tensor:
    """Return the Lovász extension of the Jaccard loss (...) at the errors (...,P) of pixels.

    The pixels are taken from the greatest error to the smallest; each one's error is multiplied by what the Jaccard
    loss of a set of wrong pixels gains when the pixel joins those before it: with I pixels of the truth not yet wrong,
    and U in the union, 1/U for one of the truth, else I/(U (U-1)), 1 for the first where nothing is true. Written so,
    instead of as a difference, no digits cancel.

    Args:
        errors: 0 or more.
        truth: bool, pixels of the region.
        mask: bool, pixels that count; None: all.
    """
    if mask is not None:
        truth, errors = truth & mask, errors.masked_fill(~mask, -1)  # the last of all
    errors, order = errors.sort(dim=-1, descending=True)
    truth = truth.gather(-1, order)
    hits = truth.cumsum(-1, dtype=torch.int32)  # whole numbers, exact for two thousand million pixels
    size = hits[..., -1:]
    rank = torch.arange(1, hits.shape[-1] + 1, dtype=torch.int32, device=hits.device)
    union = (size + (rank - hits)).to(errors.dtype)
    # 0/0 is the first pixel where nothing is true: its error counts whole
    gain = torch.where(truth, 1, (size - hits) / (union - 1)).nan_to_num(nan=1) / union
    return (errors * gain if mask is None else torch.where(errors < 0, 0, errors * gain)).sum(-1)


def _as_images(pixels: Tensor, over_batch: bool) -> Tensor:
    """Return (N,P) from (N,...), or (1,N*P) of the whole batch."""
    return pixels.reshape(1, -1) if over_batch else pixels.unsqueeze(-1).flatten(1)


@about(
    name="Lovász-softmax",
    family="region",
    kind="class_logits",
    link="softmax",
    paper="Berman et al., CVPR 2018, arXiv 1705.08790, eq. 11-12; settings of the authors' code",
    evidence="V",
    per_image=True,
    whole_batch=True,
)
def lovasz_softmax(
    logits: Tensor,
    target: Tensor,
    *,
    classes: Literal["present", "all"] = "present",
    over_batch: bool = True,
    mask: Tensor | None = None,
) -> Tensor:
    """Convex surrogate of 1 - mean IoU: errors of probabilities, weighted by what each costs of the Jaccard index.

    L = mean_c J_c(m_c), m_c = 1 - p_c where c is the class and p_c elsewhere, p = softmax(z), J the Lovász extension of
    the Jaccard loss. classes: the mean is over those that are present, or over all. over_batch: the pixels of the whole
    batch are sorted together, as the authors do, so that its IoU is that of the batch, not the mean of the images'.
    logits: (N,C,...); target: (N,...) int64; mask: bool (N,...), pixels that count; returns (N,).

    >>> lovasz_softmax(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]]))
    tensor([0.5000])
    """
    check_choice("classes", classes, ("present", "all"))
    target, mask = masked_labels(target, mask)
    check_class_logits(logits, target)
    kept = torch.promote_types(logits.dtype, torch.float32)
    if not target.numel():
        return logits.to(kept).flatten(1).sum(1)
    pixels = _by_class(logits.to(kept), over_batch)
    own = is_target(_as_images(target, over_batch), logits.shape[1])
    counted = None if mask is None else _as_images(mask, over_batch).unsqueeze(1)
    errors = (pixels.softmax(1) - own.to(kept)).abs()
    losses = _extension(errors, own, counted)
    there = own if counted is None else own & counted
    present = there.any(-1) if classes == "present" else torch.ones_like(losses, dtype=torch.bool)
    values = torch.where(present, losses, 0).sum(1) / present.sum(1).clamp_min(1)
    return values.expand(len(target))


def _by_class(pixels: Tensor, over_batch: bool) -> Tensor:
    """Return (N,C,P) from (N,C,...), or (1,C,N*P) of the whole batch."""
    flat = pixels.unsqueeze(-1).flatten(2)
    return flat.movedim(1, 0).flatten(1).unsqueeze(0) if over_batch else flat


@about(
    name="Lovász hinge",
    family="region",
    kind="binary_logits",
    link=None,
    paper="Yu and Blaschko, ICML 2015; Berman et al., CVPR 2018, arXiv 1705.08790, eq. 9-10",
    evidence="V",
    per_image=True,
)
def lovasz_hinge(logits: Tensor, target: Tensor, *, over_batch: bool = False, mask: Tensor | None = None) -> Tensor:
    """Convex surrogate of 1 - IoU of one region: hinge errors, weighted by what each costs of the Jaccard index.

    L = J(m), m = max(1 - y z, 0), y = 2 t - 1, J the Lovász extension of the Jaccard loss. One value per image, as in
    the authors' code. It makes no probabilities: the score 0 parts the region from the rest. logits and target (0 or 1;
    what is above a half is of the region) of one shape (N,...); mask: bool, same shape, pixels that count; returns
    (N,).

    >>> lovasz_hinge(torch.zeros(1, 4), torch.tensor([[0.0, 0, 0, 1]]))
    tensor([1.])
    """
    check_pair(logits, target)
    kept = torch.promote_types(logits.dtype, torch.float32)
    sign = torch.rsub(target, 1, alpha=2).to(kept)
    errors = (1 + sign * logits.to(kept)).relu()
    if not target.numel():
        return errors.unsqueeze(-1).flatten(1).sum(1).to(kept)
    counted = None if mask is None else _as_images(spread_mask(mask, target.shape), over_batch)
    values = _extension(_as_images(errors, over_batch), _as_images(target > 0.5, over_batch), counted)
    return values.expand(len(target))
