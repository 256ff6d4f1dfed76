"""Laws that every loss of the registry obeys."""

import functools

import pytest
import torch
from loss_registry import (
    CLASSES,
    FEATURES,
    NAMES,
    batch,
    build,
    cast,
    change,
    leaves,
    masked,
    pair_of,
    value_and_gradients,
)

from losses.kinds import Pair
from scripts.pretended_cuda import pretended

LOGIT_NAMES = [name for name in NAMES if build(name).about.kinds == ("class_logits",)]
CLASS_NAMES = [name for name in NAMES if set(build(name).about.kinds) <= {"class_logits", "features"}]
HEADS = [name for name in CLASS_NAMES if build(name).is_head]
# they give one value per image, not per pixel
IMAGE_NAMES = [name for name in LOGIT_NAMES if build(name).about.per_image]
PLACED = ["boundary", "generalized_dice_boundary"]
"""Losses of pixels to which it matters where they lie."""


@pytest.fixture(params=NAMES)
def loss(request):
    return build(request.param)


@pytest.fixture
def twin(request, loss):
    """The same loss once more, with weights and memory of its own."""
    return build(request.node.callspec.params["loss"])


def scored(logits, target, mask=None):
    return {"class_logits": Pair(logits, target, mask)}


def assert_same(first, second, **tolerance):
    torch.testing.assert_close(first, second, check_dtype=False, **tolerance)


@pytest.mark.parametrize("name", [name for name in NAMES if not build(name).about.detached])
def test_gradient_is_the_derivative(name):
    loss = build(name)
    loss.eval()  # centres must hold still between evaluations
    pairs = batch(loss, count=6)
    assert torch.autograd.gradcheck(lambda *_: loss(pairs), leaves(loss, pairs))


@pytest.mark.parametrize("name", [name for name in NAMES if not build(name).about.detached])
def test_second_derivative_is_the_derivative_of_the_gradient(name):
    loss = build(name)
    loss.eval()
    pairs = batch(loss, count=6)
    assert torch.autograd.gradgradcheck(lambda *_: loss(pairs), leaves(loss, pairs), fast_mode=True)


def test_order_of_items_is_irrelevant(loss):
    pairs = batch(loss)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    value, gradients = value_and_gradients(loss.eval(), pairs)
    other, others = value_and_gradients(loss, change(pairs, lambda data: data[order], lambda target: target[order]))
    assert_same(value, other)
    for data, gradient, shuffled_gradient in zip(leaves(loss, pairs), gradients, others, strict=True):
        is_weight = any(data is parameter for parameter in loss.parameters())
        assert_same(gradient if is_weight else gradient[order], shuffled_gradient)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_names_of_classes_are_irrelevant(name):
    loss = build(name)
    loss(batch(loss))  # centres move away from 0
    pairs = batch(loss.eval(), seed=2)
    value = loss(pairs)
    # a control is blind to the last class or to every second: those keep their numbers
    classes = torch.tensor([2, 3, 0, 1, 4] if loss.about.family == "control" else [3, 0, 4, 2, 1])
    for held in [*loss.parameters(), *loss.buffers()]:
        if held.shape[:1] == (CLASSES,):
            held.data = held.data[classes]
    renamed = {
        kind: Pair(data[:, classes] if kind == "class_logits" else data, classes.argsort()[target])
        for kind, (data, target, _) in pairs.items()
    }
    assert_same(loss(renamed), value)


def test_control_sees_all_classes_but_the_last():
    loss = build("negative_control_worse")
    logits, _ = pair_of(loss, count=CLASSES)
    _, (gradient,) = value_and_gradients(loss, logits, torch.arange(CLASSES))
    assert gradient.abs().sum(1).count_nonzero() == CLASSES - 1
    assert not gradient[-1].any()


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("name", NAMES)
def test_extremes_stay_finite(name, size):
    loss = build(name, dtype=torch.float32)
    pairs = batch(loss, count=64)
    extreme = change(pairs, lambda data: (size * data.sign()).float(), lambda target: cast(target, torch.float32))
    value, gradients = value_and_gradients(loss, extreme)
    assert all(torch.isfinite(number).all() for number in [value, *gradients, *loss.buffers()])


@pytest.mark.parametrize("settings", [{"gamma": 0.0}, {"gamma": 0.5}, {"gamma": 5.0}])
@pytest.mark.parametrize("sign", [-1, 1])
def test_focal_is_finite_where_the_probability_rounds_to_one(settings, sign):
    loss = build("focal", dtype=torch.float32, **settings)
    logits = torch.zeros(1, CLASSES)
    logits[0, 0] = sign * 1e4
    value, (gradient,) = value_and_gradients(loss, logits.requires_grad_(), torch.tensor([0]))
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_masking_equals_leaving_out(loss, twin):
    pairs = batch(loss)
    mask = torch.arange(12) % 3 != 1
    kept = change(pairs, lambda data: data[mask], lambda target: target[mask])
    value, gradients = value_and_gradients(twin, kept)

    def where(data, other):
        return torch.where(mask.view(-1, *[1] * (data.ndim - 1)), data, other)

    spoilt = change(pairs, lambda data: where(data, torch.nan), lambda target: where(target, -100), mask)
    masked_value, masked_gradients = value_and_gradients(loss, spoilt)
    assert_same(masked_value, value)
    parts = len(pairs)
    for gradient, spoilt_gradient in zip(gradients[:parts], masked_gradients[:parts], strict=True):
        assert_same(spoilt_gradient[mask], gradient)
        assert not spoilt_gradient[~mask].any()
    assert_same(masked_gradients[parts:], gradients[parts:])
    assert_same(list(loss.buffers()), list(twin.buffers()))


@pytest.mark.parametrize("name", NAMES)
def test_finite_items_are_masked_alike_without_sanitizing(name):
    loss, bare = build(name), build(name, sanitize_masked=False)
    pairs = masked(batch(loss), torch.arange(12) % 3 != 1)
    value, gradients = value_and_gradients(loss, pairs)
    found, others = value_and_gradients(bare, pairs)
    assert_same(found, value)
    assert_same(others, gradients)


@pytest.mark.parametrize("count", [0, 4])
def test_nothing_to_average_gives_zero(loss, count):
    held = [buffer.clone() for buffer in loss.buffers()]
    nothing = masked(batch(loss, count=count), torch.zeros(count, dtype=torch.bool))
    value, gradients = value_and_gradients(loss, nothing)
    assert value == 0
    assert not any(gradient.any() for gradient in gradients)
    assert_same(list(loss.buffers()), held)


def test_empty_batch_without_mask_gives_zero(loss):
    value, gradients = value_and_gradients(loss, batch(loss, count=0))
    assert value == 0
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_close_to_float64(name):
    exact, single = build(name), build(name, dtype=torch.float32)
    pairs = batch(exact)
    expected, gradients = value_and_gradients(exact, pairs)
    rounded = change(pairs, torch.Tensor.float, lambda target: cast(target, torch.float32))
    value, singles = value_and_gradients(single, rounded)
    assert value.dtype == torch.float32
    assert_same(value.double(), expected, rtol=1e-5, atol=1e-5)
    for gradient, approximate in zip(gradients, singles, strict=True):
        assert_same(approximate.double(), gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("noise", [0, 1e-5, 1e-3])
@pytest.mark.parametrize("levels", [(0.9, 1.0), (0.6, 0.6)])
@pytest.mark.parametrize("name", NAMES)
def test_float32_is_close_to_float64_where_data_are_flat(name, levels, noise):
    """A variance or distance that is the difference of two large numbers is lost here, on each CPU in its own way."""
    exact, single = build(name), build(name, dtype=torch.float32)
    pairs = batch(single, dtype=torch.float32, flat=(levels, noise))
    widened = change(pairs, torch.Tensor.double, lambda target: cast(target, torch.float64))
    expected, gradients = value_and_gradients(exact, widened)
    value, singles = value_and_gradients(single, pairs)
    # ten times and more what the rounding of sums and logarithms, which no formula escapes, costs any of them
    assert_same(value.double(), expected, rtol=1e-4, atol=2e-6)
    for gradient, approximate in zip(gradients, singles, strict=True):
        assert_same(approximate.double(), gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_bf16_is_close_to_float64(name):
    exact, coarse = build(name), build(name, dtype=torch.float32)  # a loss keeps its own weights in float32
    pairs = batch(exact, dtype=torch.bfloat16)
    value = coarse(pairs)
    assert value.dtype == torch.float32
    expected = exact(change(pairs, torch.Tensor.double, lambda target: cast(target, torch.float64)))
    assert_same(value.double(), expected, rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_autocast_rounds_nothing(name):
    pairs = batch(build(name), dtype=torch.float32)
    expected, gradients = value_and_gradients(build(name, dtype=torch.float32), pairs)
    loss = build(name, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(pairs)
    assert_same(value.detach(), expected, rtol=1e-5, atol=1e-5)
    assert_same(torch.autograd.grad(value, leaves(loss, pairs)), gradients, rtol=1e-4, atol=1e-5)


def test_compiles_as_one_graph(loss, twin):
    pairs = masked(batch(loss), torch.arange(12) % 2 == 0)
    expected, gradients = value_and_gradients(twin, pairs)
    torch.compiler.reset()
    value, compiled = value_and_gradients(torch.compile(loss, fullgraph=True, backend="eager"), pairs)
    assert_same(value, expected)
    assert_same(compiled, gradients)


@pytest.mark.parametrize("name", [name for name in NAMES if list(build(name).buffers())])
def test_memory_is_the_same_for_a_compiled_backward_pass(name):
    """It may compute anew what it needs, of half precision above all, from a memory that must not have moved on."""
    loss, twin = (build(name, dtype=torch.float32) for _ in range(2))
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager_decomp_partition")
    for seed in (1, 2):
        pairs = batch(loss, dtype=torch.bfloat16, seed=seed)
        value, gradients = value_and_gradients(twin, pairs)
        found, others = value_and_gradients(compiled, pairs)
        assert_same(found, value, rtol=1e-2, atol=0)
        assert_same(others, gradients, rtol=2e-2, atol=1e-3 * max(float(one.abs().max()) for one in gradients))
        assert_same(list(loss.buffers()), list(twin.buffers()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in LOGIT_NAMES if name not in IMAGE_NAMES + PLACED])
def test_pixels_are_items(name):
    loss = build(name)
    logits, target = pair_of(loss, count=2, shape=(3, 4))
    flat = logits.movedim(1, -1).reshape(-1, CLASSES)
    mask = torch.arange(24).reshape(2, 3, 4) % 5 != 0
    assert loss.function(logits, target).shape == target.shape
    loss, twin = build(name), build(name)  # those with memory must see the same batches
    assert_same(loss(logits, target), twin(flat, target.flatten()))
    assert_same(loss(logits, target, mask), twin(flat, target.flatten(), mask.flatten()))


@pytest.mark.parametrize("name", [name for name in IMAGE_NAMES if name not in PLACED])
def test_an_image_is_its_unmasked_pixels_in_any_order(name):
    loss = build(name)
    logits, target = pair_of(loss, count=2, shape=(3, 4))
    if not hasattr(loss, "losses"):
        assert loss.function(logits, target).shape == (2,)
    mask = torch.arange(12).view(3, 4) % 5 != 0
    flat = logits[:, :, mask].detach().flip(2).requires_grad_()
    value, (gradient,) = value_and_gradients(loss, scored(flat, target[:, mask].flip(1)))
    masked_value, (masked_gradient,) = value_and_gradients(loss, scored(logits, target, mask.expand(2, 3, 4)))
    assert_same(masked_value, value)
    assert_same(masked_gradient[:, :, mask].flip(2), gradient)
    assert not masked_gradient[:, :, ~mask].any()
    # an image without a pixel left does not count
    first = torch.stack([mask, torch.zeros_like(mask)])
    assert_same(loss(scored(logits, target, first)), loss(scored(logits[:1], target[:1], mask[None])))


@pytest.mark.parametrize("name", [name for name in LOGIT_NAMES if not list(build(name).buffers())])
def test_maps_over_a_stack_of_batches(name):
    loss = build(name)
    pairs = [pair_of(loss, seed=seed) for seed in (1, 2)]
    stacked, targets = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    mapped = torch.func.vmap(lambda logits, target: loss(scored(logits, target)))(stacked, targets)
    assert_same(mapped, torch.stack([loss(scored(*pair)) for pair in pairs]))


@pytest.mark.parametrize("norm", ["weights", "count"])
@pytest.mark.parametrize("name", [name for name in NAMES if not build(name).about.whole_batch])
def test_weights_are_repetitions(name, norm):
    loss = build(name, norm=norm).eval()
    pairs = batch(loss, count=6)
    weight = torch.tensor([0, 1, 2, 3, 1, 1], dtype=torch.float64)

    def repeated(data):
        return data.repeat_interleave(weight.long(), 0)

    expected = loss(change(pairs, repeated, repeated))
    factor = 1 if norm == "weights" else weight.sum() / len(weight)
    assert_same(loss(pairs, weight=weight), expected * factor)


@pytest.mark.parametrize("name", HEADS)
def test_scores_of_a_head_are_without_its_margin(name):
    loss = build(name)
    features, _ = pair_of(loss)
    unit = functools.partial(torch.nn.functional.normalize, dim=-1)
    weight = loss.function.weight
    if name == "l_softmax":
        expected = features @ weight.T
    elif name == "a_softmax":
        expected = features @ unit(weight).T
    else:  # of several centres the nearest counts
        every = torch.einsum("nf,ckf->nck", unit(features), unit(weight).view(CLASSES, -1, FEATURES))
        expected = loss.function.scale * every.amax(2)
    assert_same(loss.logits(features), expected)


@pytest.mark.parametrize("name", NAMES)
def test_never_waits_for_a_device_that_is_pretended(name):
    with pretended() as tally:
        loss = build(name, dtype=torch.float32).to("cuda")
        drawn = batch(loss, dtype=torch.float32)
        pairs = change(drawn, lambda data: data.to("cuda"), lambda target: target.to("cuda"))
        mask = (torch.arange(12) % 2 == 0).to("cuda")
        loss(pairs)  # constants of a loss are sent once
        with tally.during("step"):
            loss(pairs).backward()
            loss(masked(pairs, mask)).backward()
    assert not [(what, place) for _, what, place in tally.found if what.startswith(("wait", "copy"))]


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU to wait for; meta tensors stand for it in test_loss_edges"
)
@pytest.mark.parametrize("name", NAMES)
def test_never_waits_for_the_device(name):
    loss = build(name, dtype=torch.float32).cuda()
    mask = (torch.arange(12) % 2 == 0).cuda()
    pairs = change(batch(loss, dtype=torch.float32), torch.Tensor.cuda, torch.Tensor.cuda, mask)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(pairs).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
