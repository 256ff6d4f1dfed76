"""From a run's description to its task, model, losses, optimizers and learner."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from hydra.utils import get_class, instantiate
from torch import nn

from harness.address import RunSpec
from harness.errors import UsageError
from harness.models import heads
from harness.tasks import Setup, Task
from losses.compound import Sum
from losses.loss import Loss, about_of, instantiate_with_sizes

if TYPE_CHECKING:
    from harness.training.job import Job

Config = Mapping[str, Any]
VERSIONS_OF = ("torch", "torchvision", "timm")


def seed_for(seed: int, purpose: str, count: int = 0) -> int:
    """Return the 63-bit seed of one purpose (model, loss, order, augment, forward) of a run, at a step or epoch."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}/{count}".encode()).digest()[:8], "big") >> 1


def learner(job: Job) -> Any:
    """Return what carries out a job, the `_target_` of its trainer, built from the job."""
    return get_class(job.spec.trainer["_target_"])(job)


def task(spec: RunSpec, data: Config, feed: Config, device: torch.device, seed: int = 0) -> Task:
    """Build the task of a run, its data included; ``seed`` of the run draws splits by seed.

    Raises:
        UsageError: data and task do not fit together.
    """
    settings = {name: value for name, value in spec.task.items() if name != "_target_"}
    setup = Setup(
        dataset=spec.dataset,
        data=data,
        device=device,
        batch_size=spec.trainer["batch_size"],
        eval_batch_size=spec.trainer["eval_batch_size"],
        stress=spec.stress,
        feed=feed,
        channels_last=spec.model["channels_last"],
        seed=seed,
    )
    return get_class(spec.task["_target_"])(setup, **settings)


def model_and_losses(spec: RunSpec, task: Task, seed: int) -> tuple[nn.Module, nn.ModuleDict]:
    """Build the model and the loss of every objective, each from a seed of its own, so that neither moves the other's
    initial weights.

    A loss that is a head (ArcFace) replaces the model's own; the body keeps the same initial weights.

    Raises:
        UsageError: a loss compares something that the task does not offer, or the model does not suit it.
    """
    outputs = task.spec.outputs
    model = _model(spec, task, outputs, seed)
    torch.manual_seed(seed_for(seed, "loss"))
    losses = objective_losses(spec.loss, task, getattr(model, "num_features", 0))
    wanted = _outputs(task, losses)
    if wanted != outputs:
        model = _model(spec, task, wanted, seed)
    trained = list(dict.fromkeys(kind for loss in losses.values() for kind in loss.about.kinds))
    if not task.evaluates & set(trained) and not any(loss.is_head for loss in losses.values()):
        name = " and ".join(loss.about.name for loss in losses.values())
        raise UsageError(
            f"the loss {name} trains {' and '.join(trained)} alone, but this task evaluates "
            f"{' or '.join(sorted(task.evaluates))}: add it to another loss, as "
            "conf/loss/center_cross_entropy.yaml does."
        )
    return model, nn.ModuleDict(losses)


def _outputs(task: Task, losses: Mapping[str, Loss | Sum]) -> dict[str, int]:
    """Return the heads that these losses need: without that of a loss that is one, with those of special kinds."""
    has_head = any(loss.is_head for loss in losses.values())
    found = {name: n for name, n in task.spec.outputs.items() if not (has_head and name == "class_logits")}
    kinds = {kind for loss in losses.values() for kind in loss.about.kinds}
    for kind in sorted(kinds & task.spec.outputs_for.keys()):
        found |= task.spec.outputs_for[kind]
    return found


def _model(spec: RunSpec, task: Task, outputs: Mapping[str, int], seed: int) -> nn.Module:
    settings = {name: value for name, value in spec.model.items() if name != "channels_last"}
    torch.manual_seed(seed_for(seed, "model"))
    model = heads.build(settings, task.spec.inputs, outputs, task.spec.dimension)
    if task.spec.outputs and not hasattr(model, "num_features") and not hasattr(model, "dense"):
        name = spec.model["_target_"].rpartition(".")[2]
        raise UsageError(f"the model {name} is made for another kind of task: choose another model.")
    dense = getattr(model, "dense", False)
    if task.spec.outputs and dense != task.spec.dense:
        kinds = ("images", "every pixel")
        raise UsageError(
            f"the model {spec.model['_target_'].rpartition('.')[2]} classifies {kinds[dense]}, but this task is about "
            f"{kinds[task.spec.dense]}: choose another model or task."
        )
    return model


def objective_losses(config: Config, task: Task, num_features: int) -> dict[str, Loss | Sum]:
    """Return the loss of every objective of a task; one with several roles adds up their losses.

    Raises:
        UsageError: a role has no loss, or a loss compares what the task does not offer.
    """
    built: dict[str, Loss | Sum] = {}
    for objective, roles in task.roles.items():
        if not roles:
            built[objective] = loss(config, task, num_features)
            continue
        if missing := [role for role in roles if role not in config]:
            raise UsageError(f"this task needs a loss for {missing[0]}: set loss.{missing[0]}=NAME.")
        weights = {role: float(task.weights.get(role, 1.0)) for role in roles}
        used = [role for role in roles if weights[role]]
        if not used:
            raise UsageError(f"the weights of {' and '.join(roles)} are 0, so nothing trains the {objective}.")
        parts = {role: loss(config[role], task, num_features, role) for role in used}
        single = len(used) == 1 and weights[used[0]] == 1
        built[objective] = parts[used[0]] if single else Sum(parts, {role: weights[role] for role in used})
    return built


def loss(config: Config, task: Task, num_features: int, role: str = "") -> Loss | Sum:
    """Build a loss: a function, a module with weights or memory of its own, or a weighted sum of losses."""
    if "parts" in config:
        return Sum(
            {name: loss(part, task, num_features, role) for name, part in config["parts"].items()}, config["terms"]
        )
    about = about_of(instantiate(config))
    if about.untrainable:
        raise UsageError(f"the loss {about.name} cannot be trained: {about.untrainable}")
    offers = task.role_kinds.get(role, task.offers)
    if not set(about.kinds) <= offers:
        asked = f"loss.{role} may compare" if role in task.role_kinds else "this task offers"
        raise UsageError(
            f"the loss {about.name} compares {about.kinds[0]}, but {asked} only "
            f"{' and '.join(sorted(offers))}: choose another loss{'.' if role in task.role_kinds else ' or task.'}"
        )
    sizes = {"num_classes": task.spec.classes, "num_features": num_features}
    # where a model gives NaN the run has diverged, so masked items need no protection from it
    function = instantiate_with_sizes(instantiate(_with_statistics(config, task)), **sizes)
    return Loss(function, sanitize_masked=False)


def _with_statistics(config: Config, task: Task) -> Config:
    """Return a loss's config with what it leaves open (null) and declares to come from the training set."""
    found = dict(config)
    for setting, statistic in about_of(instantiate(config)).from_training_set.items():
        if setting in config and config[setting] is None:
            found[setting] = task.statistic(statistic)
            if found[setting] is None:
                raise UsageError(f"loss.{setting} is null, and this task has no {statistic}: give it a value.")
    return found


def optimizer(config: Config, *modules: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of all weights, the loss's own included; only those of two dimensions or more decay."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config["weight_decay"]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    settings = {name: value for name, value in config.items() if name not in ("_target_", "weight_decay")}
    return get_class(config["_target_"])([group for group in groups if group["params"]], **settings)


def compute_exactly(device: torch.device) -> None:
    """Let a GPU compute fp32 in full, not in TF32 with its 10 bits, and convolutions by algorithms that give equal bits
    again, chosen without trying several out. Sums by atomic addition stay as they come: their order is the device's.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions that decide numbers."""
    found = {name: importlib.metadata.version(name) for name in VERSIONS_OF}
    return {"python": platform.python_version(), **found, "platform": f"{platform.system()} {platform.machine()}"}
