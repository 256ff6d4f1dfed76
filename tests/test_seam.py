"""The seam carries other tasks than those of the harness: toys with one loss, two roles, and two objectives."""

import sys
import types
from dataclasses import replace
from typing import ClassVar

import pandas as pd
import pytest
import torch
from torch import nn

from harness.errors import UsageError
from harness.metrics.declared import Metric, share
from harness.tasks import Batch, Objective, Seeds, Spec, Task
from harness.training.job import Stopped, check
from harness.training.loop import Loop
from losses.kinds import Pair
from losses.loss import Loss, about
from tests.conftest import carried_out


@about(name="toy box overlap", family="geometric", kind="values", link=None, paper="a toy", evidence="H")
def overlap(boxes, target, *, penalty=1.0):
    """One minus IoU plus the distance of the corners: one value per box."""
    low = torch.maximum(boxes[:, :2], target[:, :2])
    high = torch.minimum(boxes[:, 2:], target[:, 2:])
    inside = (high - low).clamp(min=0).prod(1)
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1) + (target[:, 2:] - target[:, :2]).prod(1) - inside
    return 1 - inside / area.clamp(min=1e-6) + penalty * (boxes - target).abs().mean(1)


@about(name="toy squares", family="generative", kind="critic_scores", link=None, paper="a toy", evidence="H")
def squares(scores, target):
    """Squared distance of each score from its target."""
    return (scores - target).square()


class Boxes(Task):
    """Find a bright rectangle in a dark image."""

    offers = frozenset({"values"})
    evaluates = frozenset({"values"})
    metrics = (share("overlap", "overlap"),)

    def __init__(self, setup):
        count, self.size = setup.dataset["count"], setup.batch_size
        generator = torch.Generator().manual_seed(0)
        low = torch.randint(0, 4, (count, 2), generator=generator)
        high = low + torch.randint(2, 5, (count, 2), generator=generator)
        x = torch.arange(8)
        rows = (x >= low[:, :1]) & (x < high[:, :1])
        columns = (x >= low[:, 1:]) & (x < high[:, 1:])
        self.images = (rows[:, :, None] & columns[:, None, :]).float()[:, None]
        self.boxes = torch.cat([low, high], 1) / 8
        self.spec = Spec((1, 8, 8), {"numbers": 4})
        self.steps_per_epoch = count // self.size

    def epoch(self, seeds, first=0):
        order = torch.randperm(len(self.boxes), generator=torch.Generator().manual_seed(seeds.order))
        for step in range(first, self.steps_per_epoch):
            chosen = order[step * self.size : (step + 1) * self.size]
            yield Batch((self.images[chosen],), self.boxes[chosen])

    def pairs(self, outputs, batch):
        return {"values": Pair(outputs["numbers"], batch.target)}

    def evaluate(self, predict, split, shift=None):
        boxes = predict(self.images)["numbers"]
        return {"overlap": float(1 - overlap(boxes, self.boxes, penalty=0.0).mean())}

    def describe(self):
        return {"train": len(self.boxes)}


class SizedBoxes(Boxes):
    """Find the rectangle, and say whether it is large: one objective with two roles."""

    offers = frozenset({"values", "class_logits"})
    evaluates = frozenset({"values"})
    metrics = (share("overlap", "overlap"), share("top1", "accuracy"))
    roles: ClassVar = {"model": ("boxes", "sizes")}

    def __init__(self, setup, weights):
        super().__init__(setup)
        self.weights = weights
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        self.large = (sides.prod(1) > 0.14).long()
        self.spec = Spec((1, 8, 8), {"numbers": 4, "class_logits": 2}, classes=2)

    def epoch(self, seeds, first=0):
        large = {tuple(box.tolist()): kind for box, kind in zip(self.boxes, self.large, strict=True)}
        for batch in super().epoch(seeds, first):
            kinds = torch.stack([large[tuple(box.tolist())] for box in batch.target])
            yield Batch(batch.inputs, (batch.target, kinds))

    def pairs(self, outputs, batch):
        boxes, kinds = batch.target
        return {"values": Pair(outputs["numbers"], boxes), "class_logits": Pair(outputs["class_logits"], kinds)}

    def evaluate(self, predict, split, shift=None):
        found = predict(self.images)["class_logits"].argmax(1)
        return super().evaluate(predict, split) | {"top1": float((found == self.large).float().mean())}


class Players(nn.Module):
    """A generator of points and a critic of them: complete by itself."""

    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
        self.critic = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, noise):
        return self.generator(noise)


def players():
    return Players()


class Contest(Task):
    """Draw points like the real ones, against a critic: two objectives, each with a part of the model."""

    offers = frozenset({"critic_scores"})
    evaluates = frozenset({"critic_scores"})
    metrics = (Metric("distance", "distance of the means", higher_is_better=False, low=0.0),)
    roles: ClassVar = {"critic": ("critic",), "generator": ("generator",)}
    extra = 0  # numbers that the critic's turn draws for nothing

    def __init__(self, setup):
        self.size = setup.batch_size
        self.real = torch.randn(256, 2, generator=torch.Generator().manual_seed(0)) * 0.3 + torch.tensor([1.5, -1.0])
        self.spec, self.steps_per_epoch = Spec((2,)), 256 // self.size
        self.noise, self.seen = {"critic": [], "generator": []}, []

    def epoch(self, seeds, first=0):
        order = torch.randperm(256, generator=torch.Generator().manual_seed(seeds.order))
        for step in range(first, self.steps_per_epoch):
            yield Batch((), self.real[order[step * self.size : (step + 1) * self.size]])

    def parts(self, model):
        return {"critic": model.critic, "generator": model.generator}

    def _drawn(self, model, player):
        self.seen.append({name: p.detach().clone() for name, p in model.named_parameters()})
        self.noise[player].append(torch.randn(self.size, 2))
        return model.generator(self.noise[player][-1])

    def objectives(self, model, batch):
        torch.randn(self.extra)
        made = self._drawn(model, "critic").detach()
        scores = model.critic(torch.cat([batch.target, made])).squeeze(1)
        target = torch.cat([torch.ones(self.size), torch.zeros(self.size)])
        yield Objective("critic", {"critic_scores": Pair(scores, target)})
        scores = model.critic(self._drawn(model, "generator")).squeeze(1)
        yield Objective("generator", {"critic_scores": Pair(scores, torch.ones(self.size))})
        self.seen.append({name: p.detach().clone() for name, p in model.named_parameters()})

    def evaluate(self, predict, split, shift=None):
        made = predict(torch.randn(500, 2, generator=torch.Generator().manual_seed(1)))
        return {"distance": float((made.mean(0) - self.real.mean(0)).norm())}

    def describe(self):
        return {"train": len(self.real)}


def toy(name, **more):
    return {"_target_": f"toy_tasks.{name}", **more}


def loss(name, **settings):
    return toy(name, _partial_=True, **settings)


CROSS_ENTROPY = {"_target_": "losses.probability.cross_entropy", "_partial_": True}
SIZED = {"boxes": loss("overlap", penalty=1.0), "sizes": CROSS_ENTROPY}


@pytest.fixture
def toys(spec, monkeypatch):
    room = types.ModuleType("toy_tasks")
    for each in (Boxes, SizedBoxes, Contest, overlap, squares, players):
        setattr(room, each.__name__, each)
    monkeypatch.setitem(sys.modules, "toy_tasks", room)
    base = spec("trainer.epochs=30", "model=mlp", "trainer.batch_size=32", "trainer.select=last")
    boxes = replace(base, task=toy("Boxes"), dataset={"count": 256}, loss=loss("overlap", penalty=1.0))
    weights = {"boxes": 1.0, "sizes": 0.5}
    contest = replace(
        base,
        task=toy("Contest"),
        dataset={},
        loss={"critic": loss("squares"), "generator": loss("squares")},
        model={"_target_": "toy_tasks.players", "channels_last": False},
    ).at({"trainer.epochs": 60, "optimizer.lr": 0.01, "optimizer.betas": [0.5, 0.9]})
    return {
        "boxes": boxes,
        "roles": replace(boxes, task=toy("SizedBoxes", weights=weights), loss=SIZED),
        "objectives": contest,
    }


@pytest.mark.parametrize("kind", ["boxes", "roles", "objectives"])
def test_a_toy_trains_in_the_same_loop(toys, job, tmp_path, kind):
    given = Loop(job(toys[kind]))
    before = given.evaluate("test")
    assert check(job(toys[kind], metric=f"test.{given.task.metrics[0].key}")) is None
    record = carried_out(given, tmp_path)
    assert record["status"] == "done"
    assert [metric["key"] for metric in record["metrics"]] == list(record["test"])
    if kind == "objectives":
        assert record["test"]["distance"] < 0.3 * before["distance"]
    else:
        assert record["test"]["overlap"] > max(0.4, before["overlap"] + 0.2)
    if kind == "roles":
        assert record["test"]["top1"] > 0.9 > before["top1"]
        assert "toy box overlap + 0.5" in record["loss_name"]


@pytest.mark.parametrize("kind", ["boxes", "roles", "objectives"])
def test_a_toy_resumes_in_mid_epoch_bit_for_bit(toys, job, tmp_path, kind):
    straight = Loop(job(toys[kind]))
    first = carried_out(straight, tmp_path / "a")
    for step in (13, 18):
        stopped = Loop(job(toys[kind]))
        with pytest.raises(Stopped):
            carried_out(stopped, tmp_path / "b", lambda stopped=stopped, step=step: stopped.state.step == step)
        assert stopped.state.step == step
    resumed = Loop(job(toys[kind]))
    assert carried_out(resumed, tmp_path / "b")["test"] == first["test"]
    for name, tensor in straight.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name
    histories = [pd.DataFrame(each.state.history).filter(regex="loss|norm|valid") for each in (straight, resumed)]
    assert len(histories[0].columns) >= 3
    pd.testing.assert_frame_equal(*histories, check_exact=True)


# ---------------------------------------------------------------------- several roles


def test_an_objective_with_roles_is_their_weighted_sum(toys, job):
    run = Loop(job(toys["roles"]))
    batch = next(run.task.epoch(Seeds(1, 1)))
    pairs = run.task.pairs(run.model(*batch.inputs), batch)
    boxes, sizes = (run.losses["model"].losses[role](pairs) for role in ("boxes", "sizes"))
    torch.testing.assert_close(run.losses["model"](pairs), boxes + 0.5 * sizes)


def test_weight_0_leaves_a_role_out(toys, job):
    weighted = {name: toys["roles"].at({"task.weights": given}) for name, given in
                {"none": {"sizes": 0}, "both": {"boxes": 0, "sizes": 0}}.items()}  # fmt: skip
    run, alone = Loop(job(weighted["none"])), Loop(job(toys["boxes"]))
    assert isinstance(run.losses["model"], Loss)
    assert run.losses["model"].kind == "values"
    for each in (run, alone):
        each.step(next(each.task.epoch(Seeds(1, 1))))
    assert run.model.heads["class_logits"].weight.grad is None
    for name, tensor in alone.model.body.state_dict().items():
        assert torch.equal(run.model.body.state_dict()[name], tensor), name
    with pytest.raises(UsageError, match="the weights of boxes and sizes are 0, so nothing trains the model"):
        Loop(job(weighted["both"]))


def test_a_role_without_a_loss_is_refused(toys, job):
    with pytest.raises(UsageError, match=r"this task needs a loss for sizes: set loss\.sizes=NAME"):
        Loop(job(replace(toys["roles"], loss={"boxes": SIZED["boxes"]})))


# ---------------------------------------------------------------------- several objectives


def test_each_objective_trains_its_own_part_after_the_other(toys, job):
    run = Loop(job(toys["objectives"]))
    run.step(next(run.task.epoch(Seeds(1, 1))))
    start, between, end = run.task.seen
    for name in start:
        moves = name.startswith("critic")
        assert torch.equal(start[name], between[name]) != moves, name
        assert torch.equal(between[name], end[name]) == moves, name
    row = run._close_epoch(0, {"mb": 0.0})
    assert {"train.loss.critic", "train.loss.generator", "grad_norm.critic", "grad_norm.generator"} <= row.keys()
    assert not {"train.loss", "grad_norm"} & row.keys()


def test_what_one_objective_draws_does_not_move_the_other(toys, job, monkeypatch):
    def drawn(extra):
        monkeypatch.setattr(Contest, "extra", extra)
        run = Loop(job(toys["objectives"]))
        for batch in run.task.epoch(Seeds(1, 1)):
            run.step(batch)
        return {name: torch.stack(noise) for name, noise in run.task.noise.items()}

    plain, drawing = drawn(0), drawn(7)
    assert torch.equal(plain["generator"], drawing["generator"])
    assert not torch.equal(plain["critic"], drawing["critic"])
    assert not torch.equal(plain["critic"], plain["generator"])
    assert len(plain["critic"].unique(dim=0)) == len(plain["critic"])


def test_divergence_of_any_objective_ends_the_run(toys, job, tmp_path):
    broken = replace(toys["objectives"], loss={"critic": loss("squares"), "generator": loss("broken")})

    @about(name="broken", family="generative", kind="critic_scores", link=None, paper="a toy", evidence="H")
    def infinite(scores, target):
        return scores / 0

    sys.modules["toy_tasks"].broken = infinite
    record = carried_out(Loop(job(broken)), tmp_path)
    assert (record["status"], record["diverged_step"]) == ("diverged", 0)


# ---------------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("kind", "changes", "sentence"),
    [
        ("boxes", CROSS_ENTROPY, "compares class_logits, but this task offers only values"),
        ("roles", SIZED | {"boxes": loss("squares")}, "compares critic_scores, but this task offers only"),
        (
            "roles",
            {"boxes": CROSS_ENTROPY, "sizes": CROSS_ENTROPY},
            "trains class_logits alone, but this task evaluates values",
        ),
        (
            "objectives",
            {"critic": loss("squares"), "generator": loss("overlap")},
            "compares values, but this task offers only critic_scores",
        ),
    ],
)
def test_losses_of_other_kinds_are_refused(toys, job, kind, changes, sentence):
    with pytest.raises(UsageError, match=sentence):
        Loop(job(replace(toys[kind], loss=changes)))


def test_kinds_that_nobody_knows_are_refused():
    with pytest.raises(ValueError, match="kind='boxen': allowed is class_logits, features"):
        about(name="x", family="geometric", kind="boxen", link=None, paper="a toy", evidence="H")


def test_a_task_without_pairs_and_objectives_says_so(toys, job, monkeypatch):
    monkeypatch.delattr(Boxes, "pairs")
    with pytest.raises(NotImplementedError, match="Boxes defines neither pairs nor objectives"):
        Loop(job(toys["boxes"])).try_out()
