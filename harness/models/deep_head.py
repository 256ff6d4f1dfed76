"""The networks of Next Generation Loss: a classifier of timm whose map of features goes through nine layers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.models.libraries import example, made_by
from harness.models.named import Named, timm_model

Size = tuple[int, int]


class DeepHead(nn.Module):
    """All features of a map, in hidden layers before the linear one that every model gets.

    They are normalised over the batch before each layer; ReLU and dropout follow it.

    Args:
        body: from images (N,C,H,W) to maps (N,F,h,w).
        features: F h w, of images as they come to the body.
        hidden: widths of the hidden layers.
        dropout: share of a hidden layer's outputs that is left out in training.
        enlarge: how many times as high and wide images become first; pixels are repeated.

    Source:
        Akhmedova and Körber, arXiv:2404.12948: Flatten, three of BatchNorm, three of Dense, two of Dropout; widths 128
        and 64, dropout 0.5 and pictures of CIFAR-100 enlarged eightfold in its public example. That names no function
        between the layers; ReLU is ours.
    """

    def __init__(self, body: Named, features: int, hidden: Sequence[int], dropout: float, enlarge: int) -> None:
        super().__init__()
        self.body, self.enlarge, self.notes, self.num_features = body, enlarge, body.notes, hidden[-1]
        layers: list[nn.Module] = []
        for before, width in itertools.pairwise([features, *hidden]):
            layers += [nn.BatchNorm1d(before), nn.Linear(before, width), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.BatchNorm1d(hidden[-1]))

    def forward(self, images: Tensor) -> Tensor:
        """Return features (N,F) of images (N,C,H,W)."""
        if self.enlarge > 1:
            images = functional.interpolate(images, scale_factor=self.enlarge, mode="nearest")
        return self.layers(self.body(images).flatten(1))


@made_by("timm")
def timm_with_deep_head(
    *, in_channels: int, image_size: Size, name: str, pretrained: bool | str, enlarge: int, hidden: Sequence[int],
    dropout: float,
) -> DeepHead:  # fmt: skip
    """Any classifier of timm with a map of features under the head of Next Generation Loss.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        name: Such as inception_v3 or resnet50.
        pretrained: As for `harness.models.named.timm_model`.
        enlarge: How many times as high and wide images become first.
        hidden: Widths of the hidden layers.
        dropout: Share of a hidden layer's outputs that is left out in training.

    Raises:
        UsageError: There is no such model, it has no map of features or cannot take such images, or its weights cannot
            be had.
        ValueError: There is no hidden layer, or a number is out of its range.
    """
    if enlarge < 1 or not hidden or not 0 <= dropout < 1:
        raise ValueError(
            f"model.enlarge is {enlarge}, model.hidden {list(hidden)} and model.dropout {dropout}; use a whole number "
            "from 1 on, at least one width, and a share from 0 to below 1."
        )
    size = (enlarge * image_size[0], enlarge * image_size[1])
    body = timm_model(
        in_channels=in_channels, image_size=size, name=name, pretrained=pretrained, stem="original",
        arguments={"global_pool": ""},
    )  # fmt: skip
    with torch.no_grad():
        found = body.eval()(example(body, in_channels, size))
    body.train()
    return DeepHead(body, found.numel(), hidden, dropout, enlarge)
