"""Detectors of two stages: the first proposes regions, the second says what is in them, and where exactly."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign, nms

from harness.errors import unknown
from harness.models.anchors import RATIOS, around, of_anchors
from harness.models.detection import check_cells, cnn_detector
from harness.models.libraries import built, made_by
from harness.models.named_detection import STRIDE, backbone_weights
from harness.models.shifts import moved
from harness.models.weights import take_channels

Size = tuple[int, int]
ALIKE = 0.7
"""Overlap from which on the less certain of two proposals is dropped."""
BEFORE = 4
"""Times as many anchors as there are to be proposals stay before that."""
SCALES = (0.1, 0.1, 0.2, 0.2)
"""What the second stage's shifts are multiplied by, as in the authors' code: they are smaller than the first's."""
POOLED = (4, 1)
"""Bins, and points of each, along a side of a region of few cells. With torchvision's 7 and 2, most of a step on a CPU
is their gradient."""
NAMED = ("fasterrcnn_resnet50_fpn",)


class TwoStage(nn.Module):
    """A Faster R-CNN of torchvision's parts, without its losses and its choice of what these see.

    Unlike there, the true boxes are never among the proposals, the proposals are as many in training as in a test, and
    a box is found for the region, not one for each class.

    Args:
        body: from images (N,C,H,W) to maps of features (N,F,h,w), the finest first.
        num_features: F.
        image_size: height and width of the images.
        cells: sides of the cells of the maps, in pixels.
        anchors: side of the anchors of every map, in pixels.
        pool: side of the map that a region becomes, and points along each side of one of its bins.
        hidden: width of the second stage.
        classes: how many numbers each region has.
        proposals: how many regions the second stage looks at.
        notes: what a reader of its results should know, a sentence each.

    Source:
        Ren et al., Faster R-CNN, NeurIPS 2015, arXiv:1506.01497, with the pyramid of Lin et al., CVPR 2017.
    """

    dense = True
    anchors: Tensor
    scales: Tensor
    extent: Tensor

    def __init__(
        self, body: nn.Module, num_features: int, image_size: Size, cells: Sequence[int], anchors: Sequence[float],
        pool: tuple[int, int], hidden: int, classes: int, proposals: int, notes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.body, self.proposals, self.image_size, self.notes = body, proposals, image_size, tuple(notes)
        self.first = RPNHead(num_features, len(RATIOS))
        self.pool = MultiScaleRoIAlign([str(place) for place in range(len(cells))], *pool)
        self.second = TwoMLPHead(num_features * pool[0] ** 2, hidden)
        self.objects, self.shifts = nn.Linear(hidden, classes), nn.Linear(hidden, 4)
        nn.init.normal_(self.shifts.weight, std=0.001)
        nn.init.zeros_(self.shifts.bias)
        found = [around(image_size, cell, [side]) for cell, side in zip(cells, anchors, strict=True)]
        self.register_buffer("anchors", torch.cat(found), persistent=False)
        self.register_buffer("scales", torch.tensor(SCALES), persistent=False)
        self.register_buffer("extent", torch.tensor(image_size[::-1] * 2, dtype=torch.float32), persistent=False)

    def forward(self, images: Tensor) -> dict[str, tuple[Tensor, ...]]:
        """Return of the first stage ``anchors`` (N,A,4), corners in pixels, with ``proposed`` (N,A,1), scores, and
        ``first_shifts`` (N,A,4); of the second ``regions`` (N,P,4) with ``objects`` (N,P,C) and ``shifts`` (N,P,4).
        """
        found = self.body(images)
        levels = [found] if isinstance(found, Tensor) else list(found)
        scores, shifts = (
            torch.cat([of_anchors(level, numbers).float() for level in maps], 1)
            for maps, numbers in zip(self.first(levels), (1, 4), strict=True)
        )
        anchors = self.anchors.expand(len(images), -1, -1)
        regions = self._proposals(scores.detach().squeeze(2), moved(anchors, shifts.detach()))
        named = {str(place): level.float() for place, level in enumerate(levels)}
        with torch.autocast(images.device.type, enabled=False):  # there is no bf16 kernel of it for CPUs
            pooled = self.pool(named, list(regions.unbind()), [self.image_size] * len(images))
        features = self.second(pooled)
        return {
            "anchors": (anchors,),
            "proposed": (scores,),
            "first_shifts": (shifts,),
            "regions": (regions,),
            "objects": (self.objects(features).float().unflatten(0, (len(images), -1)),),
            "shifts": (self.shifts(features).float().unflatten(0, (len(images), -1)) * self.scales,),
        }

    def _proposals(self, scores: Tensor, boxes: Tensor) -> Tensor:
        """Return the likeliest boxes that are not alike (N,P,4); where they are too few, the likeliest of the rest."""
        scores, place = scores.topk(min(BEFORE * self.proposals, scores.shape[1]))
        boxes = boxes.gather(1, place.unsqueeze(2).expand(-1, -1, 4))
        boxes = torch.minimum(boxes.clamp_min(0), self.extent)
        apart = torch.arange(len(boxes), device=boxes.device) * 2.0 * max(self.image_size)  # images do not overlap
        left = nms((boxes + apart.view(-1, 1, 1)).flatten(0, 1), scores.flatten(), ALIKE)
        dropped = torch.ones_like(scores, dtype=torch.uint8).flatten().index_fill(0, left, 0)
        order = dropped.view_as(scores).argsort(dim=1, stable=True)[:, : self.proposals]
        return boxes.gather(1, order.unsqueeze(2).expand(-1, -1, 4))


def cnn_two_stage(
    *, in_channels: int, image_size: Size, outputs: Mapping[str, int], widths: Sequence[int], depth: int, side: float,
    hidden: int, proposals: int,
) -> TwoStage:  # fmt: skip
    """A small Faster R-CNN: convolutions that halve the image once per width, one level of anchors, two linear layers.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        outputs: How many numbers each kind of output has.
        widths: Channels after each halving; three make cells of 8x8 pixels.
        depth: Number of further convolutions.
        side: Of the anchors, in pixels; of each area three, twice as wide as high, square, and twice as high as wide.
        hidden: Width of the second stage.
        proposals: How many regions the second stage looks at.

    Raises:
        ValueError: The cells do not divide the image, the anchors have no side, or the task is none of two stages.
    """
    _check(outputs)
    if side <= 0:
        raise ValueError(f"model.side is {side}; it must be above 0.")
    check_cells(f"a detector of widths {list(widths)}", image_size, 2 ** len(widths))
    body = cnn_detector(in_channels=in_channels, image_size=image_size, outputs={}, widths=widths, depth=depth).body
    return TwoStage(
        body, widths[-1], image_size, [2 ** len(widths)], [side], POOLED, hidden, outputs["objects"], proposals
    )


@made_by("torchvision")
def torchvision_two_stage(
    *, in_channels: int, image_size: Size, outputs: Mapping[str, int], name: str, pretrained: bool | str,
    proposals: int, arguments: Mapping[str, Any] | None,
) -> TwoStage:  # fmt: skip
    """torchvision's Faster R-CNN: its backbone, pyramid and heads, without its losses and what it lets them see.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        outputs: How many numbers each kind of output has.
        name: fasterrcnn_resnet50_fpn.
        pretrained: Whether the backbone starts from torchvision's weights of ResNet-50 on ImageNet, which are
            downloaded once; or a file of weights of ResNet-50.
        proposals: How many regions the second stage looks at.
        arguments: Further ones of torchvision's builder.

    Raises:
        UsageError: there is no such detector or argument, or weights cannot be had.
        ValueError: 32 pixels do not divide the images, or the task is none of two stages.
    """
    if name not in NAMED:
        raise unknown("torchvision detector of two stages", name, NAMED)
    _check(outputs)
    check_cells(name, image_size, STRIDE)
    make = functools.partial(torchvision.models.get_model, name, weights=None, weights_backbone=None)
    net: Any = built("torchvision", name, lambda: make(**(arguments or {})))
    take_channels(net.backbone.body, in_channels)
    notes = backbone_weights(name, net.backbone.body, pretrained, in_channels) if pretrained else []
    body = Levels(net.backbone)
    with torch.no_grad():
        sizes = [level.shape[2] for level in body.eval()(torch.zeros(1, in_channels, *image_size))]
    cells = [-(-image_size[0] // size) for size in sizes]
    hidden = net.roi_heads.box_head.fc7.out_features
    return TwoStage(
        body.train(), net.backbone.out_channels, image_size, cells, [8.0 * cell for cell in cells], (7, 2),
        hidden, outputs["objects"], proposals, notes,
    )  # fmt: skip


class Levels(nn.Module):
    """The maps of a backbone of torchvision without their names."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return maps (N,F,h,w) of images (N,C,H,W), the finest first."""
        return list(self.net(images).values())


def _check(outputs: Mapping[str, int]) -> None:
    if set(outputs) != {"objects", "shifts"}:
        raise ValueError("a detector of two stages has regions of its own: use task=two_stage_detection.")
