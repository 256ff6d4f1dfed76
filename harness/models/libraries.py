"""What the builders of models by name share: who made a model, and whether images suit it.

The models are those of timm, torchvision and segmentation-models-pytorch. Their code is not ours, so the key of a run
covers the versions of the libraries that made its model, and the bytes of a file of weights (`harness.address`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from harness.errors import UsageError

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])
SMALL = 64
"""Images whose shorter side is below this go through a stem for small images, where one is known."""
LEAST_GRID = 7
"""Patches along the shorter side of an image, at least: images of 224x224 have 14 of 16, those of 32x32 8 of 4."""


def made_by(*distributions: str) -> Callable[[Builder], Builder]:
    """Declare whose code a builder's models are.

    Args:
        distributions: names of installed packages; their versions are part of a run's key. Literals, because they are
            read from the source (`harness.code.Code.declared`).
    """
    return lambda builder: builder


class Named(nn.Module):
    """A model of a library without its classifier.

    Args:
        name: its name there.
        net: the library's model, from images (N, C, H, W) to features (N, F), or, dense, (N, F, h, w).
        num_features: F.
        notes: what a reader of its results should know, a sentence each.
        dense: whether features keep their place in the image.
    """

    def __init__(
        self, name: str, net: nn.Module, num_features: int, notes: Iterable[str] = (), *, dense: bool = False
    ) -> None:
        super().__init__()
        self.net, self.num_features, self.dense = net, num_features, dense
        self.notes = tuple(f"{name}: {note}" for note in notes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to features."""
        return self.net(images)


def built(library: str, name: str, make: Callable[..., nn.Module]) -> nn.Module:
    """Return a model that a library makes.

    Raises:
        UsageError: it refuses its arguments.
    """
    try:
        return make()
    except (TypeError, ValueError, AssertionError, RuntimeError, KeyError) as error:
        raise UsageError(f"{library} cannot build {name}: {' '.join(str(error).split())[:200]}.") from error


def features_of(
    name: str, net: nn.Module, channels: int, size: tuple[int, int], smallest: Callable[[], int | None] = lambda: None
) -> int:
    """Return how many features a model gives for images of this size, by giving it one.

    Args:
        name: of the model.
        net: from images to features.
        channels: of the images.
        size: their height and width.
        smallest: returns the side of the smallest square images that suit the model, None if that is not known; asked
            only where these do not.

    Raises:
        UsageError: the model cannot take such images, or its outputs are no features.
    """
    training, height, width = net.training, *size
    try:
        with torch.no_grad():
            features = net.eval()(example(net, channels, size))
    except (RuntimeError, ValueError, AssertionError, IndexError, ZeroDivisionError, TypeError) as error:
        least = smallest()
        remedy = f"it needs {least}x{least} at least" if least else "choose another size"
        raise UsageError(
            f"{name} cannot take images of {height}x{width} pixels: {remedy} (dataset.size, where a data set has it); "
            f"or choose another model ({' '.join(str(error).split())[:120]})."
        ) from error
    finally:
        net.train(training)
    if not isinstance(features, Tensor) or features.ndim not in (2, 4):
        raise UsageError(f"{name} gives no vector of features for an image, so it cannot be used here.")
    return features.shape[1]


def example(net: nn.Module, channels: int, size: tuple[int, int]) -> Tensor:
    """Return one black image, where the weights of a model lie."""
    weight = next(net.parameters())
    return torch.zeros(1, channels, *size, device=weight.device, dtype=weight.dtype)


def smallest_size(build: Callable[[], nn.Module], channels: int, above: int, native: int) -> int | None:
    """Return the side of the smallest square images that a model takes, None if not even its native size does.

    Args:
        build: makes the model; called without storage for weights.
        channels: of the images.
        above: a side that is too small.
        native: the side that the model was made for.
    """
    try:
        with torch.device("meta"):
            net = build().eval()
    except (RuntimeError, NotImplementedError, TypeError, ValueError):  # a builder that needs storage
        return None

    def suits(side: int) -> bool:
        try:
            with torch.no_grad():
                net(example(net, channels, (side, side)))
        except (RuntimeError, ValueError, AssertionError, IndexError):
            return False
        return True

    low, high = above, native
    if not suits(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suits(middle) else (middle, high)
    return high


def patch_for(size: tuple[int, int], patch: int) -> int:
    """Return the largest side of patches, ``patch`` at most, that divides images and leaves at least `LEAST_GRID` of
    them along the shorter side; ``patch`` itself where that does.

    So images of 32x32 have patches of 4, and 64x64 of 8, as in Lee et al., Vision Transformer for Small-Size Datasets,
    arXiv:2112.13492, sec. 4.1.

    Raises:
        UsageError: nothing but single pixels divides the images.

    >>> [patch_for((side, side), 16) for side in (224, 96, 64, 32, 28, 8)]
    [16, 12, 8, 4, 4, 1]
    """
    height, width = size
    fitting = [p for p in range(1, patch + 1) if height % p == width % p == 0 and min(size) // p >= LEAST_GRID]
    found = max(fitting, default=1)
    if found == 1 and min(size) > 2 * LEAST_GRID:
        raise UsageError(
            f"no patch of 2 to {patch} pixels divides images of {height}x{width}: choose a dataset.size with more "
            "divisors, such as a multiple of 8, or a model without patches."
        )
    return found


def small_stem(net: nn.Module) -> bool:
    """Give a ResNet or DenseNet, of timm or torchvision, the stem for small images; return whether it is one of these.

    A 3x3 convolution of stride 1 takes the place of the 7x7 convolution of stride 2 and of max-pooling, as in He et
    al., Deep Residual Learning, CVPR 2016, sec. 4.2, and Huang et al., Densely Connected Networks, CVPR 2017, sec. 3.
    A stem of three 3x3 convolutions keeps them, at stride 1.
    """
    names = {cls.__name__ for cls in type(net).__mro__}
    body: Any = net.get_submodule("features") if "DenseNet" in names else net
    first, pool = ("conv0", "pool0") if "DenseNet" in names else ("conv1", "maxpool")
    if not names & {"ResNet", "DenseNet"} or not hasattr(body, first) or not hasattr(body, pool):
        return False
    stem = getattr(body, first)
    if isinstance(stem, nn.Sequential):
        convolution: Any = stem[0]
        convolution.stride = (1, 1)
    else:
        conv = nn.Conv2d(stem.in_channels, stem.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        setattr(body, first, conv)
    setattr(body, pool, nn.Identity())
    return True


def crowded(size: tuple[int, int], native: int, left: tuple[int, int] | None) -> list[str]:
    """Return the sentence that a stem for larger images leaves one feature of these, or none."""
    if left is None or min(left) > 1 or min(size) >= native:
        return []
    height, width = size
    return [
        f"images of {height}x{width} go through a stem made for {native}x{native}: they are left with "
        f"{left[0]}x{left[1]} features"
    ]
