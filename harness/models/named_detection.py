"""Detectors of libraries by name: any backbone of timm under our towers, and torchvision's FCOS and RetinaNet."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torchvision
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator

from harness.errors import UsageError, unknown
from harness.models import weights
from harness.models.detection import Detector, Pyramid, check_cells, check_groups
from harness.models.libraries import built, example, made_by
from harness.models.named import Stem, timm_model

Size = tuple[int, int]
LEVELS = 3
"""Number of levels, unless their cells are given."""
DENSE = ("fcos_resnet50_fpn", "retinanet_resnet50_fpn")
"""Detectors of torchvision that have a map of outputs for every level."""
STRIDE = 32
"""How often the ResNets of these detectors make an image smaller."""


# ---------------------------------------------------------------- timm


@made_by("timm", "torchvision")
def timm_detector(
    *,
    in_channels: int,
    image_size: Size,
    outputs: Mapping[str, int],
    name: str,
    pretrained: bool | str,
    stem: Stem,
    cells: Sequence[int] | None,
    num_features: int,
    depth: int,
    arguments: Mapping[str, Any] | None,
) -> Detector:
    """Any backbone of timm under a feature pyramid with our towers.

    A backbone with stages has a level for every size of cells. A plain ViT has one map, of which finer and coarser
    ones are made (Li et al., ViTDet, ECCV 2022, arXiv:2203.16527, section 3); unlike there, coarser ones are added to
    finer ones, as for the other backbones.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        outputs: How many numbers each kind of output has.
        name: As timm has it, such as resnet18 or vit_tiny_patch16_224.
        pretrained: As for `harness.models.named.timm_model`, as are stem and arguments.
        stem: Which first layers the backbone has.
        cells: Sides of the cells of the levels in pixels, the finest first; null: the three coarsest of the backbone;
            for a plain ViT half, once and twice its patches.
        num_features: Channels of every level, a multiple of 8.
        depth: Convolutions of a tower.
        arguments: Further ones of timm's builder.

    Raises:
        UsageError: there is no such model or argument, it cannot take such images, its weights cannot be had, or it has
            no such cells.
        ValueError: the largest cells do not divide the image, or the channels are no multiple of 8.
    """
    check_groups(num_features, "model.num_features")
    shape: dict[str, Any] = {"in_channels": in_channels, "image_size": image_size, "name": name, "stem": stem}
    found = timm_model(**shape, pretrained=pretrained, arguments=arguments)
    widths, sides = _levels(name, found.net, in_channels, image_size)
    if len(set(sides)) == 1:
        side = sides[-1]
        chosen = list(cells or [side // 2, side, 2 * side])
        body = Resampled(name, FeatureGetterNet(found.net, out_indices=1, norm=True), widths[-1], side, chosen)
        channels = [widths[-1]] * len(chosen)
    else:
        last = {side: place for place, side in enumerate(sides)}
        chosen = list(cells or sorted(last)[-LEVELS:])
        if absent := [cell for cell in chosen if cell not in last]:
            raise UsageError(f"{name} has no cells of {absent[0]} pixels: choose model.cells among {sorted(last)}.")
        body = FeatureGetterNet(found.net, out_indices=tuple(last[cell] for cell in chosen))
        channels = [widths[last[cell]] for cell in chosen]
    check_cells(name, image_size, max(chosen))
    return Detector(Pyramid(body, channels, num_features, found.notes), num_features, len(chosen), outputs, depth)


def _levels(name: str, net: nn.Module, channels: int, size: Size) -> tuple[list[int], list[int]]:
    """Return the channels of all maps of features that a model of timm has, and the sides of their cells."""
    made: Any = net
    training = net.training
    if not hasattr(net, "forward_intermediates"):
        raise UsageError(f"timm has no maps of features of {name}: choose another model.")
    with torch.no_grad():
        maps = made.eval().forward_intermediates(
            example(net, channels, size), intermediates_only=True, output_fmt="NCHW"
        )
    net.train(training)
    return [level.shape[1] for level in maps], [-(-size[0] // level.shape[2]) for level in maps]


class Resampled(nn.Module):
    """Finer and coarser maps of the one that a body makes: transposed convolutions that double it, or its maxima.

    Args:
        name: of the body, for messages.
        body: from images (N, C, H, W) to a list of one map (N, F, h, w).
        width: F.
        side: of the cells of that map, in pixels.
        cells: sides of the cells of the maps to be made, each ``side`` times or over a power of two.

    Raises:
        UsageError: they are not.
    """

    def __init__(self, name: str, body: nn.Module, width: int, side: int, cells: Sequence[int]) -> None:
        super().__init__()
        steps = [side * 2.0**power for power in range(-3, 4)]
        if strange := [cell for cell in cells if cell not in steps]:
            possible = [int(step) for step in steps if step == int(step)]
            raise UsageError(
                f"{name} has patches of {side} pixels, of which none of {strange[0]} can be made: choose model.cells "
                f"among {possible}."
            )
        self.body = body
        self.steps = nn.ModuleList(_step(width, side, cell) for cell in cells)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return maps (N, F, h, w), one for each size of cells."""
        (found,) = self.body(images)
        return [step(found) for step in self.steps]


def _step(width: int, side: int, cell: int) -> nn.Module:
    if cell >= side:
        return nn.MaxPool2d(cell // side) if cell > side else nn.Identity()
    layers: list[nn.Module] = []
    for _ in range((side // cell).bit_length() - 1):
        layers += [nn.ConvTranspose2d(width, width, 2, 2), nn.GELU()]
    return nn.Sequential(*layers)


# ---------------------------------------------------------------- torchvision


@made_by("torchvision")
def torchvision_detector(
    *,
    in_channels: int,
    image_size: Size,
    outputs: Mapping[str, int],
    name: str,
    pretrained: bool | str,
    arguments: Mapping[str, Any] | None,
) -> TorchvisionDetector:
    """torchvision's FCOS or RetinaNet: its backbone, pyramid and towers, without its losses and its rule of assignment.

    Both give one box for every cell, by the logarithms of the distances of its edges (as FCOS does in its paper, where
    torchvision's ends in a ReLU). FCOS has no centre-ness, which would be a third seat of losses, and RetinaNet no
    anchors: with one for each cell it differs from FCOS in its assignment alone (Zhang et al., ATSS, CVPR 2020,
    arXiv:1912.02424, section 3), and the task assigns.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        outputs: How many numbers each kind of output has.
        name: fcos_resnet50_fpn or retinanet_resnet50_fpn.
        pretrained: Whether the backbone starts from torchvision's weights of ResNet-50 on ImageNet, which are
            downloaded once; or a file of weights of ResNet-50.
        arguments: Further ones of torchvision's builder.

    Raises:
        UsageError: there is no such detector or argument, or weights cannot be had.
        ValueError: 32 pixels do not divide the images, or the task asks for other outputs.
    """
    if name not in DENSE:
        known = torchvision.models.list_models(module=torchvision.models.detection)
        if name in known:
            raise UsageError(
                f"{name} of torchvision has two stages or anchors of its own: choose model.name among "
                f"{', '.join(DENSE)}, task=anchor_detection for SSD, or task=two_stage_detection for Faster R-CNN."
            )
        raise unknown("torchvision detector", name, DENSE)
    if set(outputs) != {"objects", "sides"}:
        raise ValueError(f"{name} gives scores and upright boxes: choose another model for this task.")
    check_cells(name, image_size, STRIDE)
    make = functools.partial(
        torchvision.models.get_model, name, weights=None, weights_backbone=None, num_classes=outputs["objects"]
    )
    net: Any = built("torchvision", name, lambda: make(**_one_anchor(name), **(arguments or {})))
    weights.take_channels(net.backbone.body, in_channels)
    notes = backbone_weights(name, net.backbone.body, pretrained, in_channels) if pretrained else []
    return TorchvisionDetector(net, notes)


class TorchvisionDetector(nn.Module):
    """Backbone, pyramid and towers of a dense detector of torchvision.

    Args:
        net: torchvision's FCOS or RetinaNet with one anchor for each cell.
        notes: what a reader of its results should know, a sentence each.
    """

    dense = True

    def __init__(self, net: Any, notes: Sequence[str] = ()) -> None:
        super().__init__()
        classes, sides = net.head.classification_head, net.head.regression_head
        nn.init.zeros_(classes.cls_logits.bias)  # the task adds the score that classes have before training
        self.body = net.backbone
        self.body.notes = tuple(notes)
        self.towers = nn.ModuleDict(
            {
                "objects": nn.Sequential(classes.conv, classes.cls_logits),
                "sides": nn.Sequential(sides.conv, sides.bbox_reg),
            }
        )

    def forward(self, images: Tensor) -> dict[str, tuple[Tensor, ...]]:
        """Return the maps (N, K, h, w) of every level, by kind of output."""
        levels = tuple(self.body(images).values())
        return {kind: tuple(map(tower, levels)) for kind, tower in self.towers.items()}


def _one_anchor(name: str) -> dict[str, Any]:
    """Return the arguments by which a RetinaNet has one anchor for each cell; FCOS has no other."""
    if not name.startswith("retinanet"):
        return {}
    return {"anchor_generator": AnchorGenerator(tuple((4 * 2**level,) for level in range(3, 8)), ((1.0,),) * 5)}


def backbone_weights(name: str, body: nn.Module, pretrained: bool | str, channels: int) -> list[str]:
    """Load weights of ResNet-50 from torchvision or a file into a backbone; return what was left out, as notes."""
    entry = torchvision.models.ResNet50_Weights.DEFAULT
    if isinstance(pretrained, str):
        found, source = weights.read(pretrained), pretrained
    else:
        found, source = weights.fetched(name, lambda: weights.torchvision_weights(entry)), str(entry)
    return weights.fill(name, body, weights.adapted(found, "conv1", channels), source)
