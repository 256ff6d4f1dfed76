"""Worked values of region, compound and hybrid losses, their identities, and where known libraries are wrong."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as draws
from loss_registry import build, pair_of

from losses import hybrid, region
from losses.kinds import Pair
from losses.probability import cross_entropy

P = torch.tensor([0.9, 0.8, 0.3, 0.2, 0.1, 0.6], dtype=torch.float64)
G = torch.tensor([[1, 1, 1, 0, 0, 0]])
LOGITS = torch.stack([(1 - P).log(), P.log()])[None]  # class 1 is the foreground
P3 = torch.tensor(
    [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.8, 0.1, 0.1], [0.5, 0.25, 0.25], [0.2, 0.6, 0.2], [0.3, 0.3, 0.4]],
    dtype=torch.float64,
)
LOGITS3, G3 = P3.log().T[None], torch.tensor([[0, 0, 0, 0, 1, 2]])


def counts(squared=False):
    return region._counts(LOGITS, G, None, over_batch=False, squared=squared)


def test_soft_counts():
    found = counts()
    assert [found.both[0, 1].item(), found.false_positive[0, 1].item(), found.false_negative[0, 1].item()] == (
        pytest.approx([2.0, 0.9, 1.0])
    )


@pytest.mark.parametrize(
    ("smooth", "squared", "expected"), [(0.0, False, 0.32203390), (0.0, True, 0.19191919), (1.0, False, 0.27536232)]
)
def test_dice_of_the_foreground(smooth, squared, expected):
    assert 1 - region._dice(counts(squared), smooth, squared)[0, 1].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("alpha", "beta", "expected"), [(0.3, 0.7, 0.32659933), (0.7, 0.3, 0.31740614), (1.0, 1.0, 0.48717949)]
)
def test_tversky_of_the_foreground(alpha, beta, expected):
    found = region._tversky(LOGITS, G, alpha, beta, 0.0, over_batch=False, mask=None)
    assert 1 - found[0, 1].item() == pytest.approx(expected, abs=1e-6)
    assert (1 - found[0, 1].item()) ** 0.75 == pytest.approx(0.43202757, abs=1e-6) or alpha != 0.3


def background(function):
    """The same of the background, by hand."""
    return function(1 - P, 1 - G[0].double())


def dice_by_hand(p, g):
    return (1 - 2 * (p * g).sum() / (p.sum() + g.sum())).item()


def tversky_by_hand(p, g):
    both = (p * g).sum()
    return (1 - both / (both + 0.3 * (p.sum() - both) + 0.7 * (g.sum() - both))).item()


BACK = background(dice_by_hand)
MEAN_DICE = (0.32203390 + BACK) / 2
ENTROPY = -(G[0] * P.log() + (1 - G[0]) * (1 - P).log()).mean().item()
VALUES = [
    ("dice", {"smooth": 0.0}, MEAN_DICE),
    ("jaccard", {"smooth": 0.0}, (0.48717949 + 2 * BACK / (1 + BACK)) / 2),
    ("tversky", {"smooth": 0.0}, (0.32659933 + background(tversky_by_hand)) / 2),
    ("focal_tversky", {"smooth": 0.0}, (0.43202757 + background(tversky_by_hand) ** 0.75) / 2),
    ("log_cosh_dice", {"smooth": 0.0}, math.log(math.cosh(MEAN_DICE))),
    ("sensitivity_specificity", {"ratio": 0.5}, 0.15833333),
    ("combo", {"smooth": 0.0}, 0.25 * ENTROPY - 0.5 * (1 - MEAN_DICE)),
    ("cross_entropy_dice", {}, ENTROPY + MEAN_DICE),
    (
        "exponential_logarithmic",
        {"smooth": 0.0, "entropy_weight": 0.0, "dice_weight": 1.0},
        (0.75313058 + (-math.log(1 - BACK)) ** 0.3) / 2,
    ),
    ("wasserstein", {}, 1 - (G[0] * P + (1 - G[0]) * (1 - P)).mean().item()),
]
ENTROPY_OF = 0.69314718
WORKED = (
    {name for name, *_ in VALUES}
    | {"generalized_dice", "bce_dice", "hybrid_none"}
    | {f"hybrid_{term}_{kind}" for term in ("comb", "ne", "hybrid1") for kind in ("convex", "linear")}
    | {
        f"hybrid_{term}_{kind}_{chosen}"
        for term in ("ema", "hybrid2")
        for kind in ("convex", "linear")
        for chosen in ("none", "relu", "elu", "birelu", "bielu")
    }
)


@pytest.mark.parametrize(("name", "changed", "expected"), VALUES)
def test_value(name, changed, expected):
    assert build(name, 2, **changed)({"class_logits": Pair(LOGITS, G)}).item() == pytest.approx(expected, abs=2e-6)


def test_generalised_dice_is_one_ratio():
    assert build("generalized_dice", 3, smooth=0.0)(LOGITS3, G3).item() == pytest.approx(0.56491228)
    assert build("dice", 3, smooth=0.0)(LOGITS3, G3).item() == pytest.approx(0.48638299)


def test_bce_dice_is_the_sum_of_its_terms():
    pairs = {"class_logits": Pair(LOGITS, G)}
    expected = build("bce_ovr")(pairs) + build("dice")(pairs)
    assert build("bce_dice")(pairs).item() == pytest.approx(expected.item())


def test_tversky_identities():
    prediction, target = pair_of(build("dice"), shape=(4, 4))
    logits = prediction
    torch.testing.assert_close(
        region.tversky(logits, target, alpha=0.5, beta=0.5, smooth=0.0), region.dice(logits, target, smooth=0.0)
    )
    torch.testing.assert_close(
        region.focal_tversky(logits, target, gamma=1.0), region.tversky(logits, target), atol=1e-9, rtol=1e-9
    )
    share = 1 - region._dice(region._counts(logits, target, None, over_batch=False), 0.0)
    torch.testing.assert_close(region.jaccard(logits, target, smooth=0.0), (1 - (1 - share) / (1 + share)).mean(1))


@given(seed=draws.integers(0, 1000), present=draws.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_generalised_dice_with_absent_classes_is_a_share(seed, present):
    """A class that is not there must neither make the loss infinite nor take all its weight."""
    prediction, _ = pair_of(build("dice"), count=2, seed=seed, shape=(4, 4))
    target = torch.arange(32).remainder(present).view(2, 4, 4)
    value = region.generalized_dice(prediction, target)
    assert ((value >= 0) & (value <= 1)).all()
    exact = 20.0 * torch.nn.functional.one_hot(target, 5).movedim(-1, 1).double()
    assert region.generalized_dice(exact, target).max() < 1e-3


@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky", "generalized_dice", "focal_tversky", "log_cosh_dice"])
def test_a_perfect_prediction_costs_nothing_with_absent_classes(name):
    target = torch.zeros(2, 4, 4, dtype=torch.int64)
    exact = 40.0 * torch.nn.functional.one_hot(target, 5).movedim(-1, 1).double()
    assert build(name)(exact, target).item() == pytest.approx(0, abs=1e-6)


def test_over_the_batch_every_image_carries_one_value():
    prediction, target = pair_of(build("dice"), count=3, shape=(4, 4))
    values = region.dice(prediction, target, over_batch=True)
    assert values.shape == (3,)
    assert len(set(values.tolist())) == 1
    flat = prediction.movedim(1, 0).reshape(1, 5, 48)
    torch.testing.assert_close(values[:1], region.dice(flat, target.view(1, 48)))


# ---------------------------------------------------------------------------- hybrid

COLUMNS = [("convex", 0.6), ("linear", 0.6), ("convex", 0.7), ("linear", 0.7)]
TABLE = [
    ("comb", "none", (0.32, 0.34, 0.34, 0.38)),
    ("ne", "none", (0.25998890, 0.26524102, 0.29731423, 0.30944786)),
    ("hybrid1", "none", (0.57998890, 0.60524102, 0.63731423, 0.68944786)),
    *[("ema", chosen, (0.08, 0.064, 0.13, 0.086)) for chosen in ("none", "relu", "elu", "birelu")],
    ("ema", "bielu", (0.15688365, 0.12599500, 0.25190457, 0.16840577)),
    ("hybrid2", "none", (0.33998890, 0.32924102, 0.42731423, 0.39544786)),
    ("hybrid2", "bielu", (0.41687255, 0.39123602, 0.54921880, 0.47785363)),
    ("hybrid2", "sqrt", (0.54283161, 0.51822323, 0.65786936, 0.60270542)),
]
PRINTED = [
    ("comb", "convex", "none", 0.6, 0.32),
    ("comb", "linear", "none", 0.6, 0.34),
    ("ne", "convex", "none", 0.6, 0.25998890),
    ("ema", "linear", "none", 0.6, 0.088),
    ("ema", "convex", "none", 0.6, 0.068),
    ("hybrid2", "convex", "none", 0.6, 0.52075699),
    ("hybrid2", "linear", "none", 0.6, 0.32924102),
    ("hybrid2", "linear", "relu", 0.6, 0.32924102),
    ("hybrid2", "linear", "bielu", 0.6, 0.26524102),
    ("ema", "linear", "none", 0.7, 0.142),
    ("ema", "convex", "none", 0.7, 0.102),
    ("hybrid2", "convex", "none", 0.7, 0.61668862),
    ("hybrid2", "linear", "none", 0.7, 0.39544786),
]
L1, L2 = torch.tensor(0.4, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)


@pytest.mark.parametrize(("term", "chosen", "expected"), TABLE)
def test_hybrid_terms(term, chosen, expected):
    for (kind, a), number in zip(COLUMNS, expected, strict=True):
        found = hybrid.added(L1, L2, term=term, coefficients=kind, filter=chosen, a=a, b=0.5)
        assert found.item() == pytest.approx(number, abs=1e-8)


def test_hybrid_term_with_moving_average_in_the_first_version():
    found = [
        hybrid.added(L1, L2, term="hybrid1", coefficients=kind, a=a, b=0.5, hybrid1="ema").item() for kind, a in COLUMNS
    ]
    assert found == pytest.approx([0.40, 0.404, 0.47, 0.466])


@pytest.mark.parametrize(("term", "kind", "chosen", "a", "expected"), PRINTED)
def test_hybrid_terms_as_printed(term, kind, chosen, a, expected):
    found = hybrid.added(L1, L2, term=term, coefficients=kind, filter=chosen, a=a, b=0.5, mode="printed")
    assert found.item() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("name", sorted(name for name in WORKED if name.startswith("hybrid")))
def test_hybrid_losses_are_cross_entropy_and_their_term(name):
    loss = build(name, 2)
    target = torch.tensor([0, 1])
    logits = torch.tensor([[2.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    wrong = 1 - logits.softmax(1).gather(1, target[:, None]).squeeze(1)
    chosen = loss.function.keywords
    expected = cross_entropy(logits, target).mean() + hybrid.added(
        wrong.mean(), wrong.square().mean(), term=chosen["term"], coefficients=chosen["coefficients"],
        filter=chosen["filter"],
    )  # fmt: skip
    assert loss(logits, target).item() == pytest.approx(expected.item())


def test_the_27_experiments_have_their_numbers_and_some_are_the_same():
    names = sorted(name for name in WORKED if name.startswith("hybrid"))
    numbers = {int(build(name).about.name.split()[1].rstrip(":")): name for name in names}
    assert sorted(numbers) == list(range(1, 28))
    prediction, target = pair_of(build("cross_entropy"))
    values = {number: build(name)(prediction, target).item() for number, name in numbers.items()}
    for same in ([8, 9, 10, 11], [13, 14, 15, 16], [18, 19, 20, 21], [23, 24, 25, 26]):  # at a = 0.6, b = 0.5
        assert len({round(values[number], 12) for number in same}) == 1
    assert len({round(value, 12) for value in values.values()}) == 15


def test_absolute_error_of_softmax_is_small_by_mean_over_classes():
    """At most 2/C, so that the added term fades with many classes unless it is summed."""
    logits, target = -50 * torch.nn.functional.one_hot(torch.arange(10)).double(), torch.arange(10)
    added = [
        (hybrid.hybrid(logits, target, term="comb", over_classes=over) - cross_entropy(logits, target)).mean().item()
        for over in ("mean", "sum")
    ]
    assert added[1] == pytest.approx(10 * added[0])
    assert added[0] < 0.6 * 2 / 10 + 0.5 * 2 / 10
