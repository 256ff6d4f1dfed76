"""Losses of boxes: how far two rectangles are from being the same.

Row i of the predictions is compared with row i of the targets. Axis-aligned boxes are x1, y1, x2, y2; rotated ones
centre x and y, width, height and angle in radians. Overlap of boxes without area is 0.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from losses.checks import check_choice, check_float, check_range
from losses.loss import about
from losses.shared import safe_sqrt


class BoxPair(NamedTuple):
    """Quantities of two axis-aligned boxes that the losses share, each (N,); sides are of prediction and target."""

    iou: Tensor
    union: Tensor
    sides: tuple[Tensor, Tensor]
    target_sides: tuple[Tensor, Tensor]
    enclosing: tuple[Tensor, Tensor]
    shift: tuple[Tensor, Tensor]


def _pair(prediction: Tensor, target: Tensor) -> BoxPair:
    _check_boxes(prediction, target, 4)
    x1, y1, x2, y2 = prediction.unbind(1)
    u1, v1, u2, v2 = target.unbind(1)
    width, height, target_width, target_height = x2 - x1, y2 - y1, u2 - u1, v2 - v1
    across = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp_min(0)
    down = (torch.minimum(y2, v2) - torch.maximum(y1, v1)).clamp_min(0)
    overlap = across * down
    # two negative sides would make an area that pays for turning a box inside out
    union = width.clamp_min(0) * height.clamp_min(0) + target_width * target_height - overlap
    return BoxPair(
        iou=_ratio(overlap, union),
        union=union,
        sides=(width, height),
        target_sides=(target_width, target_height),
        enclosing=(_span(x1, x2, u1, u2), _span(y1, y2, v1, v2)),
        # differences first: a sum of coordinates is rounded, and boxes that are the same would be apart
        shift=(((x1 - u1) + (x2 - u2)) / 2, ((y1 - v1) + (y2 - v2)) / 2),
    )


def _span(first: Tensor, last: Tensor, target_first: Tensor, target_last: Tensor) -> Tensor:
    """Return the length that holds both, also where a prediction is inside out: penalties in its units stay bounded."""
    return torch.maximum(torch.maximum(first, last), target_last) - torch.minimum(
        torch.minimum(first, last), target_first
    )


def _check_boxes(prediction: Tensor, target: Tensor, columns: int) -> None:
    for name, boxes in (("prediction", prediction), ("target", target)):
        if boxes.shape != (len(prediction), columns):
            raise ValueError(f"{name}: shape {tuple(boxes.shape)}, allowed is (N, {columns}), the same for both")
        check_float(name, boxes)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, and 0 with slope 0 where the whole is nothing, or so little that its inverse overflows."""
    nothing = whole <= _least(whole)
    return torch.where(nothing, 0, part / torch.where(nothing, 1, whole))


def _least(area: Tensor) -> float:
    return torch.finfo(area.dtype).tiny ** 0.5


def _distance(pair: BoxPair) -> Tensor:
    """Return the squared distance of the centres in units of the enclosing box's diagonal."""
    (dx, dy), (width, height) = pair.shift, pair.enclosing
    return _ratio(dx.square() + dy.square(), width.square() + height.square())


def _gap(pair: BoxPair) -> Tensor:
    """Return the share of the enclosing box that neither box covers."""
    area = pair.enclosing[0] * pair.enclosing[1]
    return _ratio(area - pair.union, area)


def _aspect(pair: BoxPair, alpha_threshold: float | None) -> Tensor:
    """Return the term of CIoU that compares the aspect ratios, its weight detached."""
    v = (4 / math.pi**2) * _turn(pair).square()
    weight = _ratio(v, 1 - pair.iou + v)
    if alpha_threshold is not None:
        weight = torch.where(pair.iou < alpha_threshold, 0, weight)
    return weight.detach() * v


def _turn(pair: BoxPair) -> Tensor:
    """Return atan(wg/hg) - atan(w/h), the angle between the diagonals of two boxes, by one arctangent instead of two.

    tan(a - b) = (tan a - tan b) / (1 + tan a tan b). An empty box has no angle, and slopes overflow near there: 0.
    """
    exact = torch.promote_types(pair.iou.dtype, torch.float32)  # products of sides overflow in half precision
    (width, height), (target_width, target_height) = (
        [side.to(exact) for side in sides] for sides in (pair.sides, pair.target_sides)
    )
    across, along = target_width * height - target_height * width, target_width * width + target_height * height
    empty = across.abs() + along.abs() <= _least(across)
    return torch.atan2(torch.where(empty, 0, across), torch.where(empty, 1, along)).to(pair.iou.dtype)


def _sides(pair: BoxPair) -> Tensor:
    """Return the squared differences of the sides in units of the enclosing box's."""
    return sum(
        (
            _ratio((side - other).square(), whole.square())
            for side, other, whole in zip(pair.sides, pair.target_sides, pair.enclosing, strict=True)
        ),
        start=torch.zeros_like(pair.iou),
    )


@about(
    name="IoU",
    family="geometric",
    kind="boxes",
    link=None,
    paper="Yu et al., UnitBox, ACM MM 2016, arXiv 1608.01471 (logarithm)",
    evidence="V",
    aliases=("unitbox",),
)
def iou(prediction: Tensor, target: Tensor, *, form: Literal["linear", "log", "squared"] = "linear") -> Tensor:
    """1 - IoU of two boxes.

    L = 1 - IoU (linear), -ln IoU (log, IoU from 1e-7 on), 1 - IoU^2 (squared). Boxes (N,4); returns (N,). There is no
    gradient where boxes are apart.

    >>> iou(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[1.0, 0.0, 5.0, 4.0]]))
    tensor([0.6667])
    """
    check_choice("form", form, ("linear", "log", "squared"))
    overlap = _pair(prediction, target).iou
    if form == "log":
        return -overlap.clamp_min(1e-7).log()
    return 1 - (overlap if form == "linear" else overlap.square())


@about(
    name="GIoU",
    family="geometric",
    kind="boxes",
    link=None,
    paper="Rezatofighi et al., CVPR 2019, arXiv 1902.09630, algorithm 1",
    evidence="V",
    aliases=("generalised_iou",),
)
def giou(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - IoU plus the share of the enclosing box that neither box covers.

    L = 1 - IoU + (A - U)/A, A the area of the enclosing box, U that of the union; from 0 to 2. Boxes (N,4); returns
    (N,).

    >>> giou(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[1.0, 0.0, 5.0, 4.0]]))
    tensor([0.7667])
    """
    pair = _pair(prediction, target)
    return 1 - pair.iou + _gap(pair)


@about(
    name="DIoU",
    family="geometric",
    kind="boxes",
    link=None,
    paper="Zheng et al., AAAI 2020, arXiv 1911.08287, eq. 7",
    evidence="V",
    aliases=("distance_iou",),
)
def diou(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - IoU plus the squared distance of the centres over the squared diagonal of the enclosing box.

    L = 1 - IoU + rho^2/c^2: distance of the centres, diagonal of the enclosing box. Boxes (N,4); returns (N,).

    >>> diou(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[1.0, 0.0, 5.0, 4.0]]))
    tensor([0.7154])
    """
    pair = _pair(prediction, target)
    return 1 - pair.iou + _distance(pair)


@about(
    name="CIoU",
    family="geometric",
    kind="boxes",
    link=None,
    paper="Zheng et al., AAAI 2020, arXiv 1911.08287, eq. 8-11",
    evidence="V",
    aliases=("complete_iou",),
    detached=True,
)
def ciou(prediction: Tensor, target: Tensor, *, alpha_threshold: float | None = None) -> Tensor:
    """DIoU loss plus a penalty on the difference of the aspect ratios.

    L = DIoU + a v, v = (4/pi^2) (atan(wg/hg) - atan(w/h))^2, a = v/(1 - IoU + v), detached. alpha_threshold 0.5: no
    such term below IoU 0.5, as in the journal version (arXiv 2005.03572). The gradient is v's own; the paper's drops a
    factor 1/(w^2 + h^2). Boxes (N,4); returns (N,).

    >>> ciou(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[1.0, 0.0, 5.0, 4.0]]))
    tensor([0.7179])
    """
    pair = _pair(prediction, target)
    return 1 - pair.iou + _distance(pair) + _aspect(pair, alpha_threshold)


@about(
    name="EIoU",
    family="geometric",
    kind="boxes",
    link=None,
    paper="Zhang et al., Focal and Efficient IOU Loss, Neurocomputing 506, 2022, arXiv 2101.08158",
    evidence="H",
    aliases=("efficient_iou",),
)
def eiou(prediction: Tensor, target: Tensor) -> Tensor:
    """DIoU loss plus the squared differences of widths and heights, relative to the enclosing box.

    L = DIoU + (w - wg)^2/cw^2 + (h - hg)^2/ch^2, sides of the enclosing box below. Boxes (N,4); returns (N,). A
    well-known library has an Extended IoU under the same name, which is another loss.

    >>> eiou(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[1.0, 0.0, 5.0, 4.0]]))
    tensor([0.9654])
    """
    return _efficient(_pair(prediction, target))


def _efficient(pair: BoxPair) -> Tensor:
    return 1 - pair.iou + _distance(pair) + _sides(pair)


@about(
    name="Focal EIoU",
    family="geometric",
    kind="boxes",
    link=None,
    paper="Zhang et al., Neurocomputing 506, 2022, arXiv 2101.08158; whether the weight has a gradient is not stated",
    evidence="M",
    detached=True,
)
def focal_eiou(prediction: Tensor, target: Tensor, *, gamma: float = 0.5, detach: bool = True) -> Tensor:
    """EIoU weighted by a power of IoU, so that boxes that already overlap count more: the reverse of focal loss.

    L = IoU^gamma EIoU. detach: the weight has no gradient; else IoU is held above 1e-6, where its power has an infinite
    slope. Boxes that are apart count 0. Dividing by the sum of weights, as the paper does over a batch, is not done
    here. Boxes (N,4); returns (N,).

    >>> focal_eiou(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[1.0, 0.0, 5.0, 4.0]]))
    tensor([0.5574])
    """
    check_range("gamma", gamma, 0)
    pair = _pair(prediction, target)
    weight = pair.iou.detach() ** gamma if detach else pair.iou.clamp_min(1e-6) ** gamma
    return weight * _efficient(pair)


@about(
    name="SIoU",
    family="geometric",
    kind="boxes",
    link=None,
    paper="Gevorgyan, arXiv 2205.12740",
    evidence="V",
)
def siou(prediction: Tensor, target: Tensor, *, theta: float = 4.0) -> Tensor:
    """1 - IoU plus half the sum of a distance cost, which depends on the angle of the centres, and a shape cost.

    L = 1 - IoU + (D + S)/2. Distance D = sum over x, y of 1 - exp(-g (d/c)^2), d shift of the centres, c side of the
    enclosing box, g = 2 - sin(2a), a angle of the shift. Shape S = sum over sides of (1 - exp(-|w - wg|/max(w,
    wg)))^theta. One library's default turns the sign of g, which rewards distance. Boxes (N,4); returns (N,).

    >>> siou(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[1.0, 1.0, 5.0, 3.0]]))
    tensor([0.8414])
    """
    check_range("theta", theta, 1)
    pair = _pair(prediction, target)
    dx, dy = pair.shift
    angle = _ratio(2 * dx.abs() * dy.abs(), dx.square() + dy.square())  # sin(2a) = 2 sin a cos a
    distance, shape = torch.zeros_like(angle), torch.zeros_like(angle)
    for shift, whole, side, other in zip(pair.shift, pair.enclosing, pair.sides, pair.target_sides, strict=True):
        distance = distance - torch.expm1((angle - 2) * _ratio(shift.square(), whole.square()))
        shape = shape + (-torch.expm1(-_ratio((side - other).abs(), torch.maximum(side, other)))) ** theta
    return 1 - pair.iou + (distance + shape) / 2


SIDE = 640.0
"""Width and height of the images of the paper of MPDIoU, in pixels."""
OBJECT_SIZE = 12.8
"""Mean size of the objects of AI-TOD, the data set of the normalised Wasserstein distance, in pixels."""
GRID = 40
"""Width and height of the grid of PIoU where nothing says how large images are, in pixels."""


@about(
    name="MPDIoU",
    family="geometric",
    kind="boxes",
    link=None,
    paper="Ma and Xu, arXiv 2307.07662, eq. 4-6",
    evidence="H",
    from_training_set={"width": "image_width", "height": "image_height"},
)
def mpdiou(prediction: Tensor, target: Tensor, *, width: float | None = None, height: float | None = None) -> Tensor:
    """1 - IoU plus the squared distances of the two corners over the squared diagonal of the image.

    L = 1 - IoU + (d1^2 + d2^2)/(W^2 + H^2): distances of the upper left and of the lower right corners, in the unit of
    the width and height of the input image, pixels as a rule. None: 640, that of the paper's images; in others the
    distances then weigh too little. Boxes (N,4); returns (N,).

    >>> mpdiou(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[1.0, 0.0, 5.0, 4.0]]), width=64, height=48)
    tensor([0.6676])
    """
    width, height = (SIDE if side is None else side for side in (width, height))
    check_range("width", width, 0, above=True)
    check_range("height", height, 0, above=True)
    pair = _pair(prediction, target)
    return 1 - pair.iou + (prediction - target).square().sum(1) / (width**2 + height**2)


@about(
    name="Alpha-IoU",
    family="geometric",
    kind="boxes",
    link=None,
    paper="He et al., NeurIPS 2021, arXiv 2110.13675, eq. 4-5",
    evidence="V",
)
def alpha_iou(
    prediction: Tensor, target: Tensor, *, alpha: float = 3.0, kind: Literal["iou", "giou", "diou", "ciou"] = "iou"
) -> Tensor:
    """1 - IoU^alpha plus the penalties of GIoU, DIoU or CIoU raised to the same power.

    L = 1 - IoU^alpha + R^alpha (a sum of powers for CIoU), R the penalty of the kind. alpha = 1 is the plain loss.
    Boxes (N,4); returns (N,).

    >>> alpha_iou(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[1.0, 0.0, 5.0, 4.0]]))
    tensor([0.9630])
    """
    check_range("alpha", alpha, 0, above=True)
    check_choice("kind", kind, ("iou", "giou", "diou", "ciou"))
    pair = _pair(prediction, target)
    penalties = {"iou": (), "giou": (_gap,), "diou": (_distance,), "ciou": (_distance, lambda p: _aspect(p, None))}[
        kind
    ]
    value = 1 - _power(pair.iou, alpha)
    for penalty in penalties:
        value = value + _power(penalty(pair), alpha)
    return value


def _power(share: Tensor, alpha: float) -> Tensor:
    """Return share^alpha, 0 with slope 0 at 0, where a power below 1 is infinitely steep."""
    nothing = share <= 0
    return torch.where(nothing, 0, torch.where(nothing, 1, share) ** alpha)


@about(
    name="Inner-IoU",
    family="geometric",
    kind="boxes",
    link=None,
    paper="Zhang, Xu and Zhang, arXiv 2311.02877, eq. 4-11",
    evidence="V",
)
def inner_iou(
    prediction: Tensor,
    target: Tensor,
    *,
    ratio: float = 0.75,
    kind: Literal["iou", "giou", "diou", "ciou", "eiou", "siou"] = "iou",
) -> Tensor:
    """An IoU loss plus the difference of IoU and the IoU of boxes scaled about their centres.

    L = X + IoU - IoU_inner, X the loss of the kind: ratio below 1 is steeper for boxes that overlap well, above 1 for
    those that hardly do; all penalties use the boxes themselves. ratio = 1 is the plain loss. Boxes (N,4); returns
    (N,).

    >>> inner_iou(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[1.0, 0.0, 5.0, 4.0]]))
    tensor([0.7727])
    """
    check_range("ratio", ratio, 0, above=True)
    kinds = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou, "eiou": eiou, "siou": siou}
    check_choice("kind", kind, tuple(kinds))
    inner = _pair(_scaled(prediction, ratio), _scaled(target, ratio)).iou
    return kinds[kind](prediction, target) + _pair(prediction, target).iou - inner


def _scaled(boxes: Tensor, ratio: float) -> Tensor:
    first, last = boxes[:, :2], boxes[:, 2:]
    centre, half = (first + last) / 2, (last - first) * (ratio / 2)
    return torch.cat([centre - half, centre + half], 1)


@about(
    name="Normalised Wasserstein distance",
    family="geometric",
    kind="boxes",
    link=None,
    paper="Wang et al., arXiv 2110.13389, eq. 7-8",
    evidence="V",
    from_training_set={"size": "object_size"},
    aliases=("normalised_gaussian_wasserstein",),
)
def nwd(prediction: Tensor, target: Tensor, *, size: float | None = None) -> Tensor:
    """1 - exp(-W / S), W the Wasserstein distance of boxes as normal distributions: made for tiny objects.

    L = 1 - exp(-W/size), W^2 = dx^2 + dy^2 + ((w - wg)^2 + (h - hg)^2)/4, which is half the squared distance of the
    coordinates. size: mean size (root of the area) of the objects of a data set, in the unit of the boxes; None: 12.8,
    that of AI-TOD in pixels. Boxes (N,4); returns (N,).

    >>> nwd(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[1.0, 0.0, 5.0, 4.0]]))
    tensor([0.1266])
    """
    size = OBJECT_SIZE if size is None else size
    check_range("size", size, 0, above=True)
    _check_boxes(prediction, target, 4)
    return -torch.expm1(-safe_sqrt((prediction - target).square().sum(1) / 2) / size)


# ---------------------------------------------------------------- rotated boxes


@about(
    name="Gaussian Wasserstein distance",
    family="geometric",
    kind="rotated_boxes",
    link=None,
    paper="Yang et al., ICML 2021, arXiv 2101.11952, eq. 4-7",
    evidence="V",
)
def gwd(
    prediction: Tensor, target: Tensor, *, tau: float | None = None, distance: Literal["sqrt", "log1p"] = "sqrt"
) -> Tensor:
    """A bounded function of the Wasserstein distance of rotated boxes as normal distributions.

    L = 1 - 1/(tau + f(W^2)), W^2 = |shift|^2 + tr S1 + tr S2 - 2 tr (S1^1/2 S2 S1^1/2)^1/2, f = sqrt with tau 2 or ln(1
    + .) with tau 1. W is in the unit of the boxes, pixels in the paper. Boxes (N,5); returns (N,). Kink, with slope 0,
    where f = sqrt and the boxes are the same.

    >>> gwd(torch.tensor([[0.0, 0, 4, 2, 0]]), torch.tensor([[1.0, 0, 4, 2, math.pi / 4]]))
    tensor([0.7054])
    """
    check_choice("distance", distance, ("sqrt", "log1p"))
    tau = (2.0 if distance == "sqrt" else 1.0) if tau is None else tau
    check_range("tau", tau, 1)
    _check_boxes(prediction, target, 5)
    squared = _wasserstein(prediction, target)
    return 1 - 1 / (tau + (safe_sqrt(squared) if distance == "sqrt" else squared.log1p()))


def _wasserstein(prediction: Tensor, target: Tensor) -> Tensor:
    """Return W^2 as a sum of what is never negative: the traces cancel, which costs float32 all digits at a good fit.

    With half sides a, b and c, d, both longest first or both last, and the angle t between them, tr S1 + tr S2 is
    (a-c)^2 + (b-d)^2 + 2m with m = ac + bd, and the last trace is T = sqrt(m^2 cos^2 t + (ad + bc)^2 sin^2 t), so that
    m - T = sin^2 t (a^2 - b^2) (c^2 - d^2) / (m + T).
    """
    shift = (prediction[:, :2] - target[:, :2]).square().sum(1)
    (a, b), (c, d), (sin, cos) = _matched(prediction, target)
    matched = a * c + b * d
    coupled = safe_sqrt((matched * cos).square() + ((a * d + b * c) * sin).square())
    left = sin.square() * (a - b) * (a + b) * (c - d) * (c + d)
    return shift + (a - c).square() + (b - d).square() + 2 * _ratio(left, matched + coupled)


def _matched(prediction: Tensor, target: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """Return the half sides of both, and sine and cosine of the turn between them, long sides beside long sides."""
    a, b = prediction[:, 2].abs() / 2, prediction[:, 3].abs() / 2
    c, d = target[:, 2].abs() / 2, target[:, 3].abs() / 2
    turn = prediction[:, 4] - target[:, 4]
    crossed = (a - b) * (c - d) < 0
    c, d = torch.where(crossed, d, c), torch.where(crossed, c, d)
    sin, cos = torch.where(crossed, turn.cos(), turn.sin()), torch.where(crossed, turn.sin(), turn.cos())
    return (a, b), (c, d), (sin, cos)


@about(
    name="Kullback-Leibler divergence of boxes",
    family="geometric",
    kind="rotated_boxes",
    link=None,
    paper="Yang et al., NeurIPS 2021, arXiv 2106.01883",
    evidence="H",
)
def kld_box(prediction: Tensor, target: Tensor, *, tau: float = 1.0) -> Tensor:
    """A bounded function of the KL divergence of rotated boxes as normal distributions: thin boxes must be exact.

    L = 1 - 1/(tau + ln(1 + D)), D = D(prediction || target) = (shift^T St^-1 shift + tr(St^-1 Sp) + ln(det St/det
    Sp))/2 - 1. Not symmetric; public code disagrees on the direction and on the half. Boxes (N,5) with sides held above
    1e-3; returns (N,).

    >>> kld_box(torch.tensor([[0.0, 0, 4, 2, 0]]), torch.tensor([[1.0, 0, 4, 2, math.pi / 4]]))
    tensor([0.3860])
    """
    check_range("tau", tau, 1)
    return 1 - 1 / (tau + _divergence(prediction, target).log1p())


def _divergence(prediction: Tensor, target: Tensor) -> Tensor:
    """Return D, of half sides a, b and c, d, turned by t, without the difference of traces and logarithms.

    tr(St^-1 Sp) - ln(det Sp/det St) - 2 = f(a^2/c^2 - 1) + f(b^2/d^2 - 1) + sin^2 t (a^2 - b^2) (c^2 - d^2)/(c d)^2,
    f(r) = r - ln(1 + r).
    """
    _check_boxes(prediction, target, 5)
    prediction, target = _with_sides(prediction), _with_sides(target)
    (dx, dy), angle = (prediction[:, :2] - target[:, :2]).unbind(1), target[:, 4]
    along, across = dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()
    shift = (2 * along / target[:, 2]).square() + (2 * across / target[:, 3]).square()
    (a, b), (c, d), (sin, _) = _matched(prediction, target)
    turned = sin.square() * ((a - b) * (a + b) / d.square()) * ((c - d) * (c + d) / c.square())
    return ((shift + _stretch(a, c) + _stretch(b, d) + turned) / 2).clamp_min(0)


def _stretch(side: Tensor, other: Tensor) -> Tensor:
    """Return f(side^2/other^2 - 1), f(r) = r - ln(1 + r), also where r rounds to -1."""
    excess = (side - other) * (side + other) / other.square()
    near = excess.abs() < 0.5
    return excess - torch.where(near, torch.where(near, excess, 0).log1p(), 2 * (side / other).log())


def _with_sides(boxes: Tensor) -> Tensor:
    """Return the boxes with sides from 1e-3 on: a line has no density."""
    return torch.cat([boxes[:, :2], boxes[:, 2:4].clamp_min(1e-3), boxes[:, 4:]], 1)


@about(
    name="PIoU",
    family="geometric",
    kind="rotated_boxes",
    link=None,
    paper="Chen et al., ECCV 2020, arXiv 2007.09584, eq. 4-9, with the half sides of the authors' code",
    evidence="H",
    from_training_set={"width": "image_width", "height": "image_height"},
    aliases=("pixels_iou",),
)
def piou(
    prediction: Tensor,
    target: Tensor,
    *,
    sharpness: float = 10.0,
    width: float | None = None,
    height: float | None = None,
) -> Tensor:
    """-ln IoU of two rotated boxes, areas being sums over pixels of a soft membership.

    L = -ln(S_I/S_U), sums over the pixel centres of a grid of the image's width and height: S_I of F F', S_U of F + F'
    - F F', F(q) = K(|u|, w/2) K(|v|, h/2), K(d, s) = 1/(1 + exp(k (d - s))), (u, v) the pixel in the box's own axes.
    The ratio is held above 0.1, as in the authors' training code. width, height: of the image, in whole pixels; None:
    40; sharpness: k, in 1/pixels. Boxes (N,5) in pixels; returns (N,). Memory grows with N times the grid.

    >>> piou(torch.tensor([[20.0, 20, 20, 10, 0]]), torch.tensor([[22.0, 20, 20, 10, 0]]))
    tensor([0.2055])
    """
    check_range("sharpness", sharpness, 0, above=True)
    _check_boxes(prediction, target, 5)
    grid = [GRID if side is None else int(side) for side in (width, height)]
    inside = [_membership(boxes, sharpness, *grid) for boxes in (prediction, target)]
    shared = (inside[0] * inside[1]).sum((1, 2))
    union = inside[0].sum((1, 2)) + inside[1].sum((1, 2)) - shared
    return -_ratio(shared, union).clamp_min(0.1).log()


def _membership(boxes: Tensor, sharpness: float, width: int, height: int) -> Tensor:
    """Return (N, height, width): how far each pixel's centre is in each box, from 0 to 1."""
    along = torch.arange(width, device=boxes.device, dtype=boxes.dtype) + 0.5
    down = torch.arange(height, device=boxes.device, dtype=boxes.dtype) + 0.5
    x, y, w, h, angle = (part.view(-1, 1, 1) for part in boxes.unbind(1))
    dx, dy = along.view(1, 1, -1) - x, down.view(1, -1, 1) - y
    u, v = dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()
    return torch.sigmoid(sharpness * (w / 2 - u.abs())) * torch.sigmoid(sharpness * (h / 2 - v.abs()))
