"""From a run's description to model, loss and optimizer."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from torch import nn

from harness import models
from harness.errors import UsageError
from harness.tasks import Task
from losses.compound import Sum
from losses.loss import Loss, fitted

Config = Mapping[str, Any]
VERSIONS_OF = ("torch", "torchvision", "timm")


def model_and_loss(described: Config, task: Task, model_seed: int, loss_seed: int) -> tuple[models.Model, Loss | Sum]:
    """Build model and loss, each from a seed of its own, so that neither moves the other's initial weights.

    A loss that is a head (ArcFace) replaces the model's own; the body keeps the same initial weights.

    Raises:
        UsageError: the loss compares something that the task does not offer.
    """
    dense = models.is_dense(described["model"])
    if dense != task.dense:
        kinds = ("images", "every pixel")
        raise UsageError(
            f"the model {described['model']['_target_'].rpartition('.')[2]} classifies {kinds[dense]}, but this "
            f"task is about {kinds[task.dense]}: choose another model or task."
        )
    shape = {name: task.model_shape[name] for name in ("in_channels", "image_size")}
    settings = {name: value for name, value in described["model"].items() if name != "channels_last"}
    torch.manual_seed(model_seed)
    model = models.build(settings, **shape, num_classes=task.model_shape["num_classes"])
    torch.manual_seed(loss_seed)
    built = loss(described["loss"], task, model.num_features)
    if built.is_head:
        torch.manual_seed(model_seed)
        model = models.build(settings, **shape, num_classes=None)
    elif not task.judges & set(built.about.takes.split("+")):
        raise UsageError(
            f"the loss {built.about.name} trains {built.about.takes} alone, but this task is judged by "
            f"{' or '.join(sorted(task.judges))}: add it to another loss, as conf/loss/center_cross_entropy.yaml does."
        )
    if task.decode is not None and model.head is not None:
        model.head = nn.Sequential(model.head, task.decode)
    return model, built


def loss(config: Config, task: Task, num_features: int) -> Loss | Sum:
    """Build a loss: a function, a module with weights or memory of its own, or a weighted sum of losses."""
    if "parts" in config:
        return Sum({name: loss(part, task, num_features) for name, part in config["parts"].items()}, config["terms"])
    sizes = {"num_classes": task.model_shape["num_classes"], "num_features": num_features}
    # where a model gives NaN the run has diverged, so masked items need no protection from it
    built = Loss(fitted(instantiate(_with_counts(config, task)), **sizes), shield=False)
    if built.about.untrainable:
        raise UsageError(f"the loss {built.about.name} cannot be trained: {built.about.untrainable}")
    if built.about.takes not in task.takes:
        raise UsageError(
            f"the loss {built.about.name} compares {built.about.takes}, but this task offers only "
            f"{' and '.join(sorted(task.takes))}: choose another loss or task."
        )
    return built


def _with_counts(config: Config, task: Task) -> Config:
    """Return a loss's config with what it leaves open (null) of the training set: counts of its classes, or weights in
    inverse proportion to them, of mean 1 over items (scikit-learn's "balanced").
    """
    if config.get("counts", 0) is None:
        return {**config, "counts": task.class_counts.tolist()}
    if config.get("weights", 0) is None:
        counts = task.class_counts.double()
        return {**config, "weights": (counts.sum() / (len(counts) * counts.clamp_min(1))).tolist()}
    return config


def optimizer(config: Config, *modules: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of all weights, the loss's own included; only those of two dimensions or more decay."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config["weight_decay"]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    settings = {name: value for name, value in config.items() if name not in ("_target_", "weight_decay")}
    return get_class(config["_target_"])([group for group in groups if group["params"]], **settings)


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions that decide numbers."""
    found = {name: importlib.metadata.version(name) for name in VERSIONS_OF}
    return {"python": platform.python_version(), **found, "platform": f"{platform.system()} {platform.machine()}"}
