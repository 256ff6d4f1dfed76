"""One run: the training loop, and nothing that knows of studies.

Every random draw comes from a generator seeded by (seed, purpose, step), so nothing that a loss draws moves what
another sees, and a resumed run needs no generator's state.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra.utils import get_class
from torch import Tensor, nn

from harness import build, hardware, probe, records
from harness.errors import UsageError
from harness.tasks import DataSetup
from losses.loss import Output

Config = Mapping[str, Any]
Report = Callable[[int, int, Mapping[str, Any]], None]


class Stopped(Exception):
    """The run was asked to stop and has left a checkpoint."""


@dataclass
class Progress:
    """Where a run stands: everything a checkpoint holds besides weights and optimizer state."""

    step: int = 0
    diverged_step: int | None = None
    last_finite_loss: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None  # epoch, metrics and weights of the selected checkpoint
    seconds: dict[str, float] = field(
        default_factory=lambda: {"train_s": 0.0, "data_s": 0.0, "eval_s": 0.0, "wall_s": 0.0}
    )
    epoch_seconds: float = 0.0


def seed_for(seed: int, purpose: str, count: int = 0) -> int:
    """Return the 63-bit seed of one purpose (model, loss, order, augment, forward) of a run, at a step or epoch."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}/{count}".encode()).digest()[:8], "big") >> 1


class Trainer:
    """A run in memory: model, loss, optimizer, data, and the loop.

    Args:
        described: the run's identity, as ``harness.compose.identity`` returns it.
        seed: the run's seed.
        data: ``root`` and ``download``.

    Raises:
        UsageError: loss, model and data do not fit together.
    """

    def __init__(self, described: Config, seed: int, data: Config) -> None:
        self.described, self.seed = described, seed
        self.recipe = described["trainer"]
        self.device = torch.device(described["device"])
        if self.device.type == "cpu":
            torch.set_num_threads(described["threads"])
        model_config = described["model"]
        settings = {name: value for name, value in described["task"].items() if name != "_target_"}
        setup = DataSetup(described["dataset"], data, self.device, model_config["channels_last"])
        self.task = get_class(described["task"]["_target_"])(setup, **settings)
        self.model, self.loss = build.model_and_loss(
            described, self.task, seed_for(seed, "model"), seed_for(seed, "loss")
        )
        memory = torch.channels_last if model_config["channels_last"] else torch.contiguous_format
        self.model = self.model.to(self.device).to(memory_format=memory)
        self.loss.to(self.device)
        self.optimizer = build.optimizer(described["optimizer"], self.model, self.loss)
        self.lr = described["optimizer"]["lr"]
        self.batch_size = self.recipe["batch_size"]
        self.steps_per_epoch = self.task.steps_per_epoch(self.batch_size)
        self.total_steps = self.steps_per_epoch * self.recipe["epochs"]
        self.progress = Progress()
        self.tally = self._new_tally()

    # ------------------------------------------------------------------ one step

    def step(self, inputs: Tensor, target: Tensor) -> None:
        """Take one optimisation step; what it measures stays on the device."""
        count = self.progress.step
        self._set_lr(count)
        self._reseed("forward", count)
        with self._autocast():
            output = self.model(inputs)
        self._reseed("loss", count)
        loss = self.loss(_float32(output), target, self.task.mask(target))
        loss.backward()
        norm = self._gradient_norm()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._measure(loss.detach(), norm, count)
        self.progress.step += 1

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.recipe["precision"] == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def _reseed(self, purpose: str, count: int) -> None:
        seed = seed_for(self.seed, purpose, count)
        if self.device.type == "cuda":
            torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(seed)
        torch.default_generator.manual_seed(seed)  # the global torch.manual_seed costs seventy times more

    def _set_lr(self, count: int) -> None:
        warm = self.recipe["warmup"] * self.total_steps
        factor = min(1.0, (count + 1) / warm) if warm else 1.0
        if self.recipe["schedule"] == "cosine" and count >= warm:
            factor = 0.5 * (1 + math.cos(math.pi * (count - warm) / max(1.0, self.total_steps - warm)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * factor

    def _gradient_norm(self) -> Tensor:
        parameters = self._parameters
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.recipe["clip_norm"] is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.recipe["clip_norm"], norm)
        return norm

    @property
    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _new_tally(self) -> dict[str, Tensor]:
        last = self.progress.last_finite_loss
        start = {"loss": 0.0, "norm": 0.0, "bad_step": -1.0, "last_finite": math.nan if last is None else last}
        return {name: torch.tensor(value, device=self.device, dtype=torch.float64) for name, value in start.items()}

    def _measure(self, loss: Tensor, norm: Tensor, count: int) -> None:
        tally, finite = self.tally, loss.isfinite() & norm.isfinite()
        tally["loss"] += loss
        tally["norm"] += norm
        tally["last_finite"] = torch.where(finite, loss.double(), tally["last_finite"])
        tally["bad_step"] = torch.where(finite | (tally["bad_step"] >= 0), tally["bad_step"], float(count))

    def try_out(self) -> None:
        """Send two items through model and loss without training, so that a wrong setting shows before any work."""
        inputs, target = next(self.task.epoch(2, 0, 0))
        self.model.eval()
        self.loss.eval()
        with torch.inference_mode(), self._autocast():
            self.loss(_float32(self.model(inputs)), target, self.task.mask(target))

    # ------------------------------------------------------------------ epochs

    def run(self, folder: Path, checkpoint_seconds: float, stop: Callable[[], bool], report: Report) -> dict[str, Any]:
        """Train from the last checkpoint, if any, to the end, and return the record.

        Raises:
            Stopped: ``stop`` returned True; a checkpoint is written.
        """
        self._resume(folder / "checkpoint.pt")
        self.began = self.saved = time.perf_counter()

        def due() -> bool:
            return stop() or time.perf_counter() - self.saved > checkpoint_seconds

        while self.progress.step < self.total_steps:
            with _peak_memory(self.device) as peak:
                epoch = self.progress.step // self.steps_per_epoch
                batches = self.task.epoch(
                    self.batch_size,
                    seed_for(self.seed, "order", epoch),
                    seed_for(self.seed, "augment", epoch),
                    self.progress.step % self.steps_per_epoch,
                )
                started = time.perf_counter()
                self.model.train()
                self.loss.train()
                for inputs, target in self._timed(batches):
                    self.step(inputs, target)
                    if self.progress.step % self.steps_per_epoch and due():
                        self.progress.epoch_seconds += self._clock() - started
                        self._save(folder / "checkpoint.pt", stop)
                        started = time.perf_counter()
                self.progress.epoch_seconds += self._clock() - started
            report(epoch + 1, self.recipe["epochs"], self._close_epoch(epoch, peak))
            if self.progress.diverged_step is not None:
                break
            if due():
                self._save(folder / "checkpoint.pt", stop)
        self._add_wall_time()
        return self._record()

    def _timed(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches; how long the loop waits for them is part of what training costs."""
        seconds = self.progress.seconds
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            seconds["data_s"] = seconds.get("data_s", 0.0) + time.perf_counter() - started
            if batch is None:
                return
            yield batch

    def _add_wall_time(self) -> None:
        now = time.perf_counter()
        self.progress.seconds["wall_s"] += now - self.began
        self.began = now

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _close_epoch(self, epoch: int, peak: Mapping[str, float]) -> dict[str, Any]:
        """Bring the epoch's tallies to the host, evaluate, and keep the weights that the selection rule prefers."""
        tally = {
            name: float(value)
            for name, value in zip(self.tally, torch.stack(list(self.tally.values())).tolist(), strict=True)
        }
        progress, steps = self.progress, self.steps_per_epoch
        progress.diverged_step = None if tally["bad_step"] < 0 else int(tally["bad_step"])
        progress.last_finite_loss = None if math.isnan(tally["last_finite"]) else tally["last_finite"]
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": progress.step,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train.loss": tally["loss"] / steps,
            "grad_norm": tally["norm"] / steps,
            "step_ms": 1000 * progress.epoch_seconds / steps,
            "peak_memory_mb": peak["mb"],
        }
        progress.seconds["train_s"] += progress.epoch_seconds
        progress.epoch_seconds = 0.0
        if progress.diverged_step is None:
            started = time.perf_counter()
            scores = self.evaluate("valid")
            progress.seconds["eval_s"] += self._clock() - started
            row |= {f"valid.{name}": records.cell(value) for name, value in scores.items()}
            if self.recipe.get("probe"):
                row |= self._probe()
            self._select(epoch + 1, scores)
        progress.history.append(row)
        self.tally = self._new_tally()
        return row

    def evaluate(self, split: str) -> dict[str, Any]:
        """Return the task's metrics on ``split`` (valid, test) with the present weights."""
        self.model.eval()
        self.loss.eval()
        with torch.inference_mode():
            return self.task.evaluate(split, self._predict, self.loss.about.link, self.recipe["eval_batch_size"])

    def examples(self) -> dict[str, Any] | None:
        """Return a few test items and what is predicted for them, where the task has something to show."""
        self.model.eval()
        self.loss.eval()
        with torch.inference_mode():
            return self.task.examples(self._predict)

    def _predict(self, inputs: Tensor) -> Tensor:
        with self._autocast():
            output = self.model(inputs)
        return self.loss.logits(_float32(output))

    def _probe(self) -> dict[str, float | None]:
        """Return how far the loss is from cross-entropy on a batch of validation data; see `harness.probe`."""
        inputs, target = self.task.probe(self.batch_size)
        with torch.no_grad(), self._autocast():
            logits = _float32(self.model(inputs)).prediction
        if logits is None or any(True for _ in self.loss.buffers()):  # a head, or a memory that must not be stirred
            return {}
        return probe.beside_cross_entropy(self.loss, logits, target, self.task.mask(target))

    def _select(self, epoch: int, scores: Mapping[str, Any]) -> None:
        best = self.progress.best
        metric = self.task.selects
        if self.recipe["select"] == "last" or best is None or scores[metric] > best["valid"][metric]:
            weights = {"model": self.model.state_dict(), "loss": self.loss.state_dict()}
            copied = {part: {name: t.detach().clone() for name, t in state.items()} for part, state in weights.items()}
            self.progress.best = {"epoch": epoch, "valid": dict(scores), "weights": copied}

    # ------------------------------------------------------------------ resume and record

    def _save(self, path: Path, stop: Callable[[], bool]) -> None:
        self._add_wall_time()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(".checkpoint.part")
        torch.save(
            {
                "model": self.model.state_dict(),
                "loss": self.loss.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "tally": self.tally,
                "progress": vars(self.progress),
            },
            part,
        )
        part.replace(path)
        if stop():
            raise Stopped
        self.saved = time.perf_counter()

    def _resume(self, path: Path) -> None:
        try:
            saved = torch.load(path, map_location=self.device, weights_only=True)
        except FileNotFoundError:
            return
        self.model.load_state_dict(saved["model"])
        self.loss.load_state_dict(saved["loss"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.progress = Progress(**saved["progress"])
        self.tally = saved["tally"]

    def _record(self) -> dict[str, Any]:
        """Test the selected weights, once, and return what the run leaves."""
        progress, best = self.progress, self.progress.best
        diverged = progress.diverged_step is not None
        test = None
        if best is not None and not diverged:
            self.model.load_state_dict(best["weights"]["model"])
            self.loss.load_state_dict(best["weights"]["loss"])
            test = self.evaluate("test")
        history = pd.DataFrame(progress.history)
        about = self.loss.about
        return {
            "status": "diverged" if diverged else "done",
            "loss_name": about.name,
            "loss_family": about.family,
            "loss_link": about.link,
            "loss_paper": about.paper,
            "loss_evidence": about.evidence,
            "test": test,
            "valid": best["valid"] if best else None,
            "selected_epoch": best["epoch"] if best else None,
            "diverged_step": progress.diverged_step,
            "last_finite_loss": progress.last_finite_loss if diverged else None,
            "cost": {
                **progress.seconds,
                "step_ms": float(history["step_ms"].median()),
                "peak_memory_mb": float(history["peak_memory_mb"].max()),
                "parameters": _count(self.model),
                "loss_parameters": _count(self.loss),
            },
            "data": self.task.describe(),
        }


def _float32(output: Output) -> Output:
    return Output(*(None if part is None else part.float() for part in output))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@contextlib.contextmanager
def _peak_memory(device: torch.device):
    """Measure the greatest memory (MB) in use inside the block: allocated on a GPU, growth of the process on a CPU."""
    peak = {"mb": math.nan}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak["mb"] = torch.cuda.max_memory_allocated() / 2**20
        return
    before = hardware.reset_peak_memory()
    yield peak
    if before is not None:
        peak["mb"] = max(0.0, hardware.peak_memory() - before)


def run(job: Config, folder: Path, stop: Callable[[], bool], report: Report) -> str:
    """Carry out one job and leave its record or failure in ``folder``; return the status.

    Args:
        job: ``key``, ``names``, ``described``, ``seed``, ``data``, ``checkpoint_seconds``, ``environment``.
        folder: where record, history and checkpoint go.
        stop: asked after every step.
        report: called after every epoch with epoch, epochs and the history row.

    Raises:
        Stopped: ``stop`` returned True; a checkpoint is written.
    """
    started = datetime.now(UTC)
    trainer = Trainer(job["described"], job["seed"], job["data"])
    record = trainer.run(folder, job["checkpoint_seconds"], stop, report)
    history = pd.DataFrame(trainer.progress.history)
    examples = trainer.examples() if record["test"] else None
    records.save(folder, about_run(job, started) | record, history, examples)
    return record["status"]


def about_run(job: Config, started: datetime) -> dict[str, Any]:
    """Return the part of a record that does not depend on how the run ended."""
    described = dict(job["described"])
    numerics, device, threads = (described.pop(name) for name in ("numerics", "device", "threads"))
    return {
        "key": job["key"],
        "names": job["names"],
        "seed": job["seed"],
        "config": described,
        "numerics": numerics,
        "env": {
            **job["environment"],
            **build.versions(),
            "device": device,
            "threads": threads,
            "device_name": torch.cuda.get_device_name() if device == "cuda" else hardware.cpu_name(),
        },
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def check(job: Config) -> str | None:
    """Build and try out a job without training; return the one sentence that says why it cannot run, or None."""
    from datasets.splits import MissingData

    try:
        Trainer(job["described"], job["seed"], job["data"]).try_out()
    except (UsageError, MissingData, ValueError) as error:
        return str(error)
    return None
