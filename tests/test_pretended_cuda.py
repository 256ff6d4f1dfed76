"""Every task and every loss on a pretended GPU: nothing that CUDA refuses, no wait and no copy inside a step."""

import contextlib
import functools

import pytest
import torch
from torch import nn

from harness import compose
from harness.tasks import Batch
from harness.training.job import Stopped
from scripts import rehearse_gpu as rehearse
from scripts.pretended_cuda import Pretended, pretended

TASKS = compose.options("task")
PLACES = [(task, model) for task in TASKS for model in rehearse.MODELS.get(task, ("",))]
MORE = [
    *(("classification", model) for model in ("mlp", "resnet_small")),
    *(("segmentation", "fcn_micro"), ("detection", "detector_pyramid_micro")),
]
FEW = ("cross_entropy", "dice", "binary_focal", "binary_cross_entropy", "giou", "smooth_l1", "gwd", "triplet", "center")
"""Losses that are tried with a task's second model, and in tasks whose seats are given what those of detection are."""


@pytest.fixture
def tally():
    with pretended() as found:
        yield found


def nothing(*_):
    return None


@pytest.mark.parametrize(("task", "model"), PLACES)
def test_no_loss_waits_copies_or_mixes_devices(task, model, tally):
    # a second step shows what a loss or an optimizer keeps; once each is enough, and a detector takes long
    like_others = task in ("set_detection", "two_stage_detection", "anchor_detection")
    second = model not in rehearse.MODELS.get(task, ("",))[:1]
    steps = 2 if model in ("cnn_micro", "unet_micro") or not (model or like_others) else 1
    rows = list(rehearse.rehearsals(task, model, "fp32", tally, FEW if like_others or second else (), steps))
    assert len({row.role for row in rows}) == len(rehearse.seats(task))
    assert not [row for row in rows if not row.well]


@pytest.mark.parametrize(("task", "model"), [*PLACES, *MORE])
def test_a_forward_pass_is_in_bf16_where_that_is_asked_for(task, model, tally):
    loop = rehearse.loop_of(rehearse.overrides_of(task, model, "bf16"))
    assert rehearse.rehearsed(loop, tally) == {"step": [], "feed": []}
    assert any(stage == "forward" and "bfloat16" in what for stage, what, _ in tally.found)


# ---------------------------------------------------------------------------- whole runs


def whole(command, folder, feed="resident"):
    """Carry out a run that is stopped after its first step and resumed; return metrics, losses, and what is shown."""
    with pytest.raises(Stopped):
        rehearse.loop_of(command, feed).run(folder, lambda: True, nothing)
    record, history, examples, _ = rehearse.loop_of(command, feed).run(folder, lambda: False, nothing)
    measured = history.filter(regex=r"^(train\.loss|grad_norm)")
    return numbers(record["test"], record.get("shifted", {}), measured.values.tolist()), examples


def numbers(*found):
    """Return the numbers in nested values, in order."""
    flat = []
    for each in found:
        if isinstance(each, dict):
            flat += numbers(*each.values())
        elif isinstance(each, list | tuple):
            flat += numbers(*each)
        elif each is not None:
            flat.append(float(each))
    return flat


@pytest.mark.parametrize("task", TASKS)
def test_a_run_that_is_resumed_ends_as_on_a_cpu(task, tmp_path):
    command = [*rehearse.overrides_of(task, precision="fp32"), *rehearse.SHIFTED.get(task, ())]
    # ranks move by whole images, so they cannot bear what Adam, or large steps, make of rounding
    command += ["optimizer=sgd", "optimizer.lr=0.01"] if task == "embedding" else []
    with pretended():
        found, shown = whole(command, tmp_path / "cuda")
    expected, expected_shown = whole([*command, "device=cpu"], tmp_path / "cpu")
    assert len(found) > 3
    # Adam makes whole steps of what rounding leaves of a gradient near zero
    assert found == pytest.approx(expected, rel=1e-2, abs=1e-3, nan_ok=True)
    assert (shown is None) == (expected_shown is None)


def test_streamed_batches_are_copied_from_pinned_memory_alone(tmp_path, tally):
    command = rehearse.overrides_of("segmentation", precision="fp32")
    loop = rehearse.loop_of(command, "streaming")
    assert rehearse.rehearsed(loop, tally) == {"step": [], "feed": []}
    assert any(what == "copy: pinned cpu to cuda" for _, what, _ in tally.found)


# ---------------------------------------------------------------------------- planted faults


def in_loss(extra):
    """Plant something that is done with scores and labels inside the loss."""

    def plant(loop):
        loss = loop.losses["model"]
        forward = loss.forward

        def faulty(pairs):
            found = extra(*pairs["class_logits"][:2])
            return forward(pairs) + (0 * found.sum() if isinstance(found, torch.Tensor) else 0)

        loss.forward = faulty

    return plant


def in_model(extra):
    def plant(loop):
        loop.model.register_forward_hook(
            lambda model, inputs, outputs: {kind: extra(output) for kind, output in outputs.items()}
        )

    return plant


def no_autocast(loop):
    loop._autocast = contextlib.nullcontext


def norm_is_asked_for(loop):
    clipped = loop._clipped_norm
    loop._clipped_norm = lambda name: torch.tensor(clipped(name).item(), device=loop.device)


def weights_stay_on_the_host(loop):
    extra = nn.Linear(2, 2)
    loop.losses["model"].forward = lambda pairs: extra(pairs["class_logits"].prediction[:, :2]).sum()


def batches_from_the_host(loop):
    epoch = loop.task.epoch

    def copied(seeds, first=0):
        for inputs, target in epoch(seeds, first):
            labels = torch.zeros(len(target), dtype=torch.int64)
            yield Batch(inputs, labels.to(loop.device))

    loop.task.epoch = copied


FAULTS = {
    "item": (in_loss(lambda scores, labels: scores.sum().item()), "step", "wait: local_scalar_dense"),
    "float": (in_loss(lambda scores, labels: float(scores.detach().sum())), "step", "wait: local_scalar_dense"),
    "a branch": (in_loss(lambda scores, labels: scores if labels.max() > 3 else -scores), "step", "wait: local_scalar"),
    "nonzero": (in_loss(lambda scores, labels: labels.nonzero()), "step", "wait: nonzero"),
    "a mask": (in_loss(lambda scores, labels: scores[labels > 3]), "step", "wait: index with a mask"),
    "masked_select": (in_loss(lambda scores, labels: scores.masked_select(scores > 0)), "step", "wait: masked_select"),
    "unique": (in_loss(lambda scores, labels: labels.unique()), "step", "wait: unique"),
    "bincount": (in_loss(lambda scores, labels: labels.bincount()), "step", "wait: bincount"),
    "repeats": (in_loss(lambda scores, labels: scores.repeat_interleave(labels, 0)), "step", "wait: repeat_interleave"),
    "tolist": (in_loss(lambda scores, labels: sum(labels.tolist())), "step", "wait: tolist"),
    "to the host": (in_loss(lambda scores, labels: scores.detach().cpu().mean()), "step", "copy: cuda to cpu"),
    "a constant": (
        in_loss(lambda scores, labels: torch.tensor([1.0, 2.0], device=labels.device)), "step", "copy: cpu to cuda"
    ),
    "a list of columns": (in_loss(lambda scores, labels: scores[:, [0, 2]]), "step", "copy: cpu to cuda"),
    "rows by the host": (in_loss(lambda scores, labels: scores[torch.arange(2)]), "step", "copy: indices, cpu to cuda"),
    "double": (in_loss(lambda scores, labels: scores.double()), "step", "dtype: float64"),
    "half": (in_loss(lambda scores, labels: scores.bfloat16()), "step", "dtype: 16 bits"),
    "no autocasting": (no_autocast, "step", "product: float32"),
    "the norm as a number": (norm_is_asked_for, "step", "wait: local_scalar_dense at "),
    "batches from the host": (batches_from_the_host, "feed", "copy: cpu to cuda"),
}  # fmt: skip
REFUSED = {
    "a tensor of the host": in_loss(lambda scores, labels: scores + torch.ones(scores.shape[1])),
    "a number of the host in a list": in_loss(lambda scores, labels: torch.stack([scores.sum(), torch.zeros(())])),
    "labels of the host": in_loss(lambda scores, labels: nn.functional.cross_entropy(scores, torch.zeros(8).long())),
    "numpy": in_loss(lambda scores, labels: scores.detach().numpy()),
    "a buffer that is none": in_model(lambda output: output * torch.ones(output.shape[1])),
    "weights on the host": weights_stay_on_the_host,
}


@functools.cache
def precision_of(name):
    return "bf16" if name == "no autocasting" else "fp32"


def planted(name, plant):
    command = rehearse.overrides_of("classification", "mlp", precision_of(name))
    loop = rehearse.loop_of([*command, "loss=cross_entropy"])
    plant(loop)
    return loop


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name, tally):
    plant, where, expected = FAULTS[name]
    found = rehearse.rehearsed(planted(name, plant), tally, steps=1)[where]
    assert any(expected in each for each in found), found


@pytest.mark.parametrize("name", REFUSED)
def test_what_cuda_refuses_is_refused(name, tally):
    loop = planted(name, REFUSED[name])
    with pytest.raises((RuntimeError, TypeError), match=r"same device|can't convert cuda:0"):
        rehearse.rehearsed(loop, tally, steps=1)


def test_the_table_tells_a_faulty_loss_from_a_sound_one(tally, monkeypatch):
    build = rehearse.with_loss

    def faulty(loop, spec):
        fits = build(loop, spec)
        if "focal" in spec.loss["_target_"]:
            in_loss(lambda scores, labels: scores.sum().item())(loop)
        return fits

    monkeypatch.setattr(rehearse, "with_loss", faulty)
    rows = rehearse.rehearsals("classification", "mlp", "fp32", tally, ("cross_entropy", "focal"), 1)
    assert {row.loss: row.well for row in rows} == {"cross_entropy": True, "focal": False}


# ---------------------------------------------------------------------------- the device itself


def test_values_shapes_and_gradients_are_those_of_the_cpu(tally):
    def values(device):
        scores = torch.arange(12.0).view(3, 4).to(device).requires_grad_()
        loss = ((2 * scores).unsqueeze(0).mul_(3).squeeze_().softmax(1) * torch.ones(3, 1, device=device)).sum()
        loss.backward()
        mask = torch.zeros(3, dtype=torch.bool, device=device)
        mask[[0, 2]] = True
        assert scores.grad is not None
        return [loss.item(), scores.grad.tolist(), scores[mask].tolist(), scores.new_tensor([1, 2]).tolist()]

    assert values("cuda") == values("cpu")


def test_only_what_is_asked_for_lies_on_the_device(tally):
    assert not isinstance(torch.zeros(2), Pretended)
    assert torch.zeros(2, device="cuda").device == torch.device("cuda", 0)
    assert torch.zeros(2, device="cuda").cpu().device.type == "cpu"
    with torch.inference_mode():
        assert torch.ones(2).to("cuda").is_cuda


def test_afterwards_all_is_as_before():
    exchanged = [torch.cuda.synchronize, torch.load, nn.functional.linear, torch.exp]
    with pretended():
        assert torch.cuda.synchronize is not exchanged[0]
    assert [torch.cuda.synchronize, torch.load, nn.functional.linear, torch.exp] == exchanged
    with pytest.raises((RuntimeError, AssertionError)) if not torch.cuda.is_available() else contextlib.nullcontext():
        torch.zeros(2, device="cuda")
