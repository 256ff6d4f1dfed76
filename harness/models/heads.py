"""A model is a body that makes features, and a linear head on them for every kind of output that the task asks for.

Every builder of this folder is the `_target_` of a file in `conf/model/`. It is given what its signature asks for of
`inputs` (shape of one input), `in_channels`, `image_size` and `outputs` (as for `build`), and returns a body with
`num_features`: from float images (N, C, H, W) to features (N, F), or, if it says `dense = True`, (N, F, h, w). What has
no `num_features` is complete by itself and gets no head.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from hydra.utils import get_method
from torch import Tensor, nn
from torch.nn import functional

from harness.models.pretrained import load_pretrained

NOT_FOR_BUILDERS = frozenset({"_target_", "lr", "precision", "channels_last", "network", "pretrained", "weights"})
"""Fields of a model's yaml that `build` or the trainer reads; all others are settings of the builder."""


class Model(nn.Module):
    """A body and its linear heads.

    Args:
        body: makes features.
        outputs: how many numbers each head gives, by kind of output.
        dimension: length of the features, which a linear layer makes of the body's; None: they are the body's.

    Attributes:
        num_features: length F of the feature vector.
        dense: True if the body makes a map of features, so that heads answer for every pixel.
    """

    def __init__(self, body: nn.Module, outputs: Mapping[str, int], dimension: int | None = None) -> None:
        super().__init__()
        self.body = body
        self.num_features: int = body.num_features  # pyright: ignore[reportAttributeAccessIssue]
        self.dense: bool = getattr(body, "dense", False)
        self.embed = nn.Identity()
        if dimension is not None:
            self.embed, self.num_features = nn.Linear(self.num_features, dimension), dimension
        self.heads = nn.ModuleDict({kind: self._head(numbers) for kind, numbers in outputs.items()})

    def _head(self, numbers: int) -> nn.Module:
        return nn.Conv2d(self.num_features, numbers, 1) if self.dense else nn.Linear(self.num_features, numbers)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return ``features`` and the output of every head: (N, F) and (N, K); dense: (N, F, h, w) and (N, K, H, W)."""
        features = self.embed(self.body(inputs))
        found = {"features": features}
        for kind, head in self.heads.items():
            output = head(features)
            if self.dense and output.shape[-2:] != inputs.shape[-2:]:
                output = functional.interpolate(output, inputs.shape[-2:], mode="bilinear", align_corners=False)
            found[kind] = output
        return found


def build(
    config: Mapping[str, Any], inputs: tuple[int, ...], outputs: Mapping[str, int], dimension: int | None = None
) -> nn.Module:
    """Build the model that `config` (the content of a file in `conf/model/`) describes, from the global random stream.

    The body is built before the heads, so equal seeds give equal bodies with and without a head.

    Args:
        config: `_target_` (a builder), its settings, and what the trainer reads (lr, precision, channels_last).
        inputs: shape of one input.
        outputs: how many numbers each head gives, by kind of output.
        dimension: length of the features of a model with heads; None: the body's own.

    Raises:
        ValueError: the inputs do not suit the model, or its pretrained weights cannot be had.
    """
    builder: Callable[..., Any] = get_method(config["_target_"])
    asked = inspect.signature(builder).parameters
    # a builder that asks for pretrained weights gets them by itself
    settings = {k: v for k, v in config.items() if k not in NOT_FOR_BUILDERS or (k == "pretrained" and k in asked)}
    shape = _shape(config, inputs, outputs, asked)
    body = builder(**shape, **settings)
    if config.get("pretrained") and "pretrained" not in asked:
        resized = {"img_size": shape["image_size"], "patch_size": settings["patch_size"]} if "pool" in asked else {}
        load_pretrained(body, config.get("weights"), in_chans=inputs[0], **resized)
    return Model(body, outputs, dimension) if hasattr(body, "num_features") else body


def _shape(
    config: Mapping[str, Any], inputs: tuple[int, ...], outputs: Mapping[str, int], asked: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a builder asks for of the shapes of inputs and outputs."""
    if "image_size" in asked and len(inputs) != 3:
        name = config["_target_"].rpartition(".")[2]
        raise ValueError(f"the model {name} takes images, but an input of this task has {inputs}: use model=mlp.")
    found: dict[str, Any] = {"inputs": inputs, "outputs": outputs}
    if len(inputs) == 3:
        found |= {"in_channels": inputs[0], "image_size": (inputs[1], inputs[2])}
    return {name: value for name, value in found.items() if name in asked}
