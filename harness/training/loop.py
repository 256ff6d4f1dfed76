"""The training loop: one learner for every task, that knows none of them, nor anything of studies.

Every random draw comes from a generator seeded by (seed, purpose, step), so nothing that a loss draws moves what
another sees, and a resumed run needs no generator's state.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from harness.errors import UsageError, unknown
from harness.records import store
from harness.tasks import Batch, Lazy, Objective, Predict, Seeds, Shift
from harness.training import build, checkpoint, probe
from harness.training.build import seed_for
from harness.training.job import Job, Report, Stopped
from harness.training.meter import Meter, Waiting, held_mb, peak_memory
from losses.checks import labels_trusted
from losses.kinds import Pair, Pairs
from losses.loss import Link

ALLOWED = {
    "schedule": ("cosine", "constant", "plateau"),
    "precision": ("bf16", "fp32"),
    "select": ("best_valid", "last"),
}
WARMING = 10
"""Epochs that the warm-up is a share of where training ends at a plateau."""
REDUCED = 0.1
"""Factor on the learning rate after the first plateau."""
SECONDS = ("train_s", "data_s", "eval_s", "wall_s")


@dataclass
class State:
    """Where a run stands: everything a checkpoint holds besides weights and the states of optimizers."""

    step: int = 0
    diverged_step: int | None = None
    last_finite_loss: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None  # epoch, metrics and weights of the selected epoch
    reduced_after: int | None = None  # epoch of the first plateau
    plateau: bool = False  # whether the second one has ended training
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SECONDS, 0.0))
    epoch_seconds: float = 0.0


class Loop:
    """A run in memory: task, model, losses, optimizers, and the loop over them.

    Args:
        job: the run.

    Raises:
        UsageError: loss, model and data do not fit together, or a setting of the trainer is none.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.seed, self.recipe = job, job.seed, job.spec.trainer
        _check_recipe(self.recipe)
        spec = job.spec
        self.device = torch.device(spec.device)
        if self.device.type == "cpu":
            torch.set_num_threads(spec.threads or 1)
        build.compute_exactly(self.device)
        self.task = build.task(spec, job.data, job.feed, self.device, self.seed)
        self.model: Any  # of any interface that the task knows
        self.losses: Any  # by objective
        self.model, self.losses = build.model_and_losses(spec, self.task, self.seed)
        memory = torch.channels_last if spec.model["channels_last"] else torch.contiguous_format
        self.model = self.model.to(self.device).to(memory_format=memory)
        self.losses.to(self.device)
        parts = self.task.parts(self.model)
        self.optimizers = {
            name: build.optimizer(spec.optimizer, parts[name], loss) for name, loss in self.losses.items()
        }
        self.parameters = {
            name: [p for group in optimizer.param_groups for p in group["params"]]
            for name, optimizer in self.optimizers.items()
        }
        self._mode(train=True)
        self._reseed("forward", 0, 0)
        self.weights = self.task.prepare(self.model, self.losses, self._seeds(0))
        self.lr = spec.optimizer["lr"]
        self.total_steps = self.task.steps_per_epoch * self.recipe["epochs"]
        self.shifts = {name: instantiate(config) for name, config in (spec.shift or {}).items()}
        self.state = State()
        self.meter, self.waiting = Meter(self.losses), Waiting(self.device)

    # ------------------------------------------------------------------ one step

    def step(self, batch: Batch) -> None:
        """Train every objective of a batch, one after the other; what is measured stays on the device."""
        count = self.state.step
        self._set_lr(count)
        objectives = self.task.objectives(self.model, batch)
        for order in itertools.count():
            self._reseed("forward", count, order)
            with self._autocast():
                objective = next(objectives, None)  # the forward pass of this objective happens here
                pairs = {} if objective is None else self._compared(objective)
            if objective is None:
                break
            name = objective.name
            self._reseed("loss", count, order)
            loss = self.losses[name](pairs)
            self.optimizers[name].zero_grad(set_to_none=True)  # an objective before may have reached these weights
            loss.backward()
            norm = self._clipped_norm(name)
            self.optimizers[name].step()
            self.meter.add(name, count, loss.detach(), norm)
        self.state.step += 1

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.recipe["precision"] == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def _reseed(self, purpose: str, count: int, order: int) -> None:
        seed = seed_for(self.seed, f"{purpose} {order}" if order else purpose, count)
        if self.device.type == "cuda":
            torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(seed)
        torch.default_generator.manual_seed(seed)  # the global torch.manual_seed costs seventy times more

    def _set_lr(self, count: int) -> None:
        plateau = self.recipe["schedule"] == "plateau"
        limit = WARMING * self.task.steps_per_epoch if plateau else self.total_steps
        warm = self.recipe["warmup"] * min(limit, self.total_steps)
        factor = min(1.0, (count + 1) / warm) if warm else 1.0
        if self.state.reduced_after is not None:
            factor *= REDUCED
        if self.recipe["schedule"] == "cosine" and count >= warm:
            factor = 0.5 * (1 + math.cos(math.pi * (count - warm) / max(1.0, self.total_steps - warm)))
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.lr * factor

    def _clipped_norm(self, name: str) -> Tensor:
        parameters = self.parameters[name]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.recipe["clip_norm"] is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.recipe["clip_norm"], norm)
        return norm

    def try_out(self) -> None:
        """Send a first batch through model and losses without a step, and shift a first batch of test data, so that a
        wrong setting shows before any work.
        """
        batch = next(self.task.epoch(Seeds(0, 0)))
        self._mode(train=False)
        for objective in self.task.objectives(self.model, batch):
            self.losses[objective.name](self._compared(objective))
        for shift in self.shifts.values():
            with contextlib.suppress(_Asked):
                self.evaluate("test", shift, _Unasked())

    def _compared(self, objective: Objective) -> Pairs:
        """Return the pairs that the losses of an objective compare; those of `Lazy` are made here, no other."""
        about, pairs = self.losses[objective.name].about, objective.pairs
        if missing := set(about.kinds) - pairs.keys():
            raise UsageError(
                f"the loss {about.name} compares {min(missing)}, but the {objective.name} of this task is trained on "
                f"{' and '.join(sorted(pairs))}: choose another loss."
            )
        return _float32({kind: pairs[kind] for kind in about.kinds})

    # ------------------------------------------------------------------ epochs

    @labels_trusted()  # loaders have looked at them
    def run(
        self, folder: Path, stop: Callable[[], bool], report: Report
    ) -> tuple[dict[str, Any], pd.DataFrame, dict[str, Any] | None, dict[str, Any]]:
        """Train from the last checkpoint, if any, to the end; return record, epochs, examples and the arrays of what
        every test item scored, by ``<test set>/<name>``.

        Raises:
            Stopped: ``stop`` returned True; a checkpoint is written.
            Damaged: there was a checkpoint that cannot be taken over; it is set aside, and this learner is spoilt.
        """
        self._resume(folder)
        self.began = self.saved = time.perf_counter()

        def due() -> bool:
            return stop() or time.perf_counter() - self.saved > self.job.checkpoint_seconds

        while not self.over:
            epoch, first = divmod(self.state.step, self.task.steps_per_epoch)
            with peak_memory(self.device, self._held_mb) as peak:
                self._train(epoch, first, due, folder, stop)
            report(epoch + 1, self.recipe["epochs"], self._close_epoch(epoch, peak))
            if due():
                self._save(folder, stop)
        self._add_wall_time()
        record, items = self._record()
        return record, pd.DataFrame(self.state.history), self._examples() if record["test"] else None, items

    @property
    def over(self) -> bool:
        """Whether training has ended: at the last step, at a plateau, or because it diverged."""
        state = self.state
        return state.plateau or state.diverged_step is not None or state.step >= self.total_steps

    def _train(self, epoch: int, first: int, due: Callable[[], bool], folder: Path, stop: Callable[[], bool]) -> None:
        batches = self.task.epoch(self._seeds(epoch), first)
        started = time.perf_counter()
        self._mode(train=True)
        for batch in self._timed(batches):
            self.step(batch)
            if self.state.step % self.task.steps_per_epoch and due():
                self._count_since(started)
                self._save(folder, stop)
                started = time.perf_counter()
        self._count_since(started)

    def _count_since(self, started: float) -> None:
        """Add what training took since a point in time, once the device has done all of it."""
        self.state.epoch_seconds += self._clock() - started
        self.state.seconds["data_s"] += self.waiting.taken()

    def _held_mb(self) -> float:
        return held_mb((self.model, self.losses), self.optimizers.values())

    def _seeds(self, epoch: int) -> Seeds:
        return Seeds(seed_for(self.seed, "order", epoch), seed_for(self.seed, "augment", epoch))

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches; how long the loop waits for them is part of what training costs."""
        while True:
            with self.waiting.for_batch():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _mode(self, *, train: bool) -> None:
        self.model.train(train)
        self.losses.train(train)

    def _add_wall_time(self) -> None:
        now = time.perf_counter()
        self.state.seconds["wall_s"] += now - self.began
        self.began = now

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _close_epoch(self, epoch: int, peak: Mapping[str, float]) -> dict[str, Any]:
        """Bring the epoch's measures to the host, evaluate, and keep the weights that the selection rule prefers."""
        state, measured = self.state, self.meter.close()
        state.diverged_step = measured.bad_step
        state.last_finite_loss = (
            measured.last_finite_loss if measured.last_finite_loss is not None else state.last_finite_loss
        )
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": state.step,
            "lr": next(iter(self.optimizers.values())).param_groups[0]["lr"],
            **_by_objective("train.loss", measured.loss),
            **_by_objective("grad_norm", measured.norm),
            "step_ms": 1000 * state.epoch_seconds / self.task.steps_per_epoch,
            "peak_memory_mb": peak["mb"],
        }
        state.seconds["train_s"] += state.epoch_seconds
        state.epoch_seconds = 0.0
        if state.diverged_step is None:
            started = time.perf_counter()
            scores = self.evaluate("valid")
            state.seconds["eval_s"] += self._clock() - started
            row |= {f"valid.{name}": store.cell(value) for name, value in scores.items()}
            if self.recipe.get("probe"):
                row |= self._probe()
            self._select(epoch + 1, scores)
            if self.recipe["schedule"] == "plateau":
                self._look_for_plateau(epoch + 1)
        state.history.append(row)
        return row

    def _select(self, epoch: int, scores: Mapping[str, Any]) -> None:
        best, metric = self.state.best, self.task.metrics[0]

        def rank(value: float | None) -> float:
            return -math.inf if value is None or value != value else value if metric.higher_is_better else -value

        if (
            self.recipe["select"] == "last"
            or best is None
            or rank(scores[metric.key]) > rank(best["valid"][metric.key])
        ):
            weights = {"model": self.model.state_dict(), "losses": self.losses.state_dict()}
            copied = {part: {name: t.detach().clone() for name, t in state.items()} for part, state in weights.items()}
            self.state.best = {"epoch": epoch, "valid": dict(scores), "weights": copied}

    def _look_for_plateau(self, epoch: int) -> None:
        """After ``patience`` epochs without a better validation score go on from the best weights at a lower rate, and
        after as many again end training. An equal score is no better one.
        """
        state = self.state
        assert state.best is not None
        if epoch - max(state.best["epoch"], state.reduced_after or 0) < self.recipe["patience"]:
            return
        if state.reduced_after is not None:
            state.plateau = True
            return
        state.reduced_after = epoch
        self._restore(state.best["weights"])
        for optimizer in self.optimizers.values():
            optimizer.state.clear()  # moments that other weights have left

    def _restore(self, weights: Mapping[str, Any]) -> None:
        self.model.load_state_dict(weights["model"])
        self.losses.load_state_dict(weights["losses"])

    # ------------------------------------------------------------------ evaluation

    @property
    def predict(self) -> Predictor:
        """The model as it is now, ready for evaluation."""
        return Predictor(self.model, self.losses, self._autocast)

    def evaluate(self, split: str, shift: Shift | None = None, predict: Predict | None = None) -> dict[str, Any]:
        """Return the task's metrics on ``split`` (valid, test), by default with the present weights."""
        return self._evaluated(split, shift, predict)[0]

    def _evaluated(
        self, split: str, shift: Shift | None = None, predict: Predict | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the task's metrics on a split, and the arrays of what every item scored, if it is tested."""
        self._mode(train=False)
        with torch.inference_mode():
            found = dict(self.task.evaluate(predict or self.predict, split, shift))
        items = found.pop("items", {})
        return found, items

    def _examples(self) -> dict[str, Any] | None:
        self._mode(train=False)
        with torch.inference_mode():
            return self.task.examples(self.predict)

    def _probe(self) -> dict[str, float | None]:
        """Return how far the loss is from cross-entropy on a batch of validation data."""
        batch = self.task.probe(self.recipe["batch_size"])
        loss = next(iter(self.losses.values()))
        if batch is None or any(True for _ in loss.buffers()):  # nothing to probe, or a memory that must not be stirred
            return {}
        with torch.no_grad(), self._autocast():
            pairs = _float32(self.task.pairs(self.model(*batch.inputs), batch))
        return probe.beside_cross_entropy(loss, pairs)  # pyright: ignore[reportArgumentType]

    # ------------------------------------------------------------------ resume and record

    def _save(self, folder: Path, stop: Callable[[], bool]) -> None:
        self._add_wall_time()
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        weights = {"model": self.model.state_dict(), "losses": self.losses.state_dict(), "optimizers": optimizers}
        try:
            checkpoint.save(folder, {**weights, "meter": self.meter.state(), "state": vars(self.state)})
        except OSError as error:  # a full disk may have room again when the run ends
            print(f"no checkpoint in {folder}: {error.strerror}; training goes on", file=sys.stderr, flush=True)
        if stop():
            raise Stopped
        self.saved = time.perf_counter()

    def _resume(self, folder: Path) -> None:
        """Take over the checkpoint in a folder, if there is one.

        Raises:
            Damaged: it is none of this run, which may have taken a part of it.
        """
        with checkpoint.opened(folder, self.device) as saved:
            if saved is None:
                return
            self.model.load_state_dict(saved["model"])
            self.losses.load_state_dict(saved["losses"])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(saved["optimizers"][name])
            self.meter.load(saved["meter"])
            self.state = State(**saved["state"])

    def _record(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Test the selected weights, once, and return what the run leaves: its record, and what every item scored."""
        state, best = self.state, self.state.best
        diverged = state.diverged_step is not None
        tested: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        if best is not None and not diverged:
            self._restore(best["weights"])
            tested = {"test": self._evaluated("test")}
            tested |= {f"shifted.{name}": self._evaluated("test", shift) for name, shift in self.shifts.items()}
        items = {f"{name}/{key}": array for name, (_, kept) in tested.items() for key, array in kept.items()}
        scores = {name: found for name, (found, _) in tested.items()}
        test, shifted = scores.pop("test", None), {name.partition(".")[2]: found for name, found in scores.items()}
        history = pd.DataFrame(state.history)
        record = {
            "status": "diverged" if diverged else "done",
            **_about(self.losses),
            **({"loss_weights": self.weights} if self.weights else {}),
            "metrics": [metric.as_dict() for metric in self.task.metrics],
            "test": test,
            **({"shifted": shifted} if shifted else {}),
            "valid": best["valid"] if best else None,
            "selected_epoch": best["epoch"] if best else None,
            "epochs_trained": len(state.history),
            "stopped": None if diverged else "plateau" if state.plateau else "limit",
            "diverged_step": state.diverged_step,
            "last_finite_loss": state.last_finite_loss if diverged else None,
            "cost": {
                **state.seconds,
                "step_ms": float(history["step_ms"].median()),
                "peak_memory_mb": float(history["peak_memory_mb"].max()),
                "parameters": _count(self.model),
                "loss_parameters": _count(self.losses),
            },
            "data": self.task.describe(),
        }
        return record, items


class Predictor:
    """A model under evaluation: inputs to outputs, by kind, in float32; class scores of a loss that is a head included.

    Args:
        model: the model.
        losses: the loss of every objective.
        autocast: returns the context of a forward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        losses: Mapping[str, Any],
        autocast: Callable[[], contextlib.AbstractContextManager[Any]],
    ) -> None:
        self.model, self.autocast = model, autocast
        self.link: Link = next(iter(losses.values())).about.link
        self.head = next((loss for loss in losses.values() if loss.is_head), None)

    def __call__(self, *inputs: Tensor) -> Any:
        """Return the outputs for a batch of inputs."""
        with self.autocast():
            outputs = self.model(*inputs)
        if not isinstance(outputs, Mapping):
            return outputs.float()
        found: dict[str, Callable[[], Any]] = {
            kind: functools.partial(_in_float32, output) for kind, output in outputs.items()
        }
        if (head := self.head) is not None:
            found["class_logits"] = lambda: head.logits(outputs["features"].float())
        return Lazy(found)  # a map of features is large, and few tasks look at it


def _check_recipe(recipe: Mapping[str, Any]) -> None:
    """Raise a UsageError unless the settings of a trainer are what the loop knows."""
    for name, known in ALLOWED.items():
        if recipe[name] not in known:
            raise unknown(f"trainer.{name}", recipe[name], known)
    for name in ("epochs", "batch_size", "eval_batch_size", "patience"):
        if type(recipe[name]) is not int or recipe[name] < 1:
            raise UsageError(f"trainer.{name} is {recipe[name]}; it must be a whole number from 1 on.")
    if recipe["schedule"] == "plateau" and recipe["select"] != "best_valid":
        raise UsageError("trainer.schedule=plateau goes back to the best epoch: use trainer.select=best_valid.")


class _Asked(Exception):
    """A prediction was asked for, so the test data could be shifted."""


class _Unasked:
    """Stands for a trained model where only the data are tried out."""

    link: Link = None

    def __call__(self, *inputs: Tensor) -> Any:
        raise _Asked


def _in_float32(output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return output.float() if isinstance(output, Tensor) else tuple(level.float() for level in output)


def _float32(pairs: Pairs) -> Pairs:
    return {kind: Pair(pair.prediction.float(), pair.target, pair.mask) for kind, pair in pairs.items()}


def _by_objective(name: str, values: Mapping[str, float]) -> dict[str, float]:
    """Return columns of the history: ``name``, or one for each objective where there are several."""
    return {name if len(values) == 1 else f"{name}.{objective}": value for objective, value in values.items()}


def _about(losses: Mapping[str, Any]) -> dict[str, str | None]:
    """Return what a record says of the losses; several are joined."""
    about = [loss.about for loss in losses.values()]
    links = {each.link for each in about}
    return {
        "loss_name": "; ".join(each.name for each in about),
        "loss_family": about[-1].family,
        "loss_link": links.pop() if len(links) == 1 else None,
        "loss_paper": "; ".join(each.paper for each in about),
        "loss_evidence": max((each.evidence for each in about), key="VHMR".index),
    }


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
