"""python -m scripts.bench_harness [PART ...]: what the harness costs, side by side with doing the same by hand.

Parts: step, segmentation, engine, data, tracking, plan, restart, demo (default: all). Every ratio is the median over
repeats in which both sides run in turn on the same machine, with its quartiles; the table says the goal beside it.
Writes results/bench/harness.csv.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import compose, hardware, paths, plan, records
from harness.address import Addresses, RunSpec, spec_of
from harness.code import parsed_source
from harness.engines.local import LocalEngine
from harness.plan import Run, Study
from harness.studies import sweep

if TYPE_CHECKING:
    from harness.training.loop import Loop

Seconds = float
ALONE = {"baseline_repeat": False, "negative_control": None}
"""Controls of a study that has none."""


@dataclass(frozen=True)
class Row:
    """One measurement: ``ours`` against ``other`` (medians, in ``unit``), and the ratio with its goal."""

    part: str
    what: str
    ours: float
    other: float
    unit: str
    ratio: float
    low: float
    high: float
    goal: str
    repeats: int


def paired(ours: Callable[[], Seconds], other: Callable[[], Seconds], repeats: int) -> tuple[list[float], list[float]]:
    """Time both sides in turn, after one warm-up each that does not count."""
    ours()
    other()
    times: tuple[list[float], list[float]] = [], []
    for index in range(repeats):
        for side in ((0, 1), (1, 0))[index % 2]:  # whoever goes second may profit from a warmer machine
            times[side].append((ours, other)[side]())
    return times


def row(part: str, what: str, ours: Sequence[float], other: Sequence[float], unit: str, goal: str) -> Row:
    """Summarise paired times; the ratio is the median of the ratios of the pairs, with its quartiles."""
    ratios = [a / b for a, b in zip(ours, other, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Row(
        part,
        what,
        statistics.median(ours),
        statistics.median(other),
        unit,
        statistics.median(ratios),
        low,
        high,
        goal,
        len(ratios),
    )


def timed(action: Callable[[], object]) -> Seconds:
    """Return the wall time of ``action``."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def loop_of(spec: RunSpec) -> Loop:
    """Return the training loop of a run that writes nothing."""
    from harness.training.job import Job
    from harness.training.loop import Loop

    job = Job(
        key="", choices={}, label="", role="run", spec=spec, seed=1, data={"root": "", "download": False},
        feed=compose.option("feed", "resident"), folder="", checkpoint_seconds=math.inf, environment={}, identity={},
    )  # fmt: skip
    return Loop(job)


# ---------------------------------------------------------------- step time


def step_of(loop: Loop) -> Callable[[], Seconds]:
    """Return a function that takes one step of a loop, after one that does not count, and returns its seconds."""
    from harness.tasks import Seeds

    def step() -> Seconds:
        loop.model.train()
        batches = loop.task.epoch(Seeds(0, 0))
        loop.step(next(batches))
        started = loop._clock()
        loop.step(next(batches))
        return loop._clock() - started

    return step


def noise(root: Path, *, download: bool, count: int) -> Any:
    """A data set of CIFAR's shape: speed does not depend on what is to be seen."""
    import torch

    from datasets.splits import Images, Splits

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    part = Images(images, torch.randint(0, 10, (count,), generator=generator), torch.arange(count))
    return Splits(train=part, valid=part, test=part, classes=tuple("0123456789"))


NOISE = {"_target_": "scripts.bench_harness.noise", "count": 4096, "augment": {"shift": 4, "flip": True, "cutout": 0}}


def bench_step(repeats: int) -> Iterator[Row]:
    """Harness step, with everything it measures, against a loop by hand on the same model, data and optimizer."""
    from harness.tasks import Seeds

    device = hardware.device_type("auto")
    # many short turns: a shared CPU drifts by more within seconds than what is to be seen
    names, steps, pairs = (
        (("resnet_small", "vit_micro"), 1, 20 * repeats)
        if device == "cpu"
        else (("resnet_small", "vit_micro", "resnet18"), 50, 4 * repeats)
    )
    for model in names:
        config = compose.compose_run([f"model={model}", "trainer=long", "trainer.batch_size=64"]).config
        spec = replace(spec_of(config), dataset=NOISE)
        loop, by_hand = loop_of(spec), hand_loop(spec)

        def ours(loop: Loop = loop, steps: int = steps) -> Seconds:
            loop.model.train()
            batches = loop.task.epoch(Seeds(0, 0))
            loop.step(next(batches))  # a warm-up, which also makes the draws of an epoch
            started = loop._clock()
            for _, batch in zip(range(steps), batches, strict=False):
                loop.step(batch)
            return (loop._clock() - started) / steps

        def hand(by_hand: Callable[[int], Seconds] = by_hand, steps: int = steps) -> Seconds:
            return by_hand(steps) / steps

        goal = "<= 1.02" if device == "cpu" else "<= 1.03"
        mine, theirs = paired(ours, hand, pairs)
        yield row(
            "step",
            f"{model}, batch 64, {spec.trainer['precision']}, {device}: harness / by hand",
            [1000 * t for t in mine],
            [1000 * t for t in theirs],
            "ms",
            goal,
        )


def hand_loop(spec: RunSpec) -> Callable[[int], Seconds]:
    """Return a training loop as one would write it by hand: nothing measured, nothing seeded per step."""
    import torch
    from torch.nn import functional

    from datasets import augment
    from harness.models import heads

    device = torch.device(spec.device)
    memory = torch.channels_last if spec.model["channels_last"] else torch.contiguous_format
    settings = {name: value for name, value in spec.model.items() if name != "channels_last"}
    model = heads.build(settings, (3, 32, 32), {"class_logits": 10}).to(device).to(memory_format=memory)
    decay = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10_000)
    data = noise(Path(), download=False, count=NOISE["count"]).train
    images, targets = data.images.to(device), data.targets.to(device)
    mean, std = torch.full((1, 3, 1, 1), 0.5, device=device), torch.full((1, 3, 1, 1), 0.25, device=device)
    half = spec.trainer["precision"] == "bf16"

    def loop(steps: int) -> Seconds:
        model.train()
        order = torch.randperm(len(targets)).to(device)
        draws = augment.draw(len(targets), NOISE["augment"], torch.Generator()).to(device)
        started = 0.0
        for step in range(steps + 1):
            if step == 1:  # the first step is a warm-up here as there
                if device.type == "cuda":
                    torch.cuda.synchronize()
                started = time.perf_counter()
            place = slice(step * 64, (step + 1) * 64)
            chosen = order[place]
            batch = augment.apply(images[chosen], draws[place])
            batch = ((batch.float() / 255 - mean) / std).contiguous(memory_format=memory)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                logits = model(batch)["class_logits"]
            loss = functional.cross_entropy(logits.float(), targets[chosen])
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return loop


# ---------------------------------------------------------------- segmentation

SCENES = (
    "task=segmentation", "dataset=scenes", "trainer=segmentation", "dataset.train_size=400", "dataset.test_size=200",
)  # fmt: skip


def bench_segmentation(repeats: int) -> Iterator[Row]:
    """Step of the smallest U-Net against the same loop by hand, and evaluation against the bare forward pass."""
    import torch

    from harness.tasks.images import ImageTask

    spec = spec_of(compose.compose_run([*SCENES, "model=unet_micro"]).config)
    loop, step = loop_of(spec), segmentation_by_hand(spec)
    device, batch = spec.device, spec.trainer["batch_size"]
    pairs = (10 if device == "cpu" else 4) * repeats

    mine, theirs = paired(step_of(loop), step, pairs)
    what = f"unet_micro on scenes, batch {batch}, {spec.trainer['precision']}, {device}"
    goal = "<= 1.02" if device == "cpu" else "<= 1.03"
    mine, theirs = ([1000 * t for t in side] for side in (mine, theirs))
    yield row("segmentation", f"step of {what}: harness / by hand", mine, theirs, "ms", goal)

    assert isinstance(loop.task, ImageTask)
    parts = [loop.task.ready(images) for images, _ in loop.task.feed.ordered("valid", spec.trainer["eval_batch_size"])]

    def bare() -> Seconds:
        loop.model.eval()
        started = loop._clock()
        with torch.inference_mode(), loop._autocast():
            for part in parts:
                loop.model(part)
        return loop._clock() - started

    def evaluated() -> Seconds:
        started = loop._clock()
        loop.evaluate("valid")
        return loop._clock() - started

    mine, theirs = ([1000 * t for t in side] for side in paired(evaluated, bare, 4 * repeats))
    yield row("segmentation", f"evaluation of {what}: all metrics / forward", mine, theirs, "ms", "<= 1.2")


def segmentation_by_hand(spec: RunSpec) -> Callable[[], Seconds]:
    """Return one step of a loop as one would write it by hand, on the same scenes and augmentations."""
    import torch
    from torch.nn import functional

    from datasets import joint
    from datasets.sources.scenes import scenes
    from harness.models import heads

    device, recipe = torch.device(spec.device), spec.trainer
    settings = {k: v for k, v in spec.dataset.items() if k not in ("_target_", "augment", "split")}
    data = scenes(**settings)
    classes, size = len(data.classes), tuple(settings["size"])
    config = {k: v for k, v in spec.model.items() if k != "channels_last"}
    memory = torch.channels_last if spec.model["channels_last"] else torch.contiguous_format
    model = heads.build(config, (3, *size), {"class_logits": classes}).to(device)
    model = model.to(memory_format=memory)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    train: Any = data.train.in_memory()
    images, masks = train.images.to(device), train.targets.to(device)
    mean, std = (torch.tensor(x, device=device).view(1, -1, 1, 1) for x in (data.mean, data.std))
    half, count = recipe["precision"] == "bf16", recipe["batch_size"]

    def step(place: slice, order: Any, draws: Any) -> None:
        chosen = order[place]
        batch, target = joint.apply((images[chosen].float() / 255 - mean) / std, masks[chosen], draws[place])
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = model(batch.contiguous(memory_format=memory))["class_logits"]
        loss = functional.cross_entropy(logits.float(), target.long(), ignore_index=255)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def timed_step() -> Seconds:
        model.train()
        order = torch.randperm(len(masks)).to(device)
        draws = joint.draw(len(masks), spec.dataset["augment"], torch.Generator())
        step(slice(0, count), order, draws)  # a warm-up, here as there
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        step(slice(count, 2 * count), order, draws)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return timed_step


# ---------------------------------------------------------------- two players


WGAN = ("task=adversarial", "loss.critic=wgan_critic", "loss.generator=wgan_generator", "task.weights.penalty=10")


def bench_players(repeats: int) -> Iterator[Row]:
    """Step of a critic and its generator, gradient penalty included, against the same two steps by hand."""
    from harness.tasks import Seeds

    def turn_of(loop: Loop, turn: Callable[[Any], None]) -> Callable[[], Seconds]:
        def timed_turn() -> Seconds:
            loop.model.train()
            batches = loop.task.epoch(Seeds(0, 0))
            turn(next(batches))  # a warm-up
            batch, started = next(batches), loop._clock()
            turn(batch)
            return loop._clock() - started

        return timed_turn

    for model, turns in (("gan_small", 20), ("gan_micro", 40)):
        spec = spec_of(compose.compose_run([*WGAN, f"model={model}"]).config)
        loop, other = loop_of(spec), loop_of(spec)
        sides = paired(turn_of(loop, loop.step), turn_of(other, players_by_hand(other)), turns * repeats)
        what = f"{model}, WGAN-GP, batch {spec.trainer['batch_size']}, {spec.device}: harness / by hand"
        mine, theirs = ([1000 * t for t in side] for side in sides)
        yield row("players", what, mine, theirs, "ms", "<= 1.03")


def players_by_hand(loop: Loop) -> Callable[[Any], None]:
    """Return one step of critic and generator as one would write it by hand, on the model and data of a loop."""
    import torch

    critic, generator = loop.model.critic, loop.model.generator
    settings = {"lr": 1e-3, "betas": (0.5, 0.999), "weight_decay": 0.05, "fused": True}
    optimizers = [torch.optim.AdamW(part.parameters(), **settings) for part in (critic, generator)]

    def step(batch: Any) -> None:
        (real,) = batch.inputs
        with torch.no_grad():
            fake = generator(torch.randn_like(real))
        share = torch.rand(len(real), device=real.device).view(-1, 1, 1, 1)
        between = torch.lerp(fake, real, share).requires_grad_()
        slopes = torch.autograd.grad(critic(between).sum(), between, create_graph=True)[0]
        on_real, on_fake = critic(torch.cat([real, fake])).chunk(2)
        penalty = (slopes.flatten(1).norm(dim=1) - 1).square().mean()
        loss = (on_fake.mean() - on_real.mean()) / 2 + 10 * penalty  # a mean over both halves, as ours
        optimizers[0].zero_grad(set_to_none=True)
        loss.backward()
        optimizers[0].step()
        loss = -critic(generator(torch.randn_like(real))).mean()
        optimizers[1].zero_grad(set_to_none=True)
        loss.backward()
        optimizers[1].step()

    return step


# ---------------------------------------------------------------- engine

TRAIN_PY = """
import json, sys
import torch
from torch import nn
from sklearn.datasets import load_digits

seed, epochs, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
torch.manual_seed(seed)
digits = load_digits()
x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
y = torch.tensor(digits.target)
x, y, xt, yt = x[:1200], y[:1200], x[1200:], y[1200:]
def block(i, o): return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
model = nn.Sequential(block(1, 32), block(32, 64), nn.MaxPool2d(2), block(64, 128), nn.AdaptiveAvgPool2d(1),
                      nn.Flatten(), nn.Linear(128, 10)).to(memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.05, fused=True)
for epoch in range(epochs):
    model.train()
    for chosen in torch.randperm(len(y)).split(64)[:-1]:
        loss = nn.functional.cross_entropy(model(x[chosen].contiguous(memory_format=torch.channels_last)), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.inference_mode():
        accuracy = (model(xt).argmax(1) == yt).float().mean().item()
json.dump({"accuracy": accuracy}, open(out, "w"))
"""


def bench_engine(repeats: int, count: int = 60, epochs: int = 2) -> Iterator[Row]:
    """Short runs through the engine against a process per run (importing torch and scikit-learn only)."""
    workers = hardware.cores()
    study = Study(
        "bench",
        "?",
        {"loss": ["cross_entropy"], "seed": list(range(count))},
        base={"trainer.epochs": epochs, "device": "cpu"},
        controls=ALONE,
    )
    addresses = Addresses(paths.ROOT / "data")
    runs = plan.runs(plan.settings(study), study, addresses)

    def ours() -> Seconds:
        with tempfile.TemporaryDirectory() as folder:
            return timed(lambda: _through_engine(runs, Path(folder), workers, addresses))

    def processes() -> Seconds:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"OMP_NUM_THREADS": "1"}
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
            script = Path(folder) / "train.py"
            script.write_text(TRAIN_PY)

            def one(seed: int) -> None:
                command = [sys.executable, str(script), str(seed), str(epochs), str(Path(folder) / f"{seed}.json")]
                subprocess.run(command, env=environment, check=True)

            return timed(lambda: list(pool.map(one, range(count))))

    mine, theirs = paired(ours, processes, repeats)
    yield row(
        "engine",
        f"{count} short runs on {workers} workers: engine, from its start / a process each",
        mine,
        theirs,
        "s",
        "<= 0.35",
    )


def _through_engine(runs: Sequence[Run], results: Path, workers: int, addresses: Addresses) -> None:
    options = compose.compose_run(["device=cpu"]).config
    with LocalEngine("cpu", workers=workers) as pool:
        jobs = [sweep.job_of(run, options, results, addresses) for run in runs]
        ended = [event for event in pool.run(jobs) if event.kind == "finished"]
    assert [event.content["status"] for event in ended] == ["done"] * len(runs)


# ---------------------------------------------------------------- data path


def bench_data(repeats: int) -> Iterator[Row]:
    """One epoch of augmented, normalised batches: the device data path against PyTorch's DataLoader."""
    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    from harness.tasks import Seeds, Setup
    from harness.tasks.classification import Classification

    torch.set_num_threads(1)
    task = Classification(Setup(NOISE, {"root": "", "download": False}, torch.device("cpu"), 64, 512))
    images, targets = task.feed.rows("train", torch.arange(NOISE["count"]))
    arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
    steps = [
        transforms.ToPILImage(),
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(task.splits.mean, task.splits.std),
    ]
    ready = transforms.Compose(steps)

    class Usual(Dataset):
        def __len__(self) -> int:
            return len(arrays)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return ready(arrays[index]), int(targets[index])

    def ours() -> Seconds:
        return timed(lambda: [None for _ in task.epoch(Seeds(0, 0))])

    for loaders in (0, hardware.cores()):
        usual = DataLoader(
            Usual(), batch_size=64, shuffle=True, drop_last=True, num_workers=loaders, persistent_workers=loaders > 0
        )
        mine, theirs = paired(ours, lambda usual=usual: timed(lambda: [None for _ in usual]), repeats)
        speedup = row(
            "data",
            f"DataLoader with {loaders} workers / device data path (one thread), {len(arrays)} images",
            theirs,
            mine,
            "s",
            ">= 3",
        )
        yield replace(speedup, ours=speedup.other, other=speedup.ours)


# ---------------------------------------------------------------- sweeps as a whole


@contextmanager
def elsewhere() -> Iterator[dict[str, str]]:
    """Give an environment in which sweeps write into a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "MLFLOW_TRACKING_URI")}
        yield kept | {"LOSSBENCH_RESULTS": folder}


def harness(environment: dict[str, str], *arguments: str) -> str:
    """Run ``python -m harness`` and return what it prints."""
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.run(command, env=environment, cwd=paths.ROOT, check=True, capture_output=True, text=True).stdout


def finish_mirror(environment: dict[str, str]) -> None:
    """Wait for the mirror, which may go on in the background, so that it disturbs nothing that comes after."""
    command = [sys.executable, "-m", "harness.tracking", "bench_demo"]
    subprocess.run(command, env=environment, cwd=paths.ROOT, check=True, capture_output=True)


def bench_tracking(repeats: int) -> Iterator[Row]:
    """The same sweep with and without the MLflow mirror, from command to prompt."""

    def swept(enabled: bool) -> Seconds:
        with elsewhere() as environment:
            asked = (
                "study=demo",
                "name=bench_demo",
                "axes.seed=[1]",
                "base.trainer.epochs=10",
                "device=cpu",
                f"tracking.enabled={str(enabled).lower()}",
            )
            took = timed(lambda: harness(environment, *asked))
            if enabled:
                finish_mirror(environment)
            return took

    mine, theirs = paired(lambda: swept(True), lambda: swept(False), repeats)
    yield row("tracking", "demo study, one seed: with MLflow / without", mine, theirs, "s", "<= 1.02")


def big_study(count: int = 10_000) -> Study:
    """A study of ``count`` runs: four losses at ten settings, two models."""
    axes: dict[str, list[Any]] = {
        "loss": ["cross_entropy", "focal", "ngl", "brier"],
        "model": ["cnn_micro", "vit_nano"],
        "trainer.epochs": list(range(1, 11)),
        "seed": list(range(count // 80)),
    }
    return Study("bench_big", "?", axes, controls=ALONE)


def bench_plan(repeats: int, composed: int = 50) -> Iterator[Row]:
    """Planning 10,000 runs against composing each with Hydra (``composed`` of them timed, scaled to the same count)."""
    study = big_study()

    def planned(results: Path) -> list[Run]:
        return plan.runs(plan.settings(study), study, Addresses(results / "data", results))

    def ours() -> Seconds:
        compose.option.cache_clear()
        parsed_source.cache_clear()  # as in a process that has just begun
        with tempfile.TemporaryDirectory() as folder:
            return timed(lambda: planned(Path(folder)))

    def one_by_one() -> Seconds:
        entries = [
            ["loss=focal", "model=vit_nano", f"trainer.epochs={i % 10 + 1}", f"seed={i}"] for i in range(composed)
        ]
        return timed(lambda: [compose.compose_run(entry) for entry in entries]) * 10_000 / composed

    with tempfile.TemporaryDirectory() as folder:
        assert len(planned(Path(folder))) == 10_000
    mine, theirs = paired(ours, one_by_one, repeats)
    yield row("plan", "10,000 runs: planned / composed one by one", mine, theirs, "s", "<= 0.02")


def bench_restart(repeats: int) -> Iterator[Row]:
    """From the command to "nothing is missing" with 10,000 finished runs, in seconds (the ratio is to 1 s)."""
    study = big_study()
    options = compose.compose_run([]).config
    with tempfile.TemporaryDirectory() as folder:
        addresses = Addresses(Path(options["data"]["root"]), Path(folder))
        for run in plan.runs(plan.settings(study), study, addresses):
            records.write_json(records.run_folder(run.key, Path(folder)) / "record.json", {"schema": records.SCHEMA})
        code = (
            "from pathlib import Path; from harness import compose; from harness.studies import sweep; "
            "from scripts.bench_harness import big_study; "
            "options = compose.compose_run([]).config; "
            f"outcome = sweep.sweep(big_study(), options, results=Path({folder!r})); "
            "assert outcome.planned == outcome.done == 10_000"
        )

        def ours() -> Seconds:
            return timed(lambda: subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, check=True, timeout=60))

        times = [ours() for _ in range(repeats + 1)][1:]
    yield row(
        "restart", "10,000 finished runs: process start to 'nothing is missing'", times, [1.0] * repeats, "s", "<= 2"
    )


def bench_demo(repeats: int) -> Iterator[Row]:
    """The demo study after installation, from command to prompt (the ratio is to three minutes)."""
    times, accuracies, counts = [], [], []
    for _ in range(min(repeats, 2)):
        with elsewhere() as environment:
            times.append(timed(lambda: harness(environment, "study=demo", "name=bench_demo", "device=cpu")))
            finish_mirror(environment)
            study = records.load_study("bench_demo", Path(environment["LOSSBENCH_RESULTS"]))
        runs = study.runs[study.runs["role"] == "run"]
        counts.append(len(study.runs))
        chosen = runs[(runs["label"] == "cross_entropy") & (runs["axis.stress.rate"] == 0)]
        accuracies.append(float(chosen["test.top1"].to_numpy().mean()))
    what = f"make demo, {counts[0]} runs, / 180 s; accuracy of cross-entropy, clean: {min(accuracies):.4f} (> 0.98)"
    yield row("demo", what, times, [180.0] * len(times), "s", "<= 1")


PARTS = {
    "step": bench_step,
    "segmentation": bench_segmentation,
    "players": bench_players,
    "engine": bench_engine,
    "data": bench_data,
    "tracking": bench_tracking,
    "plan": bench_plan,
    "restart": bench_restart,
    "demo": bench_demo,
}


def main() -> None:
    """Measure the parts named on the command line, print the table and write the CSV."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench_harness", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    import pandas as pd

    rows: list[Row] = []
    print(f"{hardware.cpu_name()}, {hardware.cores()} cores, {hardware.device_type('auto')}, {given.repeats} repeats")
    print(f"{'':70} {'ours':>9} {'other':>9} unit  ratio (quartiles)    goal")
    for part in given.part:
        for found in PARTS[part](given.repeats):
            rows.append(found)
            print(
                f"{found.what[:70]:70} {found.ours:9.3f} {found.other:9.3f} {found.unit:4} {found.ratio:6.3f} "
                f"({found.low:.3f}-{found.high:.3f}) {found.goal}",
                flush=True,
            )
    target = records.RESULTS / "bench" / "harness.csv"
    machine = {
        "cpu": hardware.cpu_name(),
        "cores": hardware.cores(),
        "device": hardware.device_type("auto"),
        "commit": hardware.commit()[0],
    }
    records.write_text(target, pd.DataFrame([vars(found) | machine for found in rows]).to_csv(index=False))
    print(f"wrote {os.path.relpath(target)} {json.dumps(machine)}")


if __name__ == "__main__":
    main()
