"""What a component does on fixed inputs, as a few numbers: values and gradients of a loss, weights and outputs of a
model, first items of a data set. Everything is computed in float64 on the CPU, and global generators stay as they were.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from harness.feeds import splits_for
from harness.models import heads
from harness.tasks import Setup
from losses.compound import Sum
from losses.kinds import Draw, Pair, Pairs, Shape, example
from losses.loss import Loss, about_of, instantiate_with_sizes

Config = Mapping[str, Any]
Fingerprint = dict[str, Any]
DIGITS = 9
CLASSES, FEATURES = 5, 6
DRAWS = ((1, 2.0), (2, 0.3), (3, 8.0))
"""Seed and spread of the examples of a loss: small and large errors reach different branches."""
DENSE: Mapping[str, Shape] = {"class_logits": (CLASSES, 3, 4), "values": (3, 4), "binary_logits": (3, 4)}
LARGE: Mapping[str, Shape] = {"images": (1, 176, 176)}
"""Images with room for all scales of MS-SSIM; only for losses that smaller ones do not suit."""
INPUTS = ((1, 8, 8), (10,), (3, 32, 32), (3, 64, 64), (3, 224, 224))
"""Inputs that are tried on a model; the first that suits it counts."""
ITEMS = 3
"""How many items of each split of a data set are looked at."""
LONG = 1 << 16
"""Of longer tensors, evenly spaced numbers are looked at, beside the sums over all of them."""
Refused = (ValueError, RuntimeError, TypeError, IndexError, KeyError, OSError, ImportError)


def of(component: str, config: Config, data: Config) -> Fingerprint | None:
    """Return the fingerprint of a component: groups of numbers (None: not finite) and texts, by name.

    None: nothing can be said, because it suits none of the inputs, or its data are absent.

    Args:
        component: loss, model or dataset; others have none.
        config: its settings.
        data: ``root`` of all data sets, and whether to ``download`` them.
    """
    if component == "dataset":
        return _quietly(lambda: dataset(config, data))
    known: Mapping[str, Callable[[Config], Fingerprint]] = {"loss": loss, "model": model}
    return _quietly(lambda: known[component](config)) if component in known else None


def _quietly(find: Callable[[], Fingerprint]) -> Fingerprint | None:
    """Return what is found; whatever goes wrong, or is changed on the way, concerns the run itself, not this."""
    dtype = torch.get_default_dtype()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return find() or None
    except Exception:  # own code may raise anything; the run that uses it will raise it again, and say so
        return None
    finally:
        torch.set_default_dtype(dtype)


def numbers(tensors: Iterable[Tensor | None]) -> list[float | None]:
    """Return sum, length and two fixed projections of tensors, as if they were one vector; None where not finite."""
    total = np.zeros(4)
    for position, tensor in enumerate(tensor for tensor in tensors if tensor is not None):
        flat = tensor.detach().to(torch.float64).flatten()
        some = flat[:: max(1, len(flat) // LONG)]
        place = torch.arange(len(some), dtype=torch.float64) + 0.7 * position
        projected = [float((some * torch.cos(rate * place)).sum()) for rate in (1.0, 2.3)]
        total += [float(flat.sum()), float(flat.square().sum()), *projected]
    total[1] **= 0.5
    return [float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None for value in total]


# ---------------------------------------------------------------- losses


def loss(config: Config) -> Fingerprint:
    """Return values and gradients of a loss, or of the loss of every role, on examples of its kinds."""
    if "_target_" not in config:
        parts = {role: loss(part) for role, part in config.items()}
        return {f"{role} {name}": value for role, part in parts.items() for name, value in part.items()}
    classes = _classes(config)
    torch.manual_seed(0)
    built = _loss(config, classes).to(torch.float64)
    about = built.about
    found: Fingerprint = {"use": f"{about.kinds} {about.link} {built.is_head} {about.untrainable}"}
    for name, pairs in _examples(about.kinds, classes):
        if name.startswith("large") and "plain 1" in found:
            break
        with contextlib.suppress(*Refused):
            found[name] = _value_and_gradients(built, pairs)
    return found if len(found) > 1 else {}


def _examples(kinds: Iterable[str], classes: int) -> Iterator[tuple[str, Pairs]]:
    """Yield named examples of kinds of pairs: plain, dense, masked, and large ones last."""
    for name, count, shapes in (("plain", 12, {}), ("dense", 3, DENSE), ("large", 2, LARGE)):
        if name != "plain" and not shapes.keys() & set(kinds):
            continue
        fitting = {**shapes, "class_logits": (classes, *shapes.get("class_logits", (0,))[1:])}
        for seed, spread in DRAWS:
            pairs = example(kinds, Draw(count, classes, seed, spread), fitting)
            yield f"{name} {seed}", pairs
            if seed == 1:
                yield f"{name} masked", _masked(pairs)


def _loss(config: Config, classes: int) -> Loss | Sum:
    if "parts" in config:
        return Sum({name: _loss(part, classes) for name, part in config["parts"].items()}, config["terms"])
    about = about_of(instantiate(config))
    statistics = about.from_training_set
    # of each class, or of the whole training set; examples of rotated boxes lie in images of this size
    lists, number = list(range(10 * classes, 0, -10)), 40.0 if "rotated_boxes" in about.kinds else 10.0
    filled = {
        name: lists if statistic.startswith("class_") else number
        for name, statistic in statistics.items()
        if config.get(name, 0) is None
    }
    function = instantiate(dict(config) | filled)
    return Loss(instantiate_with_sizes(function, num_classes=classes, num_features=FEATURES))


def _classes(config: Config) -> int:
    """Return the number of classes that a loss is for: as many as it has counts or weights, if it has any."""
    parts = config["parts"].values() if "parts" in config else [config]
    lists = [
        len(part[name])
        for part in parts
        for name in about_of(instantiate(part)).from_training_set
        if isinstance(part.get(name), list)
    ]
    return lists[0] if lists else CLASSES


def _masked(pairs: Pairs) -> Pairs:
    """Return the same pairs without every third item."""
    return {
        kind: Pair(pair.prediction, pair.target, torch.arange(len(pair.target)) % 3 != 1)
        for kind, pair in pairs.items()
    }


def _value_and_gradients(built: nn.Module, pairs: Pairs) -> list[float | None]:
    leaves = {kind: pair.prediction.clone().requires_grad_() for kind, pair in pairs.items()}
    built.zero_grad(set_to_none=True)
    value = built({kind: Pair(leaf, *pairs[kind][1:]) for kind, leaf in leaves.items()})
    if value.requires_grad:
        value.backward()
    inner = [parameter.grad for parameter in built.parameters()]
    return [*numbers([value])[:1], *numbers([*(leaf.grad for leaf in leaves.values()), *inner])]


# ---------------------------------------------------------------- models


def model(config: Config) -> Fingerprint:
    """Return initial weights, outputs and gradients of a model, in evaluation and in training.

    Nothing, where weights of a model that is complete by itself have no part in its outputs (a critic beside a
    generator): what they do is not seen.
    """
    settings = {name: value for name, value in config.items() if name != "channels_last"}
    for shape in INPUTS:
        with contextlib.suppress(*Refused):
            found = _trained(settings, shape)
            return {"inputs": str(shape), **found} if found else {}
    return {}


def _trained(config: Config, shape: tuple[int, ...]) -> Fingerprint:
    torch.manual_seed(0)
    built = heads.build(config, shape, {"class_logits": CLASSES}).to(torch.float64)
    weights = [*built.parameters(), *(buffer for buffer in built.buffers() if buffer.is_floating_point())]
    found: Fingerprint = {"weights": numbers(weights)}
    inputs = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found |= {f"evaluated {name}": numbers([output]) for name, output in _outputs(built.eval()(inputs))}
    torch.manual_seed(0)
    outputs = dict(_outputs(built.train()(inputs)))
    sum(output.square().mean() for output in outputs.values()).backward()  # pyright: ignore[reportAttributeAccessIssue]
    complete = not hasattr(built, "num_features")
    if complete and any(parameter.grad is None for parameter in built.parameters() if parameter.requires_grad):
        return {}
    found |= {f"trained {name}": numbers([output]) for name, output in outputs.items()}
    return found | {"gradients": numbers(parameter.grad for parameter in built.parameters())}


def _outputs(outputs: Any) -> Iterator[tuple[str, Tensor]]:
    yield from outputs.items() if isinstance(outputs, Mapping) else [("output", outputs)]


# ---------------------------------------------------------------- data sets


def dataset(config: Config, data: Config) -> Fingerprint:
    """Return sizes and first items of every split of a data set, and its classes or the names of its columns."""
    settings = {name: value for name, value in config.items() if name != "content"}
    splits = splits_for(Setup(settings, data, torch.device("cpu"), batch_size=1, eval_batch_size=1))
    found: Fingerprint = {"names": str(getattr(splits, "classes", None) or getattr(splits, "names", None))}
    for name in ("train", "valid", "test"):
        part = getattr(splits, name)
        items = part.take(np.unique(np.linspace(0, len(part) - 1, ITEMS).astype(int)))
        items = items.in_memory() if hasattr(items, "in_memory") else items
        arrays = [each for each in vars(items).values() if isinstance(each, Tensor | np.ndarray)]
        found |= {f"{name} {number}": numbers([torch.as_tensor(each)]) for number, each in enumerate(arrays)}
        found[f"{name} size"] = [float(len(part))]
    return found
