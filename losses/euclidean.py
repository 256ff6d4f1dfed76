"""Losses on Euclidean distances between features."""

import torch
from torch import Tensor, nn

from losses.checks import check_features, check_range
from losses.lift import is_target
from losses.loss import about


@about(
    name="Center",
    family="euclidean",
    takes="features",
    link="none",
    paper="Wen et al., ECCV 2016, eq. 2-4",
    evidence="H",
)
class Center(nn.Module):
    """Pull features towards the centre of their class; the centres follow the features.

    L = 1/2 |x - c_t|^2. Outside back-propagation, and only in training, after every call
    c_j <- c_j - alpha sum_{i: t_i = j} (c_j - x_i) / (1 + n_j), n_j = items of class j in the batch.
    The paper's total is cross-entropy + 0.003 center, summed over the batch; here both are averaged, as in the authors'
    code. Centres start at 0, so that the loss draws no random numbers.

    >>> center = Center(num_classes=2, num_features=2)
    >>> center(torch.tensor([[3.0, 4.0]]), torch.tensor([1]))
    tensor([12.5000])
    >>> center.centres[1]
    tensor([0.7500, 1.0000])
    """

    centres: Tensor

    def __init__(self, *, num_classes: int, num_features: int, alpha: float = 0.5) -> None:
        super().__init__()
        check_range("alpha", alpha, 0)
        self.alpha = alpha
        self.register_buffer("centres", torch.zeros(num_classes, num_features))

    def forward(self, features: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (N,) from features (N,F) and target (N,) int64; masked items move no centre."""
        check_features(features, target, self.centres.shape[1])
        away = features - self.centres[target]
        if self.training:
            self._follow(away, target, mask)
        return away.square().sum(1) / 2

    @torch.no_grad()
    def _follow(self, away: Tensor, target: Tensor, mask: Tensor | None) -> None:
        # a matrix product, because adding at an index is not reproducible on a GPU
        member = is_target(target, len(self.centres)).to(away.dtype)
        if mask is not None:
            member = member * mask.unsqueeze(1)
        step = member.T @ away / (1 + member.sum(0)).unsqueeze(1)
        self.centres.add_(step, alpha=self.alpha)
