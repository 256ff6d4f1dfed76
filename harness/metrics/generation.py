"""How generated images are evaluated: their features are compared with those of real images that no model has seen.

The features come from a fixed random network, not from Inception, so the Fréchet distance here is not the FID of
papers: it ranks models on one data set, at one number of samples, and cannot be compared with published numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.metrics.declared import Metric, share
from losses.structural import ssim

COMPONENTS = 32
NEIGHBOURS = 5
WIDTHS = (32, 64)
WINDOW = 7

METRICS = (
    Metric("frechet", "Fréchet distance", higher_is_better=False, low=0.0),
    Metric("mmd", "squared kernel distance", digits=4, higher_is_better=False),
    share("coverage", "coverage"),
    share("separability", "separability", higher_is_better=False),
    share("authenticity", "authenticity"),
)
"""What `Comparison.scores` returns."""
RECONSTRUCTION = (
    Metric("pixel_error", "error of a reconstructed pixel", higher_is_better=False, low=0.0, high=1.0),
    Metric("similarity", "SSIM of reconstructions", low=-1.0, high=1.0),
    share("recognised", "recognised reconstructions"),
)
"""What `Reconstruction.scores` returns."""


class RandomFeatures(nn.Module):
    """Features of images from two random convolutions, reduced to the principal components of training images.

    The weights are drawn from a seed of their own, so they are the same for every run; no label is used. The features
    of the training images have a total variance of 1, hence a model that always makes the mean image has a Fréchet
    distance of about 1.

    Args:
        images: training images (N,C,H,W) in [0, 1].
        components: the most principal components to keep.
        seed: of the random weights.

    Source:
        Random convolutions as features: Saxe et al., On random weights and unsupervised feature learning, ICML 2011.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, images: Tensor, components: int = COMPONENTS, seed: int = 0) -> None:
        super().__init__()
        self.maps = RandomMaps(images.shape[1], seed).to(images.device)
        found = self._raw(images)
        centred = found - found.mean(0)
        _, spread, basis = torch.linalg.svd(centred, full_matrices=False)
        variance = spread[:components].square().sum() / max(1, len(images) - 1)
        self.register_buffer("mean", found.mean(0))
        self.register_buffer("basis", basis[:components].T / variance.clamp_min(1e-12).sqrt())

    def _raw(self, images: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(self.maps(images), 2).flatten(1).double()

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (N,F) in float64 of images (N,C,H,W) in [0, 1]."""
        return (self._raw(images) - self.mean) @ self.basis


class RandomMaps(nn.Module):
    """Two random 3x3 convolutions with ReLU, the second with stride 2, that nothing trains.

    Args:
        channels: of an image.
        seed: of the weights.
    """

    def __init__(self, channels: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for number, width in enumerate(WIDTHS):
            weight = torch.randn(width, channels, 3, 3, generator=generator) * (2 / (9 * channels)) ** 0.5
            self.register_buffer(f"weight{number}", weight, persistent=False)
            self.register_buffer(f"bias{number}", 0.3 * torch.randn(width, generator=generator), persistent=False)
            channels = width

    def forward(self, images: Tensor) -> Tensor:
        """Return feature maps (N,64,H/2,W/2), sides rounded up, of images (N,C,H,W) in [0, 1]."""
        maps = 2 * images.float() - 1
        for number in range(len(WIDTHS)):
            weight, bias = (getattr(self, f"{name}{number}") for name in ("weight", "bias"))
            maps = functional.conv2d(maps, weight, bias, stride=1 + number, padding=1).relu()
        return maps


class Comparison:
    """Features of generated images beside those of real ones; at most as many are kept as the task generates.

    Args:
        real: features (M,F) of held-out images.
        train: features (K,F) of training images.
    """

    def __init__(self, real: Tensor, train: Tensor) -> None:
        self.real, self.train = real, train
        self.kept: list[Tensor] = []

    def add(self, features: Tensor) -> None:
        """Take the features (N,F) of a batch of generated images."""
        self.kept.append(features)

    def scores(self) -> dict[str, float]:
        """Return all metrics: ``frechet``, ``mmd``, ``coverage``, ``separability`` and ``authenticity``, defined by the
        functions of these names.
        """
        found, real = torch.cat(self.kept), self.real
        scalars = {
            "frechet": frechet(found, real),
            "mmd": mmd(found, real),
            "coverage": coverage(found, real),
            "separability": separability(found[: len(real)], real[: len(found)]),
            "authenticity": authenticity(found, self.train),
        }
        return dict(zip(scalars, torch.stack(list(scalars.values())).tolist(), strict=True))


class Reconstruction:
    """Reconstructed images beside the images themselves, added up batch by batch.

    Args:
        train: features (K,F) of training images.
        labels: their classes (K,).
    """

    def __init__(self, train: Tensor, labels: Tensor) -> None:
        self.train, self.labels = train, labels
        self.sums = torch.zeros(3, dtype=torch.float64, device=train.device)
        self.count = 0

    def add(self, found: Tensor, images: Tensor, features: Tensor, labels: Tensor) -> None:
        """Take a batch: reconstructions and images (N,C,H,W) in [0, 1], features (N,F) of the former, classes (N,)."""
        window = min(WINDOW, *images.shape[2:])
        named = self.labels[torch.cdist(features, self.train).argmin(1)]
        values = (
            (found - images).double().square().flatten(1).mean(1),
            1 - ssim(found, images, window=window).double(),
            (named == labels).double(),
        )
        self.sums += torch.stack(values).sum(1)
        self.count += len(images)

    def scores(self) -> dict[str, float]:
        """Return all metrics.

        Returns:
            ``pixel_error``, the root of the mean squared error of a pixel, in shares of the range from black to white;
            ``similarity``, the mean SSIM (Wang et al., IEEE TIP 13(4), 2004) under windows of at most 7 pixels;
            ``recognised``, the share of reconstructions whose nearest training image, by features, has the class of
            the image that they stand for.
        """
        squares, similarity, recognised = (self.sums / self.count).tolist()
        return {"pixel_error": squares**0.5, "similarity": similarity, "recognised": recognised}


def frechet(first: Tensor, second: Tensor) -> Tensor:
    """Return the Fréchet distance of two sets of features, (N,F) and (M,F), each taken to be normally distributed.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), means m and covariances S (divided by N - 1): 0 where they agree, no
    upper bound, in squared units of the features. Small sets make it too high: compare equal sizes only.

    Source:
        Dowson and Landau, Journal of Multivariate Analysis 12(3), 1982; Heusel et al., NeurIPS 2017, arXiv 1706.08500,
        on Inception features instead.
    """
    apart = (first.mean(0) - second.mean(0)).square().sum()
    one, two = (torch.cov(features.T).view(features.shape[1], -1) for features in (first, second))
    values, vectors = torch.linalg.eigh(one)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ two @ root).clamp_min(0).sqrt().sum()
    return (apart + one.trace() + two.trace() - 2 * shared).clamp_min(0)


def mmd(found: Tensor, real: Tensor) -> Tensor:
    """Return the squared maximum mean discrepancy of features (N,F) and (M,F), without bias.

    mean k(x, x') + mean k(y, y') - 2 mean k(x, y) over distinct items, k(x, y) = exp(-|x - y|^2 / (2 s^2)), s the
    median distance of real items. At most 2; about 0, below it as often as above, where the distributions are one.

    Source:
        Gretton et al., A kernel two-sample test, JMLR 13, 2012, eq. 3; bandwidth: sec. 8.
    """
    among = torch.pdist(real)
    scale = 2 * among.median().square().clamp_min(1e-12)
    within = [torch.exp(-distances.square() / scale).mean() for distances in (torch.pdist(found), among)]
    return within[0] + within[1] - 2 * torch.exp(-torch.cdist(found, real).square() / scale).mean()


def coverage(found: Tensor, real: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Return the share of real items that have a generated item nearer than their k-th nearest real neighbour.

    In [0, 1], more is better; it grows with the number of generated items. Features (N,F) and (M,F).

    Source:
        Naeem et al., Reliable fidelity and diversity metrics, ICML 2020, arXiv 2002.09797, eq. 10.
    """
    radius = torch.cdist(real, real).kthvalue(min(neighbours + 1, len(real)), dim=1).values  # the first is the item
    return (torch.cdist(real, found).amin(1) < radius).double().mean()


def separability(found: Tensor, real: Tensor) -> Tensor:
    """Return how far from chance it can be seen which items are real: |2 a - 1|, a the accuracy with which the nearest
    of all other items names the set of an item.

    In [0, 1], less is better: 0 means not at all, 1 that every neighbour belongs to the own set, or, where items are
    copies of each other, to the other set. Features (N,F) and (N,F).

    Source:
        Lopez-Paz and Oquab, Revisiting classifier two-sample tests, ICLR 2017, arXiv 1610.06545.
    """
    both = torch.cat([found, real])
    is_real = torch.arange(len(both), device=both.device) >= len(found)
    distances = torch.cdist(both, both).fill_diagonal_(torch.inf)
    right = is_real[distances.argmin(1)] == is_real
    return (2 * right.double().mean() - 1).abs()


def authenticity(found: Tensor, train: Tensor) -> Tensor:
    """Return the share of generated items that are no copies of a training item: the nearest training item has another
    training item nearer to it than the generated one.

    In [0, 1], more is better; a copy of the training set has 0, and new items of the same distribution about 1/2.
    Features (N,F) and (K,F).

    Source:
        Alaa et al., How faithful is your synthetic data?, ICML 2022, arXiv 2102.08921, sec. 5.
    """
    own = torch.cdist(train, train).fill_diagonal_(torch.inf).amin(1)
    nearest = torch.cdist(found, train).min(1)
    return (nearest.values > own[nearest.indices]).double().mean()
