"""Weights for models of libraries: from a file or the network, all that a model needs or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from timm.models import adapt_input_conv, load_state_dict
from torch import Tensor, nn

from harness.errors import UsageError
from harness.text import joined


def adapted(weights: Mapping[str, Tensor], first: str, channels: int) -> dict[str, Tensor]:
    """Return weights whose first convolution takes other channels: the sum over colours for one, else the colours in
    turn, scaled, as timm does it.

    Args:
        weights: by name.
        first: name of the first convolution.
        channels: of the images.
    """
    name = f"{first}.weight"
    if name not in weights or weights[name].shape[1] == channels:
        return dict(weights)
    return {**weights, name: adapt_input_conv(channels, weights[name])}


def first_convolution(net: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return the name of the first convolution of a model, and that convolution."""
    return next((name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d))


def take_channels(net: nn.Module, channels: int) -> None:
    """Let the first convolution of a model take other channels, with its weights as `adapted` has them."""
    _, conv = first_convolution(net)
    if conv.in_channels == channels:
        return
    weight = adapted({"c.weight": conv.weight.detach()}, "c", channels)["c.weight"]
    conv.in_channels, conv.weight = channels, nn.Parameter(weight)


def read(path: str) -> dict[str, Tensor]:
    """Return the weights in a file that torch or safetensors wrote, by name; alone, or as ``state_dict`` or ``model``.

    Nothing in the file is carried out.

    Raises:
        UsageError: there is no such file, or no weights in it.
    """
    if not Path(path).is_file():
        raise UsageError(f"model.pretrained={path}: there is no such file; give true, false, or a file of weights.")
    try:
        found = load_state_dict(path, weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a file that is none of its own
        raise UsageError(
            f"{path} cannot be read as weights ({type(error).__name__}): save them with "
            "torch.save(model.state_dict(), FILE), or as safetensors."
        ) from error
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UsageError(f"{path} holds no weights: save them with torch.save(model.state_dict(), FILE).")
    return tensors


def fill(name: str, net: nn.Module, weights: Mapping[str, Tensor], source: str) -> list[str]:
    """Load weights into a model without classifier, all of its weights or none; return what was left out, as notes.

    Args:
        name: of the model.
        net: the model.
        weights: by name; those that the model has not, such as a classifier's, are left out.
        source: where they come from, for messages.

    Raises:
        UsageError: weights are missing, or have other shapes.
    """
    wanted = {key: value.shape for key, value in net.state_dict().items()}
    missing = [key for key in wanted if key not in weights and not key.endswith("num_batches_tracked")]
    others = [key for key in wanted if key in weights and weights[key].shape != wanted[key]]
    if missing or others:
        key = (missing or others)[0]
        how = "is missing" if missing else f"is {tuple(weights[key].shape)}, not {tuple(wanted[key])}"
        raise UsageError(
            f"{source} does not fit {name}: of its {len(wanted)} weights {len(missing)} are missing and {len(others)} "
            f"have other shapes ({key} {how}); give weights of the same model, with model.stem=original if they were "
            "trained with that, or set model.pretrained=false."
        )
    net.load_state_dict({key: weights[key] for key in wanted if key in weights}, strict=False)
    extra = dict.fromkeys(key.partition(".")[0] for key in weights if key not in wanted)
    return [f"of {source}, {joined(extra)} was left out: the heads are new"] if extra else []


def fetched(name: str, fetch: Callable[[], Any]) -> Any:
    """Return what fetches weights gives.

    Raises:
        UsageError: they could not be fetched; the sentence says what to do without a connection.
    """
    try:
        return fetch()
    except Exception as error:  # the libraries below raise a dozen kinds when a host cannot be reached
        raise UsageError(
            f"the pretrained weights of {name} could not be fetched ({type(error).__name__}): connect to the internet "
            "once, give a file of them with model.pretrained=FILE, or set model.pretrained=false."
        ) from error


def timm_weights_reachable(config: Any) -> None:
    """Raise unless the weights that timm's config of a model names lie here, or their host answers within 10 seconds,
    where timm would ask for a minute.
    """
    hub = config.hf_hub_id
    if hub and not isinstance(try_to_load_from_cache(hub, "model.safetensors"), str):
        HfApi().model_info(hub, timeout=10)


def torchvision_weights(weights: Any) -> dict[str, Tensor]:
    """Return the weights that an entry of torchvision's enumerations stands for, from the cache or the network."""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    if not cached.exists():
        with urlopen(Request(weights.url, method="HEAD"), timeout=10) as answer:
            if answer.status != 200:
                raise URLError(f"status {answer.status}")
    return weights.get_state_dict(progress=False, check_hash=True)
