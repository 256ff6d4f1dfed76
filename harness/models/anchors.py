"""Detectors of one stage with anchors, boxes of a few sizes and shapes around every cell: RetinaNet and SSD."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from harness.errors import UsageError, unknown
from harness.models import weights
from harness.models.detection import pyramid_detector
from harness.models.libraries import built, example, made_by
from harness.models.named_detection import backbone_weights

Size = tuple[int, int]
RATIOS = (0.5, 1.0, 2.0)
"""Height over width of the anchors of a cell."""
OCTAVE = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
"""Sides of RetinaNet's anchors, over that of the smallest of their level (Lin et al., section 4)."""
NAMED = ("retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "ssd300_vgg16", "ssdlite320_mobilenet_v3_large")


class AnchorDetector(nn.Module):
    """For every anchor a score of each class and a shift onto a thing.

    Args:
        net: from images (N,C,H,W) to scores (N,A,K) and shifts (N,A,4).
        anchors: corners in pixels, (A,4).
        scales: what the shifts are multiplied by, four numbers.
        notes: what a reader of its results should know, a sentence each.

    Source:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv:1708.02002; Liu et al., SSD, ECCV 2016,
        arXiv:1512.02325.
    """

    dense = True
    anchors: Tensor
    scales: Tensor

    def __init__(self, net: nn.Module, anchors: Tensor, scales: Sequence[float], notes: Sequence[str] = ()) -> None:
        super().__init__()
        self.net, self.notes = net, tuple(notes)
        self.register_buffer("anchors", anchors, persistent=False)
        self.register_buffer("scales", torch.tensor(scales), persistent=False)

    def forward(self, images: Tensor) -> dict[str, tuple[Tensor, ...]]:
        """Return ``anchors`` (N,A,4), corners in pixels, ``objects`` (N,A,K), scores, and ``shifts`` (N,A,4)."""
        scores, shifts = self.net(images)
        return {
            "anchors": (self.anchors.expand(len(images), -1, -1),),
            "objects": (scores.float(),),
            "shifts": (shifts.float() * self.scales,),
        }


def around(image_size: Size, cell: int, sides: Sequence[float]) -> Tensor:
    """Return anchors around every centre of a cell, row by row, (h*w*S*R,4): for each side those of the area of such a
    square, in all `RATIOS`.

    Args:
        image_size: height and width of the images.
        cell: side of a cell in pixels.
        sides: S sides in pixels.
    """
    ratios = torch.tensor(RATIOS)
    shapes = torch.stack([ratios.rsqrt(), ratios.sqrt()], 1)  # width, height
    half = (torch.tensor(sides, dtype=torch.float32).view(-1, 1, 1) / 2 * shapes).flatten(0, 1)
    down, across = (cell * (torch.arange(-(-length // cell)) + 0.5) for length in image_size)
    centres = torch.stack([across.repeat(len(down)), down.repeat_interleave(len(across))], 1).unsqueeze(1)
    return torch.cat([centres - half, centres + half], 2).flatten(0, 1)


def of_anchors(level: Tensor, numbers: int) -> Tensor:
    """Return a map (N,R*K,h,w) as K numbers for every anchor, in the order of `around`: (N,h*w*R,K)."""
    return level.permute(0, 2, 3, 1).reshape(len(level), -1, numbers)


class Maps(nn.Module):
    """What a detector with maps says of its anchors.

    Args:
        net: returns maps (N,R*K,h,w) of each level, by kind of output.
        outputs: K, by kind: ``objects``, ``shifts``.
    """

    def __init__(self, net: nn.Module, outputs: Mapping[str, int]) -> None:
        super().__init__()
        self.net, self.outputs = net, dict(outputs)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (N,A,K) and shifts (N,A,4)."""
        found = self.net(images)
        scores, shifts = (
            torch.cat([of_anchors(level, self.outputs[kind]) for level in found[kind]], 1)
            for kind in ("objects", "shifts")
        )
        return scores, shifts


def retinanet(
    *, in_channels: int, image_size: Size, outputs: Mapping[str, int], widths: Sequence[int], levels: int,
    num_features: int, side: float,
) -> AnchorDetector:  # fmt: skip
    """A RetinaNet: a pyramid with towers, and nine anchors for each cell.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        outputs: How many numbers each kind of output has.
        widths: Channels after each halving; four with two levels make cells of 8x8 and 16x16 pixels.
        levels: Number of levels.
        num_features: Channels of every level, a multiple of 8.
        side: Of the smallest anchors of a level, in sides of its cells; four in the paper.

    Raises:
        ValueError: The largest cells do not divide the image, there are fewer stages than levels, the channels are no
            multiple of 8, the anchors have no side, or the task has no anchors.
    """
    check(outputs)
    if side <= 0:
        raise ValueError(f"model.side is {side}; it must be above 0.")
    each = len(OCTAVE) * len(RATIOS)
    net = pyramid_detector(
        in_channels=in_channels, image_size=image_size, outputs={kind: each * n for kind, n in outputs.items()},
        widths=widths, levels=levels, num_features=num_features,
    )  # fmt: skip
    cells = [2 ** (len(widths) - place) for place in reversed(range(levels))]
    anchors = [around(image_size, cell, [cell * side * step for step in OCTAVE]) for cell in cells]
    return AnchorDetector(Maps(net, outputs), torch.cat(anchors), (1.0,) * 4)


@made_by("torchvision")
def torchvision_anchors(
    *, in_channels: int, image_size: Size, outputs: Mapping[str, int], name: str, pretrained: bool | str,
    arguments: Mapping[str, Any] | None,
) -> AnchorDetector:  # fmt: skip
    """torchvision's RetinaNet or SSD, with its anchors: without its losses, and without what it lets them see.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        outputs: How many numbers each kind of output has.
        name: One of `NAMED`.
        pretrained: For a RetinaNet: whether its backbone starts from torchvision's weights of ResNet-50 on ImageNet,
            which are downloaded once; or a file of weights of ResNet-50.
        arguments: Further ones of torchvision's builder.

    Raises:
        UsageError: there is no such detector or argument, it cannot take such images, or weights cannot be had.
        ValueError: the task has no anchors.
    """
    if name not in NAMED:
        raise unknown("torchvision detector with anchors", name, NAMED)
    check(outputs)
    if pretrained and not name.startswith("retinanet"):
        raise UsageError(f"{name} has no pretrained weights here, only RetinaNet has: set model.pretrained=false.")
    make = functools.partial(
        torchvision.models.get_model, name, weights=None, weights_backbone=None, num_classes=outputs["objects"]
    )
    net: Any = built("torchvision", name, lambda: make(**(arguments or {})))
    weights.take_channels(net.backbone, in_channels)
    notes = backbone_weights(name, net.backbone.body, pretrained, in_channels) if pretrained else []
    if name.startswith("retinanet"):
        nn.init.zeros_(net.head.classification_head.cls_logits.bias)  # the task adds the score before training
    inner = OfTorchvision(net)
    images = example(inner, in_channels, image_size)
    try:
        with torch.no_grad():
            features = inner.eval().features(images)
            anchors = net.anchor_generator(ImageList(images, [image_size]), features)[0]
            inner(images)
    except (RuntimeError, ValueError, IndexError) as error:
        height, width = image_size
        raise UsageError(
            f"{name} cannot take images of {height}x{width} pixels: set dataset.size, or choose another model "
            f"({' '.join(str(error).split())[:120]})."
        ) from error
    return AnchorDetector(inner.train(), anchors, [1 / weight for weight in net.box_coder.weights], notes)


class OfTorchvision(nn.Module):
    """Backbone and head of a detector of torchvision.

    Args:
        net: torchvision's RetinaNet or SSD.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.backbone, self.head = net.backbone, net.head

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the maps of all levels, the finest first."""
        return list(self.backbone(images).values())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (N,A,K) and shifts (N,A,4)."""
        found = self.head(self.features(images))
        return found["cls_logits"], found["bbox_regression"]


def check(outputs: Mapping[str, int]) -> None:
    """Raise ValueError unless a task asks for scores and shifts of boxes."""
    if set(outputs) != {"objects", "shifts"}:
        raise ValueError("this detector has anchors of its own: use task=anchor_detection.")
