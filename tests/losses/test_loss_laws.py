"""Laws that every loss of the registry obeys."""

import functools

import pytest
import torch
from loss_registry import CLASSES, FEATURES, NAMES, batch, build, cast, change, leaves, takes, value_and_gradients

from losses.loss import Output

LOGIT_NAMES = [name for name in NAMES if takes(build(name)) == {"class_logits"}]
CLASS_NAMES = [name for name in NAMES if takes(build(name)) <= {"class_logits", "features"}]
# they give one value per image, not per pixel
IMAGE_NAMES = [name for name in LOGIT_NAMES if build(name).about.per_image]


@pytest.fixture(params=NAMES)
def loss(request):
    return build(request.param)


@pytest.fixture
def twin(request, loss):
    """The same loss once more, with weights and memory of its own."""
    return build(request.node.callspec.params["loss"])


def assert_same(first, second, **tolerance):
    torch.testing.assert_close(first, second, check_dtype=False, **tolerance)


@pytest.mark.parametrize("name", [name for name in NAMES if not build(name).about.detached])
def test_gradient_is_the_derivative(name):
    loss = build(name)
    loss.eval()  # centres must hold still between evaluations
    output, target = batch(loss, count=6)
    assert torch.autograd.gradcheck(lambda *_: loss(output, target), leaves(loss, output))


@pytest.mark.parametrize("name", [name for name in NAMES if not build(name).about.detached])
def test_second_derivative_is_the_derivative_of_the_gradient(name):
    loss = build(name)
    loss.eval()
    output, target = batch(loss, count=6)
    assert torch.autograd.gradgradcheck(lambda *_: loss(output, target), leaves(loss, output), fast_mode=True)


def test_order_of_items_is_irrelevant(loss):
    output, target = batch(loss)
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(2))
    value, gradients = value_and_gradients(loss.eval(), output, target)
    shuffled = change(output, lambda data: data[order])
    other, others = value_and_gradients(loss, shuffled, target[order])
    assert_same(value, other)
    for data, gradient, shuffled_gradient in zip(leaves(loss, output), gradients, others, strict=True):
        is_weight = any(data is parameter for parameter in loss.parameters())
        assert_same(gradient if is_weight else gradient[order], shuffled_gradient)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_names_of_classes_are_irrelevant(name):
    loss = build(name)
    loss(*batch(loss))  # centres take up their places
    output, target = batch(loss.eval(), seed=2)
    value = loss(output, target)
    # a control is blind to the last class or to every second: those keep their places
    classes = torch.tensor([2, 3, 0, 1, 4] if loss.about.family == "control" else [3, 0, 4, 2, 1])
    for held in [*loss.parameters(), *loss.buffers()]:
        if held.shape[:1] == (CLASSES,):
            held.data = held.data[classes]
    renamed = Output(output.features, None if output.prediction is None else output.prediction[:, classes])
    assert_same(loss(renamed, classes.argsort()[target]), value)


def test_control_sees_all_classes_but_the_last():
    loss = build("negative_control_worse")
    output, _ = batch(loss, count=CLASSES)
    _, (gradient,) = value_and_gradients(loss, output, torch.arange(CLASSES))
    assert gradient.abs().sum(1).count_nonzero() == CLASSES - 1
    assert not gradient[-1].any()


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("name", NAMES)
def test_extremes_stay_finite(name, size):
    loss = build(name, dtype=torch.float32)
    output, target = batch(loss, count=64)
    extreme = change(output, lambda data: (size * data.sign()).float())
    value, gradients = value_and_gradients(loss, extreme, cast(target, torch.float32))
    assert all(torch.isfinite(number).all() for number in [value, *gradients, *loss.buffers()])


@pytest.mark.parametrize("settings", [{"gamma": 0.0}, {"gamma": 0.5}, {"gamma": 5.0}])
@pytest.mark.parametrize("sign", [-1, 1])
def test_focal_is_finite_where_the_probability_rounds_to_one(settings, sign):
    loss = build("focal", dtype=torch.float32, **settings)
    logits = torch.zeros(1, CLASSES)
    logits[0, 0] = sign * 1e4
    value, (gradient,) = value_and_gradients(loss, Output(None, logits.requires_grad_()), torch.tensor([0]))
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_masking_equals_leaving_out(loss, twin):
    output, target = batch(loss)
    mask = torch.arange(len(target)) % 3 != 1
    kept = change(output, lambda data: data[mask])
    value, gradients = value_and_gradients(twin, kept, target[mask])

    def where(data, other):
        return torch.where(mask.view(-1, *[1] * (data.ndim - 1)), data, other)

    spoilt = change(output, lambda data: where(data, torch.nan))
    masked_value, masked_gradients = value_and_gradients(loss, spoilt, where(target, -100), mask)
    assert_same(masked_value, value)
    parts = sum(data is not None for data in output)
    for gradient, masked in zip(gradients[:parts], masked_gradients[:parts], strict=True):
        assert_same(masked[mask], gradient)
        assert not masked[~mask].any()
    assert_same(masked_gradients[parts:], gradients[parts:])
    assert_same(list(loss.buffers()), list(twin.buffers()))


@pytest.mark.parametrize("name", NAMES)
def test_without_shield_finite_items_are_masked_alike(name):
    loss, bare = build(name), build(name, sanitize_masked=False)
    output, target = batch(loss)
    mask = torch.arange(len(target)) % 3 != 1
    value, gradients = value_and_gradients(loss, output, target, mask)
    found, others = value_and_gradients(bare, output, target, mask)
    assert_same(found, value)
    assert_same(others, gradients)


@pytest.mark.parametrize("count", [0, 4])
def test_nothing_to_average_gives_zero(loss, count):
    output, target = batch(loss, count=count)
    held = [buffer.clone() for buffer in loss.buffers()]
    value, gradients = value_and_gradients(loss, output, target, torch.zeros(count, dtype=torch.bool))
    assert value == 0
    assert not any(gradient.any() for gradient in gradients)
    assert_same(list(loss.buffers()), held)


def test_empty_batch_without_mask_gives_zero(loss):
    value, gradients = value_and_gradients(loss, *batch(loss, count=0))
    assert value == 0
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_close_to_float64(name):
    exact, single = build(name), build(name, dtype=torch.float32)
    output, target = batch(exact)
    expected, gradients = value_and_gradients(exact, output, target)
    value, singles = value_and_gradients(single, change(output, torch.Tensor.float), cast(target, torch.float32))
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
    output, target = batch(single, dtype=torch.float32, flat=(levels, noise))
    expected, gradients = value_and_gradients(exact, change(output, torch.Tensor.double), cast(target, torch.float64))
    value, singles = value_and_gradients(single, output, target)
    # ten times and more what the rounding of sums and logarithms, which no formula escapes, costs any of them
    assert_same(value.double(), expected, rtol=1e-4, atol=2e-6)
    for gradient, approximate in zip(gradients, singles, strict=True):
        assert_same(approximate.double(), gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_bf16_is_close_to_float64(name):
    exact, coarse = build(name), build(name, dtype=torch.float32)  # a loss keeps its own weights in float32
    output, target = batch(exact, dtype=torch.bfloat16)
    value = coarse(output, target)
    assert value.dtype == torch.float32
    expected = exact(change(output, torch.Tensor.double), cast(target, torch.float64))
    assert_same(value.double(), expected, rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_autocast_rounds_nothing(name):
    output, target = batch(build(name), dtype=torch.float32)
    expected, gradients = value_and_gradients(build(name, dtype=torch.float32), output, target)
    loss = build(name, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(output, target)
    assert_same(value.detach(), expected, rtol=1e-5, atol=1e-5)
    assert_same(torch.autograd.grad(value, leaves(loss, output)), gradients, rtol=1e-4, atol=1e-5)


def test_compiles_as_one_graph(loss, twin):
    output, target = batch(loss)
    mask = torch.arange(len(target)) % 2 == 0
    expected, gradients = value_and_gradients(twin, output, target, mask)
    torch.compiler.reset()
    value, compiled = value_and_gradients(torch.compile(loss, fullgraph=True, backend="eager"), output, target, mask)
    assert_same(value, expected)
    assert_same(compiled, gradients)


@pytest.mark.parametrize("name", [name for name in LOGIT_NAMES if name not in IMAGE_NAMES])
def test_pixels_are_items(name):
    loss = build(name)
    output, target = batch(loss, count=2, shape=(3, 4))
    flat = Output(None, output.prediction.movedim(1, -1).reshape(-1, CLASSES))
    mask = torch.arange(24).reshape(2, 3, 4) % 5 != 0
    assert loss.function(output.prediction, target).shape == target.shape
    loss, twin = build(name), build(name)  # those with memory must be asked the same questions
    assert_same(loss(output, target), twin(flat, target.flatten()))
    assert_same(loss(output, target, mask), twin(flat, target.flatten(), mask.flatten()))


@pytest.mark.parametrize("name", IMAGE_NAMES)
def test_an_image_is_its_unmasked_pixels_in_any_order(name):
    loss = build(name)
    output, target = batch(loss, count=2, shape=(3, 4))
    if not hasattr(loss, "losses"):
        assert loss.function(output.prediction, target).shape == (2,)
    mask = torch.arange(12).view(3, 4) % 5 != 0
    flat = Output(None, output.prediction[:, :, mask].detach().flip(2).requires_grad_())
    value, (gradient,) = value_and_gradients(loss, flat, target[:, mask].flip(1))
    masked, (masked_gradient,) = value_and_gradients(loss, output, target, mask.expand(2, 3, 4))
    assert_same(masked, value)
    assert_same(masked_gradient[:, :, mask].flip(2), gradient)
    assert not masked_gradient[:, :, ~mask].any()
    # an image without a pixel left does not count
    first = torch.stack([mask, torch.zeros_like(mask)])
    alone = Output(None, output.prediction[:1])
    assert_same(loss(output, target, first), loss(alone, target[:1], mask[None]))


@pytest.mark.parametrize("name", [name for name in LOGIT_NAMES if not list(build(name).buffers())])
def test_maps_over_a_stack_of_batches(name):
    loss = build(name)
    stacked = torch.stack([batch(loss, seed=seed)[0].prediction for seed in (1, 2)])
    targets = torch.stack([batch(loss, seed=seed)[1] for seed in (1, 2)])
    mapped = torch.func.vmap(lambda logits, target: loss(Output(None, logits), target))(stacked, targets)
    assert_same(
        mapped, torch.stack([loss(Output(None, logits), t) for logits, t in zip(stacked, targets, strict=True)])
    )


@pytest.mark.parametrize("norm", ["weights", "count"])
@pytest.mark.parametrize("name", [name for name in NAMES if not build(name).about.whole_batch])
def test_weights_are_repetitions(name, norm):
    loss = build(name, norm=norm).eval()
    output, target = batch(loss, count=6)
    weight = torch.tensor([0, 1, 2, 3, 1, 1], dtype=torch.float64)
    repeated = change(output, lambda data: data.repeat_interleave(weight.long(), 0))
    expected = loss(repeated, target.repeat_interleave(weight.long(), 0))
    factor = 1 if norm == "weights" else weight.sum() / len(weight)
    assert_same(loss(output, target, weight=weight), expected * factor)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_a_head_judges_without_its_margin(name):
    loss = build(name)
    output, _ = batch(loss)
    if not loss.is_head:
        expected = torch.zeros(12, CLASSES)
        assert loss.logits(Output(output.features, expected)) is expected
        return
    unit = functools.partial(torch.nn.functional.normalize, dim=-1)
    features, weight = output.features, loss.function.weight
    if name == "l_softmax":
        expected = features @ weight.T
    elif name == "a_softmax":
        expected = features @ unit(weight).T
    else:  # of several centres the nearest counts
        every = torch.einsum("nf,ckf->nck", unit(features), unit(weight).view(CLASSES, -1, FEATURES))
        expected = loss.function.scale * every.amax(2)
    assert_same(loss.logits(output), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", NAMES)
def test_never_waits_for_the_device(name):
    loss = build(name, dtype=torch.float32).cuda()
    output, target = batch(loss, dtype=torch.float32)
    on_device, there = change(output, torch.Tensor.cuda), target.cuda()
    mask = (torch.arange(len(target)) % 2 == 0).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(on_device, there, mask).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
