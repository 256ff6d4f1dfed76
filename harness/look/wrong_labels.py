"""How many training labels look wrong, by predictions out of sample, and between which classes.

The way is that of confident learning (Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in
Dataset Labels", JAIR 70, 2021): a simple model predicts items that it has not seen, those that it is sure of are kept,
and their labels are counted against its predictions. Where the paper has thresholds of probability, the half of the
items of every predicted class counts whose margin over the second class is largest: wrong labels lower all
probabilities alike, and leave that order as it is. The most certain quarter has fewer errors of the model itself than
the half; the line through both says what is left where they end.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.decoded import gather
from datasets.labelled_tables import LabelledTable
from datasets.splits import Images, Splits

MOST = 5000
"""Items that are looked at, if they are in memory: seconds of one processor."""
MOST_FILES = 2000
"""And if they are read from files."""
LEAST, LEAST_OF_CLASS = 200, 20
"""Items, and items of a class, below which nothing is said of it."""
SEPARATED = 0.75
"""Share of right predictions, wrong labels discounted, below which features do not tell classes apart well enough."""
MOST_WRONG = 0.5
"""Share of labels beyond which disagreement says nothing of labels: those that are right are no longer the rule."""
FOLDS, SEED = 4, 0
SIDE, EDGES, CELLS = 14, 64, 5
"""Pixels of a side to which images are reduced, for their values and for their edges; cells of a side of the latter."""
DIRECTIONS = 8
Z = 1.96


@dataclass(frozen=True)
class Estimate:
    """How many labels look wrong.

    Attributes:
        share: of labels, 0 to 1.
        low: of an interval of about 95 %: no item of which the model is most certain is its own error.
        high: all disagreement of the half that it is sure of is wrong labels.
        accuracy: share of predictions that agree with the label.
        pair: the most frequent label among them, and what it looks like, as numbers of classes; None: none stands out.
    """

    share: float
    low: float
    high: float
    accuracy: float
    pair: tuple[int, int] | None = None

    @property
    def possible(self) -> bool:
        """Whether the features separate the classes well enough to say so."""
        return self.share <= MOST_WRONG and self.accuracy >= SEPARATED * (1 - self.share)


def told(splits: Any) -> tuple[list[str], list[str]]:
    """Return sentences on wrong labels: facts, and warnings with what to do. None where items have no single label, or
    are too few.
    """
    found = items_of(splits)
    estimate = estimated(*found) if found else None
    if estimate is None:
        return [], []
    if not estimate.possible:
        words = (
            "How many labels are wrong cannot be estimated: a simple model agrees with only "
            f"{100 * estimate.accuracy:.0f} % of them, so its own errors cannot be told from those of labels."
        )
        return [words], []
    low, high = math.floor(100 * estimate.low), math.ceil(100 * estimate.high)
    words = f"About {100 * estimate.share:.0f} % of training labels look wrong [{low}, {high}]"
    if estimate.pair:
        label, like = (splits.classes[number] for number in estimate.pair)
        words += f", most often {label} that looks like {like}"
    words += ", or cannot be told from another class by a simple model."
    if estimate.low < 0.02:
        return [words], []
    return [], [
        f"{words} Losses that wrong labels move little (symmetric_cross_entropy, generalized_cross_entropy, mae_prob) "
        "are worth comparing."
    ]


def estimated(features: np.ndarray, labels: np.ndarray) -> Estimate | None:
    """Return how many labels look wrong.

    Args:
        features: (N, F), of whatever scale.
        labels: (N,), class of each item; classes with fewer than `LEAST_OF_CLASS` items are left out.

    Returns:
        The estimate; None where fewer than `LEAST` items or two classes are left.
    """
    counts = np.bincount(labels)
    kept = np.flatnonzero(counts[labels] >= LEAST_OF_CLASS)
    features, labels = features[kept], labels[kept]
    names, target = np.unique(labels, return_inverse=True)
    if len(target) < LEAST or len(names) < 2:
        return None
    order = np.sort(likely := _predicted(features, target), axis=1)
    margin, guess = order[:, -1] - order[:, -2], likely.argmax(1)
    quarter, half = (_sure(margin, guess, share) for share in (0.25, 0.5))
    first, both = _rate(quarter, guess, target), _rate(half, guess, target)
    start = min(max(2 * first - both, 0.0), first)  # 1.5 first - 0.5 of the other quarter, hence its error
    low = max(0.0, start - Z * math.sqrt(2.5) * _error(first, len(quarter)))
    high = min(1.0, max(first, both) + Z * _error(both, len(half)))
    wrong = half[guess[half] != target[half]]
    pairs = _commonest(names, target[wrong], guess[wrong])
    return Estimate((start + first) / 2, low, high, float((guess == target).mean()), pairs)


def _predicted(features: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the probability of every class for every item, (N, C), by models that were fitted without the item."""
    from sklearn.decomposition import PCA
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(
        StandardScaler(),
        PCA(0.95, svd_solver="full"),
        StandardScaler(with_std=False),
        Nystroem(n_components=min(300, len(target) // 2), random_state=SEED),
        StandardScaler(),
        LogisticRegression(C=0.01, max_iter=200),
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a model that has not quite converged does
        return np.asarray(cross_val_predict(model, features, target, cv=folds, method="predict_proba"))


def _sure(margin: np.ndarray, guess: np.ndarray, share: float) -> np.ndarray:
    """Return the items of largest margin, so large a share of those of every predicted class."""
    chosen = []
    for number in np.unique(guess):
        own = np.flatnonzero(guess == number)
        chosen.append(own[np.argsort(-margin[own], kind="stable")][: math.ceil(share * len(own))])
    return np.concatenate(chosen)


def _rate(chosen: np.ndarray, guess: np.ndarray, target: np.ndarray) -> float:
    return float((guess[chosen] != target[chosen]).mean())


def _error(rate: float, count: int) -> float:
    """Return the standard error of a rate, of one item at least."""
    return math.sqrt(max(rate * (1 - rate), 1 / count) / count)


def _commonest(names: np.ndarray, label: np.ndarray, guess: np.ndarray) -> tuple[int, int] | None:
    """Return the most frequent pair of a label and what it looks like, if it stands out: a tenth of all, and five."""
    if not len(label):
        return None
    pairs, counts = np.unique(np.stack([label, guess]), axis=1, return_counts=True)
    most = int(counts.argmax())
    if counts[most] < max(5, len(label) / 10):
        return None
    return int(names[pairs[0, most]]), int(names[pairs[1, most]])


def items_of(splits: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Return features and labels of training items, (N, F) and (N,); None where they have no single label each."""
    part = splits.train
    if isinstance(splits, LabelledTable):
        rows = _some(len(part), MOST)
        return part.features[rows].numpy(), part.targets[rows].numpy()
    if not isinstance(splits, Splits) or not isinstance(part, Images) or part.targets.ndim != 1:
        return None
    rows = _some(len(part), MOST if isinstance(part.images, Tensor) else MOST_FILES)
    parts: Sequence[Tensor] = [_described(gather([part.images], chunk)[0]) for chunk in rows.split(256)]
    return torch.cat(list(parts)).numpy(), part.labels[rows].numpy()


def _some(count: int, most: int) -> Tensor:
    """Return at most so many rows, drawn at random, in order."""
    drawn = np.random.default_rng(SEED).permutation(count)[:most]
    return torch.from_numpy(np.sort(drawn))


def _described(images: Tensor) -> Tensor:
    """Return features of images uint8 (N, C, H, W), float32 (N, F): pixels and directions of edges, both coarse.

    Edges are as in histograms of oriented gradients (Dalal and Triggs, CVPR 2005): for each cell, how strong they are
    in each direction, relative to the cell and to the image.
    """
    images = _reduced(images.float() / 255, EDGES)
    across = F.pad(images[..., 2:] - images[..., :-2], (1, 1))
    down = F.pad(images[..., 2:, :] - images[..., :-2, :], (0, 0, 1, 1))
    strength, channel = (across.square() + down.square()).sqrt().max(1, keepdim=True)
    turn = torch.atan2(down.gather(1, channel), across.gather(1, channel)) / (2 * math.pi) * DIRECTIONS
    apart = (turn - torch.arange(DIRECTIONS).view(1, -1, 1, 1)).remainder(DIRECTIONS)
    weight = (1 - torch.minimum(apart, DIRECTIONS - apart)).clamp_min(0)
    edges = F.adaptive_avg_pool2d(weight * strength, CELLS)
    cell, whole = (edges.square().sum(dims, keepdim=True).sqrt() for dims in (1, (1, 2, 3)))
    return torch.cat([_reduced(images, SIDE).flatten(1), (edges / (cell + whole / CELLS + 1e-6)).flatten(1)], 1)


def _reduced(images: Tensor, side: int) -> Tensor:
    """Return images whose sides have at most so many pixels."""
    height, width = (min(size, side) for size in images.shape[2:])
    return F.adaptive_avg_pool2d(images, (height, width))
