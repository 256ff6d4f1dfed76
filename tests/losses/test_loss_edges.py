"""Laws at the edges of the contract: shapes of masks, numbers that are none, narrow dtypes, labels, transforms."""

import pytest
import torch
from loss_registry import CLASSES, NAMES, batch, build, cast, change, leaves, masked, value_and_gradients

from harness.tasks import class_statistic
from losses.checks import labels_trusted
from losses.kinds import KINDS, Draw, Pair, example
from losses.shared import counted, spread_mask

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning"),  # torch's own, at the first jvp
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),  # torch maps kl_div in a loop
]
DENSE = {
    "class_logits": (CLASSES, 3, 4),
    "class_probabilities": (CLASSES, 3, 4),
    "distributions": (2, 3, 4),
    **dict.fromkeys(("values", "counts", "binary_logits", "critic_scores"), (3, 4)),
}


def from_training_set(name):
    """Settings that a loss takes from the training set, and from which statistic."""
    return getattr(build(name).about, "from_training_set", {})


LABELLED = [name for name in NAMES if set(build(name).about.kinds) & {"class_logits", "features"}]
SAME_OR_NOT = (
    "contrastive",
    "triplet",
    "triplet_semi_hard",
    "triplet_all",
    "range",
    "supervised_contrastive",
    "multi_similarity",
)
BOUNDED = [name for name in LABELLED if name not in SAME_OR_NOT]
"""Losses that need to know how many classes there are; the others only ask which items have the same."""


def dense(loss, count=4, seed=1):
    """Pairs of a loss as large as its kinds allow, alone among each other."""
    kinds = loss.about.kinds
    drawn = example(kinds, Draw(count, CLASSES, seed), DENSE if len(kinds) == 1 else {})
    return change(drawn)


def item_shape(kind, target):
    """The shape of the finest mask of a pair."""
    if KINDS[kind].items == "pixels":
        return target.shape[:1] + target.shape[2:]
    return target.shape


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_of_the_first_dimensions_is_the_whole_mask(name):
    pairs = dense(build(name))
    kind, pair = next(iter(pairs.items()))
    whole = item_shape(kind, pair.target)
    for ndim in range(1, len(whole) + 1):
        mask = torch.rand(whole[:ndim], generator=torch.Generator().manual_seed(2)) < 0.6
        mask[0] = True
        loss, twin = build(name), build(name)
        value, gradients = value_and_gradients(loss, masked(pairs, mask))
        expected, others = value_and_gradients(twin, masked(pairs, spread_mask(mask, whole)))
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(gradients, others)
        torch.testing.assert_close(list(loss.buffers()), list(twin.buffers()))


@pytest.mark.parametrize("name", NAMES)
def test_masking_images_equals_leaving_them_out(name):
    pairs = dense(build(name))
    mask = torch.tensor([True, False, True, True])
    value, gradients = value_and_gradients(build(name), masked(pairs, mask))
    kept = change(pairs, lambda data: data[mask], lambda target: target[mask])
    expected, others = value_and_gradients(build(name), kept)
    torch.testing.assert_close(value, expected)
    for gradient, other in zip(gradients[: len(pairs)], others, strict=False):
        torch.testing.assert_close(gradient[mask], other)
        assert not gradient[~mask].any()


@pytest.mark.parametrize("name", NAMES)
def test_not_a_number_in_gives_not_a_number_out(name):
    pairs = batch(build(name))

    def spoilt(data, rows):
        data = data.clone()
        data[rows] = torch.nan
        return data

    for rows in (slice(0, 1), slice(None)):
        for kind, pair in pairs.items():
            bad = {**pairs, kind: pair._replace(prediction=spoilt(pair.prediction.detach(), rows))}
            assert build(name)(bad).isnan(), (kind, rows)
    for kind, (prediction, target, _) in pairs.items():
        if target.is_floating_point():
            moved = {**pairs, kind: pairs[kind]._replace(target=0.9 * target)}
            read = build(name)(moved) != build(name)(pairs)
            bad = {**pairs, kind: pairs[kind]._replace(target=spoilt(target, slice(0, 1)))}
            assert build(name)(bad).isnan() or not read or KINDS[kind].prediction.startswith("weights"), kind
        assert prediction.isfinite().all()


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize("name", NAMES)
def test_float16_is_computed_in_float32(name, size):
    pairs = batch(build(name), count=6)
    pairs = change(pairs, lambda data: (size * data).half(), lambda target: cast(target, torch.float16))
    loss = build(name, dtype=torch.float32)
    value, gradients = value_and_gradients(loss, pairs)
    single = change(pairs, torch.Tensor.float, lambda target: cast(target, torch.float32))
    expected, others = value_and_gradients(build(name, dtype=torch.float32), single)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(gradient, other.to(gradient.dtype), equal_nan=True)


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(build(name), "function")])
def test_a_function_by_itself_refuses_float16(name):
    loss = build(name, dtype=torch.float32)
    ((prediction, target, _),) = batch(loss).values()
    with pytest.raises(ValueError, match="65,504"):
        loss.function(prediction.half(), cast(target, torch.float16))


@pytest.mark.parametrize("label", [-1, CLASSES, 255])
@pytest.mark.parametrize("name", BOUNDED)
def test_a_label_outside_the_classes_is_refused_unless_it_is_masked(name, label):
    loss = build(name)
    pairs = batch(loss)
    expected = build(name)(masked(pairs, torch.arange(12) > 0))
    wrong = change(pairs, target=lambda target: target.index_fill(0, torch.tensor([0]), label))
    with pytest.raises(ValueError, match=rf"^target: class {label}, allowed are 0 to {CLASSES - 1};.*$"):
        loss(wrong)
    torch.testing.assert_close(build(name)(masked(wrong, torch.arange(12) > 0)), expected)


def test_labels_that_are_trusted_are_not_looked_at():
    loss = build("brier")
    ((logits, target, _),) = batch(loss).values()
    with labels_trusted():
        assert loss(logits, target + CLASSES).isfinite()
    with pytest.raises(ValueError, match="allowed are 0 to 4"):
        loss(logits, target + CLASSES)


HANDED = [
    name
    for name in BOUNDED
    if getattr(build(name), "_handed_mask", False) and build(name).kind in ("class_logits", "features")
]


@pytest.mark.parametrize("name", HANDED)
def test_a_function_takes_any_number_where_its_mask_leaves_labels_out(name):
    pairs = dense(build(name))
    ((data, target, _),) = pairs.values()
    mask = torch.rand(target.shape, generator=torch.Generator().manual_seed(2)) < 0.6
    expected = build(name).function(data, target, mask=mask)
    values = build(name).function(data, torch.where(mask, target, 255), mask=mask)
    held = mask if values.shape == mask.shape else mask.flatten(1).any(1)
    torch.testing.assert_close(values[held], expected[held])


def tangents(data):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(data.shape, generator=generator, dtype=data.dtype)


def as_function(loss, pairs, kind):
    """The loss as a function of one prediction."""
    return lambda prediction: loss({**pairs, kind: pairs[kind]._replace(prediction=prediction)})


@pytest.mark.parametrize("name", NAMES)
def test_forward_mode_agrees_with_the_gradient(name):
    loss = build(name).eval()
    pairs = change(batch(loss, count=5))
    for kind, pair in pairs.items():
        value, slope = torch.func.jvp(
            as_function(loss, pairs, kind), (pair.prediction.detach(),), (tangents(pair.prediction),)
        )
        expected, gradients = value_and_gradients(loss, pairs)
        torch.testing.assert_close(value.detach(), expected)
        gradient = gradients[list(pairs).index(kind)]
        torch.testing.assert_close(slope.detach(), (gradient * tangents(pair.prediction)).sum())


@pytest.mark.parametrize("name", [name for name in NAMES if not build(name).about.detached])
def test_hessian_agrees_with_differentiating_twice(name):
    loss = build(name).eval()
    pairs = change(batch(loss, count=4))
    for kind, pair in pairs.items():
        data = pair.prediction.detach()
        of = as_function(loss, pairs, kind)
        along = torch.func.jvp(torch.func.grad(of), (data,), (tangents(data),))[1]
        leaf = data.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(of(leaf), leaf, create_graph=True)
        twice = torch.zeros_like(leaf)
        if gradient.requires_grad:
            (found,) = torch.autograd.grad((gradient * tangents(data)).sum(), leaf, allow_unused=True)
            twice = twice if found is None else found
        torch.testing.assert_close(along.detach(), twice.detach())
        if data.numel() <= 24:
            whole = torch.func.hessian(of)(data).detach().reshape(data.numel(), -1)
            torch.testing.assert_close(whole @ tangents(data).flatten(), twice.flatten().detach())


@pytest.mark.parametrize("name", NAMES)
def test_maps_over_a_stack_of_predictions(name):
    loss = build(name).eval()  # memories hold still
    pairs = [batch(loss, seed=seed) for seed in (1, 2)]
    stacked = {
        kind: (
            torch.stack([pair[kind].prediction for pair in pairs]),
            torch.stack([pair[kind].target for pair in pairs]),
        )
        for kind in pairs[0]
    }
    kinds = list(stacked)

    def one(*tensors):
        halves = zip(kinds, tensors[::2], tensors[1::2], strict=True)
        return loss({kind: Pair(*pair) for kind, *pair in halves})

    mapped = torch.func.vmap(one)(*[tensor for pair in stacked.values() for tensor in pair])
    torch.testing.assert_close(mapped, torch.stack([loss(pair) for pair in pairs]))


@pytest.mark.parametrize("name", NAMES)
def test_works_on_tensors_without_data(name):
    loss = build(name, dtype=torch.float32).to("meta")
    drawn = batch(loss, dtype=torch.float32)
    pairs = change(drawn, lambda data: data.to("meta"), lambda target: target.to("meta"))
    for mask in (None, torch.ones(12, dtype=torch.bool, device="meta")):
        value = loss(masked(pairs, mask))
        assert value.shape == ()
        assert value.device.type == "meta"
        gradients = torch.autograd.grad(value, leaves(loss, pairs))
        assert [gradient.shape for gradient in gradients] == [leaf.shape for leaf in leaves(loss, pairs)]


@pytest.mark.parametrize("name", [name for name in NAMES if build(name).about.kinds[0] in ("features", "embeddings")])
def test_gradients_are_bounded_at_vectors_of_length_zero(name):
    loss = build(name, dtype=torch.float32)
    pairs = change(batch(loss, dtype=torch.float32), torch.zeros_like)
    value, gradients = value_and_gradients(loss, pairs)
    assert value.isfinite()
    assert all(gradient.abs().max() < 1e4 for gradient in gradients)


def test_counts_go_on_beyond_what_float32_can_count():
    place = torch.zeros(2**24 + 3, dtype=torch.int64)
    assert counted(place, 2).tolist() == [2**24 + 3, 0]
    mask = torch.ones(len(place), dtype=torch.bool)
    mask[0] = False
    assert counted(place, 2, mask).tolist() == [2**24 + 2, 0]


SCORED = [name for name in LABELLED if build(name).about.kinds == ("class_logits",)]
STATISTICS = [(name, setting) for name in SCORED for setting in from_training_set(name)]


@pytest.mark.parametrize("counts", [[50, 10, 0, 3, 0], [0, 0, 0, 0, 7], [1000000, 1, 1, 0, 1]])
@pytest.mark.parametrize(("name", "setting"), STATISTICS)
def test_a_class_without_training_items_has_a_weight_that_trains(name, setting, counts):
    statistic = class_statistic(from_training_set(name)[setting], torch.tensor(counts))
    loss = build(name, **{setting: statistic})
    logits, target = torch.zeros(CLASSES, CLASSES, dtype=torch.float64), torch.arange(CLASSES)
    values = loss.function(logits, target)
    assert values.isfinite().all()
    assert (values > 0).all()
    # a class that was seen is not drowned by one that was not
    there = torch.tensor(counts) > 0
    if there.any():
        once = [max(count, 1) for count in counts]
        expected = build(name, **{setting: class_statistic(from_training_set(name)[setting], torch.tensor(once))})
        ratio = values[there] / expected.function(logits, target)[there]
        assert ((ratio > 0.5) & (ratio < 2)).all()
