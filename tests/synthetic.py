"""Studies made up for tests: as many losses, cells and seeds as asked, with the mishaps of real ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.records.study import StudyData

# label: (name, family, link (None: its scores are not probabilities), paper, evidence, shift of top-1 against the
# baseline, cost of a step against it)
LOSSES: dict[str, tuple[str, str, str | None, str, str, float, float]] = {
    "cross_entropy": ("cross-entropy", "probability", "softmax", "Good 1952", "V", 0.0, 1.0),
    "label_smoothing": ("label smoothing", "probability", "softmax", "Szegedy et al. 2016", "V", 0.0004, 1.02),
    "focal": ("focal loss", "probability", "softmax", "Lin et al. 2017", "V", -0.002, 1.08),
    "focal gamma=5": ("focal loss", "probability", "softmax", "Lin et al. 2017", "V", -0.011, 1.08),
    "ngl": ("NGL", "probability", "softmax", "2025", "H", 0.009, 1.05),
    "hinge_ww": ("multi-class hinge", "margin", None, "Weston & Watkins 1999", "V", -0.004, 1.11),
    "bce_ovr": ("binary cross-entropy", "probability", "sigmoid", "", "V", 0.001, 1.04),
    "arcface": ("ArcFace", "angular", None, "Deng et al. 2019", "M", -0.003, 1.31),
    "mae_prob": ("absolute error on probabilities", "quantity", "softmax", "", "V", -0.31, 0.99),
    "pf_loss_r1": ("PF-loss, reconstruction 1", "probability", "softmax", "2024", "R", -0.001, 1.9),
}
MODELS = {"cnn_micro": 0.981, "vit_nano": 0.955, "mlp": 0.93}
TRIALS = {"lr": (0.0015, 0.005, 0.015), "tuned": (0.005, 0.0007, 0.002, 0.009, 0.01, 0.03)}  # rates
EPOCHS = 8


def study(
    seeds: Sequence[int] = tuple(range(1, 13)),
    losses: Sequence[str] = tuple(LOSSES),
    models: Sequence[str] = ("cnn_micro", "vit_nano"),
    *,
    noise: float = 0.003,
    controls: bool = True,
    mishaps: bool = True,
    history: bool = True,
    track: str = "lr",
    name: str = "made_up",
    control_shift: float = -0.05,
    repeat_shift: float = 0.0,
    search_seeds: Sequence[int] = (7001, 7002),
) -> StudyData:
    """Return a study whose truth is :data:`LOSSES`: each seed moves all losses alike, ``noise`` each run by itself."""
    rng = np.random.default_rng(7)
    rows: list[dict[str, Any]] = []
    for model in models:
        common = {seed: rng.normal(0, 2 * noise) for seed in [*seeds, *(seed + 1000 for seed in seeds)]}
        for label in losses:
            for seed in seeds:
                value = MODELS[model] + LOSSES[label][5] + common[seed] + rng.normal(0, noise)
                rows.append(_run(rng, "run", label, model, seed, seed, value))
            for lr in TRIALS.get(track, ()):
                own = {"config.loss.gamma": 200 * lr} if (track, label) == ("tuned", "focal") else {}
                found = 0.9 - 0.01 * abs(np.log(lr / 0.005))  # the rate in the middle is the best
                trial = f"{label}{model}{lr}"
                rows += [
                    _run(rng, "search", label, model, seed, seed, found, lr) | own | {"setting": trial}
                    for seed in search_seeds
                ]
        for seed in seeds if controls else ():
            repeated = MODELS[model] + repeat_shift + common[seed + 1000] + rng.normal(0, noise)
            worse = MODELS[model] + control_shift + common[seed] + rng.normal(0, noise)
            rows.append(_run(rng, "baseline_repeat", "cross_entropy", model, seed + 1000, seed, repeated))
            rows.append(_run(rng, "negative_control", "negative_control_worse", model, seed, seed, worse))
    frame = pd.DataFrame(_with_mishaps(rows) if mishaps else rows)
    epochs = _history(rng, frame) if history else pd.DataFrame(columns=["key", "epoch"])
    spec = {
        "name": name,
        "question": "Which loss should a small CNN or a small vision transformer be trained with on 8x8 digits?",
        "baseline": "cross_entropy",
        "metric": "test.top1",
        "margin": 0.005,
        "track": track,
        "axes": {"model": list(models), "loss": list(losses), "seed": list(seeds)},
        "base": {"dataset": "digits", "trainer": "short"},
        "controls": {"negative_control": "negative_control_worse", "baseline_repeat": True} if controls else {},
    }
    return StudyData(name, spec, frame, epochs)


def _run(
    rng: np.random.Generator, role: str, label: str, model: str, seed: int, pair: int, top1: float, lr: float = 0.005
) -> dict[str, Any]:
    name, family, link, paper, evidence, _, cost = LOSSES.get(
        label, ("negative control", "control", "softmax", "", "H", 0, 1)
    )
    key = hashlib.sha256(f"{role}{label}{model}{seed}{lr}".encode()).hexdigest()[:16]
    top1 = float(np.clip(top1, 0, 1))
    metrics = {
        "top1": top1, "top5": min(1.0, top1 + 0.02), "macro_f1": top1 - 0.001,
        "nll": None if link != "softmax" else 3 * (1 - top1) + abs(rng.normal(0, 0.01)),
        "ece": None if link is None else 0.01 + abs(rng.normal(0, 0.004)),
    }  # fmt: skip
    per_class = json.dumps([round(top1, 3)] * 10)
    return {
        "key": key, "status": "done", "role": role, "label": label, "seed": seed, "pair_seed": pair,
        "setting": key[:8], "dataset": "digits", "model": model, "loss": label.split()[0], "optimizer": "adamw",
        "trainer": "short", "task": "classification", "track": "lr", "lr": lr,
        "loss_name": name, "loss_family": family, "loss_link": link, "loss_paper": paper, "loss_evidence": evidence,
        "config.optimizer.lr": lr, "config.optimizer.weight_decay": 0.05, "config.trainer.epochs": EPOCHS,
        "config.trainer.batch_size": 64, "config.trainer.select": "best_valid", "config.dataset.split_seed": 0,
        **{f"test.{k}": v for k, v in metrics.items()}, "test.per_class": per_class,
        **{f"valid.{k}": v for k, v in metrics.items()}, "valid.per_class": per_class, "selected_epoch": EPOCHS - 1,
        "cost.step_ms": float(4.1 * cost * rng.normal(1, 0.02)), "cost.train_s": 2.3 * cost, "cost.eval_s": 0.1,
        "cost.wall_s": 2.6 * cost, "cost.peak_memory_mb": 41.5, "cost.parameters": 93_000,
        "cost.loss_parameters": 640 if label == "arcface" else 0,
        "data.train": 1077, "data.valid": 360, "data.test": 360, "data.checksum": "0123456789abcdef",
        "data.classes": 10,
        "env.commit": "0a1b2c3", "env.dirty": False, "env.python": "3.11.2", "env.torch": "2.14.1",
        "env.torchvision": "0.29.1", "env.timm": "1.0.31", "env.platform": "Linux", "env.device": "cpu",
        "env.device_name": "Some CPU", "env.threads": 1,
        "config.model.network": "transformer" if model.startswith("vit") else "cnn",
        "started": "2026-11-20T10:00:00+00:00", "finished": "2026-11-20T10:00:03+00:00", "source": "local",
    }  # fmt: skip


PLANNED = ("key", "role", "label", "seed", "pair_seed", "setting", "dataset", "model", "loss", "optimizer", "trainer",
           "task", "track", "lr")  # fmt: skip
TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\nValueError: bad <b>luck</b>'


def _with_mishaps(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Let some runs diverge, fail and be missing, and drop seeds of one loss, so that seeds are unbalanced."""
    first = rows[0]["model"]

    def rows_of(label: str, count: int) -> list[int]:
        found = [i for i, row in enumerate(rows) if (row["role"], row["label"], row["model"]) == ("run", label, first)]
        return found[:count]

    no_test = {column: None for column in rows[0] if column.startswith("test.")}
    for i in rows_of("arcface", 2):
        rows[i] |= {**no_test, "status": "diverged", "diverged_step": 37, "last_finite_loss": 1.23e4}
    for i in rows_of("hinge_ww", 1):
        rows[i] |= {**no_test, "status": "failed", "error": "ValueError: bad <b>luck</b>", "traceback": TRACEBACK}
    for i in rows_of("bce_ovr", 2):
        rows[i] = {**{name: rows[i][name] for name in PLANNED}, "status": "missing", "source": "local"}
    gone = rows_of("focal gamma=5", 3)
    return [row for i, row in enumerate(rows) if i not in gone]


def _history(rng: np.random.Generator, runs: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for run in runs[runs["status"].isin(["done", "diverged"])].to_dict("records"):
        top1 = run["test.top1"] if run["test.top1"] == run["test.top1"] and run["test.top1"] is not None else 0.3
        for epoch in range(1, 1 + (EPOCHS if run["status"] == "done" else 3)):
            progress = 1 - np.exp(-0.8 * epoch)
            noise = rng.normal(0, 0.004)
            rows.append(
                {
                    "key": run["key"], "epoch": epoch, "step": 16 * epoch, "lr": run["lr"],
                    "train.loss": 2.3 * (1 - progress) + abs(noise), "grad_norm": 1.0, "step_ms": run["cost.step_ms"],
                    "peak_memory_mb": 41.5, "valid.top1": top1 * progress + noise, "valid.top5": 1.0,
                    "valid.macro_f1": top1 * progress, "valid.nll": 0.1, "valid.ece": 0.02,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)
