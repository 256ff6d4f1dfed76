"""Losses on Euclidean distances between features.

Those over a batch with classes compare every item with all others, so memory grows with the square of the batch; their
value for an item is its mean over the comparisons that exist, 0 where none does.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from losses.adapters import is_target
from losses.checks import check_choice, check_features, check_float, check_pair, check_range
from losses.loss import about
from losses.shared import CustomFunction, in_full_precision, masked_labels, safe_sqrt, unit


@about(
    name="Center",
    family="euclidean",
    kind="features",
    link=None,
    paper="Wen et al., ECCV 2016, eq. 2-4",
    evidence="H",
)
class Center(nn.Module):
    """Half the squared distance of features to the centre of their class; the centres are moving averages.

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
        target, mask = masked_labels(target, mask)
        check_features(features, target, self.centres.shape[1], len(self.centres))
        away = features - self.centres[target]
        if self.training:
            self._follow(away, target, mask)
        return away.square().sum(1) / 2

    @torch.no_grad()
    @in_full_precision
    def _follow(self, away: Tensor, target: Tensor, mask: Tensor | None) -> None:
        # a matrix product, because adding at an index is not reproducible on a GPU
        member = is_target(target, len(self.centres)).to(away.dtype)
        if mask is not None:
            member = member * mask.unsqueeze(1)
        step = member.T @ away / (1 + member.sum(0)).unsqueeze(1)
        # replaced, not changed: a compiled backward pass may read them once more
        self.centres = torch.add(self.centres, step, alpha=self.alpha).to(self.centres.dtype)


# ---------------------------------------------------------------- of all items of a batch

NEIGHBOURS = 1e-14
"""Squared distance beside the sum of both squared lengths below which float32 cannot tell features apart."""


def squared_distances(features: Tensor, exact: bool = True) -> Tensor:
    """Return squares (N,N) from (N,F), at least float32; not exact: small ones are only as precise as the largest.

    Exact: 0 for features as near as neighbouring numbers of float32, so that no root has a slope made of rounding.
    """
    return _SquaredDistances.of(features.to(torch.promote_types(features.dtype, torch.float32)), exact)


class _SquaredDistances(CustomFunction):
    """By products of matrices, many times faster than by differences; in float64 where a root makes much of small ones,
    on a GPU by differences there.

    By hand, because autograd would keep N x N x F differences for the gradient, which is a product of matrices.
    """

    @classmethod
    def plain(cls, x: Tensor, exact: bool) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return them by differences."""
        return (x.unsqueeze(1) - x.unsqueeze(0)).square().sum(2)

    @staticmethod
    @in_full_precision
    def forward(x: Tensor, exact: bool) -> Tensor:
        if exact and (x.dtype == torch.float64 or x.device.type != "cpu"):  # GPUs may be slow in float64
            return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()
        centred = x - x.mean(0)  # distances do not change, but fewer digits cancel
        centred = centred.double() if exact else centred
        products = centred @ centred.mT
        sizes = products.diagonal().clone()
        sums = sizes.unsqueeze(1) + sizes
        squared = torch.sub(sums, products, alpha=2)
        if not exact:
            return squared.clamp_min(0)
        del products  # numbers of float64 take twice the memory
        near = squared <= NEIGHBOURS * sums
        return squared.to(x.dtype).masked_fill(near, 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, bool], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        both = slope + slope.mT
        x = x - x.mean(0)  # as above
        return 2 * (both.sum(1, keepdim=True) * x - both @ x), None


def class_pairs(target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (N,N) booleans: pairs of different items of one class, and of two classes; masked items are in none."""
    same = target.unsqueeze(1) == target.unsqueeze(0)
    there = torch.ones_like(target, dtype=torch.bool) if mask is None else mask
    both = there.unsqueeze(1) & there.unsqueeze(0)
    apart = ~torch.eye(len(target), dtype=torch.bool, device=target.device)
    return same & both & apart, ~same & both


def _mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """Return (N,): the mean of the chosen values of each row."""
    return (values * chosen).sum(1) / chosen.sum(1).clamp_min(1)


def check_batch(features: Tensor, target: Tensor) -> None:
    """Refuse features (N,F) that are no floating-point numbers, or targets that are not one class for each."""
    check_features(features, target, features.shape[-1])


@about(
    name="Contrastive",
    family="euclidean",
    kind="features",
    link=None,
    paper="Hadsell, Chopra and LeCun, CVPR 2006, eq. 4, with similar pairs as 1",
    evidence="H",
    whole_batch=True,
)
def contrastive(
    features: Tensor, target: Tensor, *, margin: float = 1.0, half: bool = True, mask: Tensor | None = None
) -> Tensor:
    """Squared distance of pairs of one class, and squared hinge on the distance of pairs of different classes.

    L = 1/2 [s D^2 + (1 - s) max(m - D, 0)^2] over all pairs of a batch, s = 1 for one class; without the half by
    option. The margin depends on the scale of the features. features: (N,F); target: (N,) int64; mask: bool (N,), items
    that count; returns (N,), each item's mean over its pairs.

    >>> contrastive(torch.tensor([[0.0], [0.3]]), torch.tensor([0, 1]))
    tensor([0.2450, 0.2450])
    """
    check_batch(features, target)
    check_range("margin", margin, 0)
    same, other = class_pairs(target, mask)
    squared = squared_distances(features)
    values = torch.where(same, squared, (margin - safe_sqrt(squared)).relu().square())
    return _mean_over(values, same | other) * (0.5 if half else 1)


@about(
    name="Triplet",
    family="euclidean",
    kind="features",
    link=None,
    paper="Hermans, Beyer and Leibe, arXiv 1703.07737, eq. 5 and the soft margin of section 2; Schroff et al., FaceNet",
    evidence="V",
    aliases=("batch_hard", "re_identification"),
    whole_batch=True,
)
def triplet(
    features: Tensor,
    target: Tensor,
    *,
    margin: float = 0.2,
    squared: bool = False,
    normalised: bool = False,
    soft: bool = True,
    mask: Tensor | None = None,
) -> Tensor:
    """Softplus of the distance to the farthest item of the same class minus that to the nearest of another.

    L_i = ln(1 + exp(d(i, p) - d(i, n))), p the farthest of its class, n the nearest of another; 0 for an item that
    lacks either. soft: Hermans' soft margin; else max(d(i, p) - d(i, n) + m, 0). normalised and squared: as in FaceNet,
    squared distances of features of length 1, whose hinge (margin 0.2) on the hardest items can fold all features into
    one point, where it rests at m. features: (N,F); target: (N,) int64; mask: bool (N,), items that count; returns
    (N,).

    >>> triplet(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]]), torch.tensor([0, 0, 1]))
    tensor([0.6931, 0.4491, 0.0000])
    """
    check_batch(features, target)
    check_range("margin", margin, 0)
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    features = unit(features) if normalised else features
    if not len(target):
        return features.sum(1)
    same, other = class_pairs(target, mask)
    # found among all by products of matrices; only the distances to these two are needed, and with full precision
    ranked = squared_distances(features.detach(), exact=False)
    farthest, nearest = ranked.masked_fill(~same, -1).argmax(1), ranked.masked_fill(~other, float("inf")).argmin(1)
    distance = (features.unsqueeze(1) - features[torch.stack([farthest, nearest], 1)]).square().sum(2)
    distance = distance if squared else safe_sqrt(distance)
    possible = same.any(1) & other.any(1)
    hardest = torch.where(possible, distance[:, 0] - distance[:, 1], 0)
    values = functional.softplus(hardest) if soft else (hardest + margin).relu()
    return torch.where(possible, values, 0)


@about(
    name="Range",
    family="euclidean",
    kind="features",
    link=None,
    paper="Zhang et al., ICCV 2017, arXiv 1611.08976, eq. 5-9; its settings could not be confirmed",
    evidence="H",
    whole_batch=True,
)
@in_full_precision
def range_loss(
    features: Tensor,
    target: Tensor,
    *,
    margin: float = 2e4,
    intra: float = 1e-4,
    inter: float = 1e-3,
    mask: Tensor | None = None,
) -> Tensor:
    """Harmonic means of the largest distances inside each class, plus a hinge on the distance of the nearest two means.

    L = intra sum_c H_c + inter max(M - min |mean_c - mean_d|^2, 0), H_c the harmonic mean of the two greatest squared
    distances inside class c; every item carries the batch's value. A class with one pair uses it twice over, one
    without none; with one class there is no second term. Settings are those of a public port, for features that are not
    normalised. features: (N,F); target: (N,) int64; mask: bool (N,), items that count; returns (N,).

    >>> range_loss(torch.tensor([[0.0], [1.0], [4.0]]), torch.tensor([0, 0, 1]), margin=20.0, intra=1.0, inter=1.0)
    tensor([8.7500, 8.7500, 8.7500])
    """
    check_batch(features, target)
    check_range("margin", margin, 0)
    same, other = class_pairs(target, mask)
    if len(target) < 2:
        return features.sum(1) * 0
    squared = squared_distances(features)
    # each pair once, at its first item; an item stands for its class if it is the first of it
    index = torch.arange(len(target), device=target.device)
    once = same & (index.unsqueeze(1) < index.unsqueeze(0))
    of_class = (same | torch.eye(len(target), dtype=torch.bool, device=target.device)).to(features.dtype)
    first = ~(same & (index.unsqueeze(0) < index.unsqueeze(1))).any(1)
    if mask is not None:
        first = first & mask
    # (N, N*N) would be cubic: the greatest pair of each row, then the two greatest rows of the class
    rows = squared.masked_fill(~once, 0).topk(min(2, len(target)), dim=1).values
    spread = (of_class.unsqueeze(2) * rows.unsqueeze(0)).flatten(1).topk(2, dim=1).values
    absent = spread <= 0
    inverse = torch.where(absent, 0, 1 / torch.where(absent, 1, spread)).sum(1)
    pairs = (~absent).sum(1)
    harmonic = torch.where(pairs > 0, 2 / torch.where(pairs > 0, inverse * 2 / pairs.clamp_min(1), 1), 0)
    within = (harmonic * first).sum()
    members = of_class if mask is None else of_class * mask
    means = members @ features / members.sum(1, keepdim=True).clamp_min(1)
    centres = squared_distances(means).masked_fill(~other, float("inf"))
    nearest = centres.min()
    between = torch.where(other.any(), (margin - torch.where(other.any(), nearest, 0)).relu(), 0)
    return (intra * within + inter * between).expand(len(target))


def _cosines(features: Tensor) -> Tensor:
    """Return the cosines (N,N) of features (N,F) with each other, at least float32; 0 with one of length 0."""
    directions = unit(features.to(torch.promote_types(features.dtype, torch.float32)))
    return directions @ directions.T


@about(
    name="Supervised contrastive",
    family="euclidean",
    kind="features",
    link=None,
    paper="Khosla et al., NeurIPS 2020, arXiv 2004.11362, eq. 2, L_out",
    evidence="V",
    aliases=("supcon",),
    whole_batch=True,
)
@in_full_precision
def supervised_contrastive(
    features: Tensor, target: Tensor, *, temperature: float = 0.1, mask: Tensor | None = None
) -> Tensor:
    """Cross-entropy of picking an item of the same class out of all other items of the batch, by scaled cosines.

    L_i = -mean_p ln(e^(S_ip) / sum_{a != i} e^(S_ia)), p over the other items of i's class, S the cosines over the
    temperature; 0 for an item that is alone with its class. The paper has two views of every image in a batch
    (task.views=2), and trains a linear classifier afterwards; its code has a temperature of 0.07. features: (N,F);
    target: (N,) int64; mask: bool (N,), items that count; returns (N,).

    >>> supervised_contrastive(torch.eye(2)[[0, 0, 1]], torch.tensor([0, 0, 1]), temperature=1.0)
    tensor([0.3133, 0.3133, 0.0000])
    """
    check_batch(features, target)
    check_range("temperature", temperature, 0, above=True)
    same, other = class_pairs(target, mask)
    similar = _cosines(features) / temperature
    rivals = same | other
    # an item without any other has no logarithm
    rivals = rivals | ~rivals.any(1, keepdim=True) if len(target) else rivals
    entropy = similar.masked_fill(~rivals, float("-inf")).logsumexp(1, keepdim=True) - similar
    return _mean_over(entropy, same)


@about(
    name="Multi-similarity",
    family="euclidean",
    kind="features",
    link=None,
    paper="Wang et al., CVPR 2019, arXiv 1904.06627, eq. 13-15",
    evidence="V",
    whole_batch=True,
)
@in_full_precision
def multi_similarity(
    features: Tensor,
    target: Tensor,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    threshold: float = 1.0,
    epsilon: float = 0.1,
    mask: Tensor | None = None,
) -> Tensor:
    """Pairs of one class below a cosine, and of two classes above it, each weighted by how it compares with the others.

    L_i = 1/alpha ln(1 + sum_p e^(-alpha (S_ip - l))) + 1/beta ln(1 + sum_n e^(beta (S_in - l))), S the cosines, p items
    of i's class with S_ip < max_n S_in + epsilon, n others with S_in > min_p S_ip - epsilon; 0 for an item without one
    of each. threshold is l; the authors' code, and most others, have 0.5. features: (N,F); target: (N,) int64; mask:
    bool (N,), items that count; returns (N,).

    >>> multi_similarity(torch.eye(2)[[0, 0, 0]], torch.tensor([0, 0, 1]))
    tensor([0.3604, 0.3604, 0.0000])
    """
    check_batch(features, target)
    for name, value in (("alpha", alpha), ("beta", beta)):
        check_range(name, value, 0, above=True)
    check_range("epsilon", epsilon, 0)
    similar = _cosines(features)
    if not len(target):
        return similar.sum(1)
    same, other = class_pairs(target, mask)
    held = similar.detach()
    hardest = held.masked_fill(~other, float("-inf")).amax(1, keepdim=True) + epsilon
    easiest = held.masked_fill(~same, float("inf")).amin(1, keepdim=True) - epsilon
    # not of a NaN, which goes through
    near, far = same & ~(held >= hardest), other & ~(held <= easiest)
    attract = _softplus_sum(-alpha * (similar - threshold), near) / alpha
    repel = _softplus_sum(beta * (similar - threshold), far) / beta
    return torch.where(near.any(1) & far.any(1), attract + repel, 0)


def _softplus_sum(scores: Tensor, chosen: Tensor) -> Tensor:
    """Return ln(1 + sum of e^score) over the chosen scores of each row, (N,)."""
    scores = scores.masked_fill(~chosen, float("-inf"))
    return torch.cat([torch.zeros_like(scores[:, :1]), scores], 1).logsumexp(1)


@about(
    name="Center-invariant",
    family="euclidean",
    kind="features",
    link=None,
    paper="Wu et al., ACM MM Thematic Workshops 2017, eq. 4; its weights could not be recovered",
    evidence="M",
)
class CenterInvariant(Center):
    """Center loss plus a penalty on the difference of the squared length of a class's centre from the mean over all.

    L = center + 1/4 (|c_t|^2 - mean_k |c_k|^2)^2, the centres with a gradient: they are weights here, drawn as 0 plus a
    small normal, because a penalty on them alone could not move them otherwise. The paper weighs both terms apart.

    >>> loss = CenterInvariant(num_classes=2, num_features=2)
    >>> loss.centres.data = torch.tensor([[1.0, 0.0], [5.0, 5.0]])
    >>> loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0])).detach()
    tensor([150.0625])
    """

    def __init__(self, *, num_classes: int, num_features: int, weight: float = 1.0) -> None:
        nn.Module.__init__(self)
        check_range("weight", weight, 0)
        self.weight_of_lengths = weight
        self.centres = nn.Parameter(0.01 * torch.randn(num_classes, num_features))

    def forward(self, features: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (N,) from features (N,F) and target (N,) int64."""
        target, _ = masked_labels(target, mask)
        check_features(features, target, self.centres.shape[1], len(self.centres))
        lengths = self.centres.square().sum(1)
        apart = (lengths - lengths.mean()).square() / 4
        away = (features.to(self.centres.dtype) - self.centres[target]).square().sum(1) / 2
        return away + self.weight_of_lengths * apart[target]


# ---------------------------------------------------------------- of matched pairs


@about(
    name="Margin ranking",
    family="euclidean",
    kind="score_pairs",
    link=None,
    paper="Herbrich et al., Large Margin Rank Boundaries, 2000",
    evidence="V",
    aliases=("ranking",),
)
def margin_ranking(scores: Tensor, target: Tensor, *, margin: float = 0.5) -> Tensor:
    """Hinge on the difference of two scores, the one that should be greater minus the other.

    L = max(m - y (s_1 - s_2), 0), y = 2 t - 1, m in the unit of the scores. scores: (N,2); target: (N,), 1 where the
    first should be greater, else 0; returns (N,).

    >>> margin_ranking(torch.tensor([[0.9, 0.5], [0.2, 0.6]]), torch.tensor([1.0, 1.0]))
    tensor([0.1000, 0.9000])
    """
    if scores.shape != (len(target), 2):
        raise ValueError(f"scores: shape {tuple(scores.shape)}, allowed is (N, 2) beside a target (N,)")
    check_float("scores", scores)
    check_range("margin", margin, 0)
    first, second = scores.unbind(1)  # whose backward is one copy, that of two selections is four
    return (margin + torch.rsub(target, 1, alpha=2) * (first - second)).relu()


@about(
    name="Symmetric contrast of two views",
    family="euclidean",
    kind="embeddings",
    link=None,
    paper="Radford et al., CLIP, arXiv 2103.00020, fig. 3",
    evidence="H",
    aliases=("clip", "info_nce", "nt_xent"),
    whole_batch=True,
)
@in_full_precision
def clip_contrastive(
    prediction: Tensor, target: Tensor, *, temperature: float = 0.07, mask: Tensor | None = None
) -> Tensor:
    """Cross-entropy of scaled cosines within the batch, partners being the true class, averaged over both directions.

    L_i = 1/2 [CE of row i + CE of column i] of S = x y^T / T, x and y of length 1. prediction and target: (N,F),
    matched row by row; mask: bool (N,), rows that count; returns (N,). CLIP learns T, from 0.07 on.

    >>> clip_contrastive(torch.eye(2), torch.eye(2), temperature=1.0)
    tensor([0.3133, 0.3133])
    """
    check_pair(prediction, target)
    check_choice("prediction.ndim", str(prediction.ndim), ("2",))
    check_range("temperature", temperature, 0, above=True)
    return _contrast(unit(prediction) @ unit(target).T / temperature, mask)


def _contrast(similar: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of the cross-entropies of row i and column i, whose true class is i."""
    rows, columns = similar, similar.T
    if mask is not None:
        partners = mask | torch.eye(len(mask), dtype=torch.bool, device=mask.device)  # an item is its own in any case
        rows, columns = (part.masked_fill(~partners, float("-inf")) for part in (rows, columns))
    return (rows.logsumexp(1) + columns.logsumexp(1)) / 2 - similar.diagonal()


@about(
    name="Audio-visual consistency (reconstruction)",
    family="euclidean",
    kind="embeddings",
    link=None,
    paper="a family name in the documents, without a formula; here the contrast of CLIP, arXiv 2103.00020",
    evidence="R",
    whole_batch=True,
)
def av_consistency(
    prediction: Tensor, target: Tensor, *, temperature: float = 0.07, mask: Tensor | None = None
) -> Tensor:
    """Contrastive cross-entropy within the batch between embeddings of sound and of image from the same moment.

    A reconstruction: `clip_contrastive` of embeddings of sounds and pictures, with its arguments; returns (N,).

    >>> av_consistency(torch.eye(2), torch.eye(2), temperature=1.0)
    tensor([0.3133, 0.3133])
    """
    return clip_contrastive(prediction, target, temperature=temperature, mask=mask)


@about(
    name="Text-image matching (DAMSM)",
    family="euclidean",
    kind="embeddings",
    link=None,
    paper="Xu et al., AttnGAN, CVPR 2018, arXiv 1711.10485, eq. 7-13",
    evidence="M",
    aliases=("text_image_matching",),
    whole_batch=True,
)
@in_full_precision
def damsm(
    prediction: Tensor,
    target: Tensor,
    *,
    attention: float = 5.0,
    words: float = 5.0,
    items: float = 10.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the matching scores of images and captions within the batch, in both directions.

    L_i = -ln softmax_j(g R_ij)_i - ln softmax_j(g R_ji)_i, g = items. Sentences: prediction and target (N,F), R their
    cosine. Words: regions (N,F,R) and words (N,F,T); every word w attends to the regions v, c_w = sum_r a_r v_r, a =
    softmax_r(attention softmax_w(w^T v)), and R = ln(sum_w exp(words cos(c_w, w))) / words. The paper adds both. mask:
    bool (N,), items that count; returns (N,). Memory grows with the square of N.

    >>> damsm(torch.eye(2), torch.eye(2), items=1.0)
    tensor([0.6265, 0.6265])
    """
    for name, value in (("attention", attention), ("words", words), ("items", items)):
        check_range(name, value, 0, above=True)
    check_float("prediction", prediction)
    check_float("target", target)
    if prediction.ndim not in (2, 3) or prediction.shape[:2] != target.shape[:2] or prediction.ndim != target.ndim:
        raise ValueError(
            f"prediction: shape {tuple(prediction.shape)} beside target {tuple(target.shape)}, allowed are (N, F) "
            "both, or (N, F, regions) and (N, F, words)"
        )
    if prediction.ndim == 2:
        return 2 * clip_contrastive(prediction, target, temperature=1 / items, mask=mask)
    overlap = torch.einsum("nfr,mfw->nmwr", prediction, target)
    looked = (attention * overlap.softmax(2)).softmax(3)
    seen = torch.einsum("nmwr,nfr->nmfw", looked, prediction)
    match = functional.cosine_similarity(seen, target[None], dim=2)
    return 2 * _contrast(items * (words * match).logsumexp(2) / words, mask)
