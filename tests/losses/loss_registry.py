"""What the laws are applied to: every yaml of conf/loss, built as a study builds it, and the data that it compares."""

import importlib
import inspect
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from losses.compound import Sum
from losses.loss import Loss, Output

FOLDER = Path(__file__).parents[2] / "conf" / "loss"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
CLASSES, FEATURES = 5, 6


def config(name, **settings):
    return {**OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml")), **settings}


def build(name, num_classes=CLASSES, num_features=FEATURES, dtype=torch.float64, norm="count", **settings):
    composed = config(name, **settings)
    if "terms" in composed:
        weights = composed["terms"]
        return Sum({term: build(term, num_classes, num_features, dtype, norm) for term in weights}, weights)
    function = instantiate(composed)
    if inspect.isclass(function.func):
        torch.manual_seed(0)
        function = function(num_classes=num_classes, num_features=num_features)
    return Loss(function, norm=norm).to(dtype)


def target_of(composed):
    """The function, class or lift that a yaml names, and the settings that stand beside it."""
    settings = {name: value for name, value in composed.items() if name not in ("_target_", "_partial_")}
    module, _, attribute = composed["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), attribute), settings


def takes(loss):
    return set(loss.about.takes.split("+"))


def batch(loss, count=12, dtype=torch.float64, seed=1, spread=2.0, shape=()):
    """What the loss takes, as leaves that require gradients, and targets; drawn at random, so away from kinks."""
    draw = torch.Generator().manual_seed(seed)

    def leaf(width):
        data = spread * torch.randn(count, width, *shape, generator=draw, dtype=torch.float64)
        return data.to(dtype).requires_grad_()

    features = leaf(FEATURES) if "features" in takes(loss) else None
    prediction = leaf(CLASSES) if "class_logits" in takes(loss) else None
    return Output(features, prediction), torch.randint(CLASSES, (count, *shape), generator=draw)


def change(output, function):
    """Apply a function to each part of an output, and make the results leaves again."""
    return Output(*(None if data is None else function(data.detach()).requires_grad_() for data in output))


def leaves(loss, output):
    """Everything a gradient flows to: what the model returned, and the loss's own weights."""
    return [data for data in output if data is not None] + list(loss.parameters())


def value_and_gradients(loss, output, *batch):
    value = loss(output, *batch)
    return value.detach(), torch.autograd.grad(value, leaves(loss, output))
