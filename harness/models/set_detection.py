"""A small DETR: a transformer whose queries answer with a set of boxes, each object once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from harness.models.detection import check_cells

TEMPERATURE = 100.0
"""Of the waves that tell positions: the longest is so many times as long as the shortest."""
START = 0.2
"""Side of the boxes of all queries before training, over that of the image."""


class Detr(nn.Module):
    """Convolutions, and on their features a transformer that turns queries into scores and boxes.

    A query is a learnt vector and a learnt point of the image, near which it looks first (as in DAB-DETR, Liu et al.,
    ICLR 2022, arXiv:2201.12329): without that a DETR needs hundreds of epochs. The points start as a grid.

    Args:
        in_channels: channels of the images.
        widths: channels after each halving of the image.
        dim: width of a token.
        heads: of attention.
        encoder: layers in which features attend to each other.
        decoder: layers in which queries attend to each other and to the features.
        queries: their number, a square number.
        outputs: how many numbers each kind of output has.

    Source:
        Carion et al., End-to-End Object Detection with Transformers (DETR), ECCV 2020, arXiv:2005.12872.
    """

    dense = True

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        dim: int,
        heads: int,
        encoder: int,
        decoder: int,
        queries: int,
        outputs: Mapping[str, int],
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Conv2d(in_channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            in_channels = width
        self.body = nn.Sequential(*layers, nn.Conv2d(in_channels, dim, 1))
        settings = {"dim_feedforward": 2 * dim, "dropout": 0.0, "batch_first": True, "norm_first": True}
        self.encoder = nn.ModuleList(nn.TransformerEncoderLayer(dim, heads, **settings) for _ in range(encoder))
        self.decoder = nn.ModuleList(nn.TransformerDecoderLayer(dim, heads, **settings) for _ in range(decoder))
        self.norm = nn.LayerNorm(dim)
        self.queries = nn.Parameter(0.02 * torch.randn(queries, dim))
        side = math.isqrt(queries)
        line = (torch.arange(side) + 0.5) / side
        self.points = nn.Parameter(torch.cartesian_prod(line, line).logit())
        self.scores = nn.Linear(dim, outputs["objects"])
        self.places = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, outputs["places"]))
        self.start = math.log(START / (1 - START))

    def forward(self, images: Tensor) -> dict[str, tuple[Tensor, ...]]:
        """Return for each query ``objects``, scores (N, C, L, Q), and ``places``, (N, 4, L, Q): logits of centre x and
        y, width and height over those of the image. L is the number of decoder layers in training, else 1: the last.
        """
        features = self.body(images)
        height, width = features.shape[2:]
        down, across = ((torch.arange(n, device=images.device) + 0.5) / n for n in (height, width))
        where = torch.stack([across.repeat(height), down.repeat_interleave(width)], 1)
        dim = features.shape[1]
        memory = features.flatten(2).transpose(1, 2)
        memory = memory + waves(where, dim)
        for layer in self.encoder:
            memory = layer(memory)
        token = (self.queries + waves(self.points.sigmoid(), dim)).expand(len(images), -1, -1)
        found = []
        for layer in self.decoder:
            token = layer(token, memory)
            found.append(self.norm(token))
        layers = torch.stack(found if self.training else found[-1:], 1)  # (N, L, Q, dim)
        first = torch.cat([self.points, torch.full_like(self.points, self.start)], 1)
        return {
            "objects": (self.scores(layers).permute(0, 3, 1, 2),),
            "places": ((self.places(layers) + first).permute(0, 3, 1, 2),),
        }


def waves(points: Tensor, dim: int) -> Tensor:
    """Return sines and cosines, (P, dim), that tell points (P, 2) of [0, 1] apart; dim is a multiple of 4."""
    lengths = TEMPERATURE ** (torch.arange(dim // 4, device=points.device) / (dim // 4))
    angles = 2 * math.pi * points.unsqueeze(2) * (10 / lengths)
    return torch.cat([angles.sin(), angles.cos()], 2).flatten(1)


def detr(
    *,
    in_channels: int,
    image_size: Sequence[int],
    outputs: Mapping[str, int],
    widths: Sequence[int],
    dim: int,
    heads: int,
    encoder: int,
    decoder: int,
    queries: int,
) -> Detr:
    """A DETR for small images; arguments are those of `Detr`.

    Raises:
        ValueError: the task is not about sets, the cells do not divide the image, or a setting does not suit others.
    """
    if "places" not in outputs:
        raise ValueError("a DETR answers with a set of boxes: use task=set_detection.")
    check_cells("this DETR", image_size, 2 ** len(widths))
    if dim % 4 or dim % heads:
        raise ValueError(f"model.dim is {dim}; it must be a multiple of 4 and of model.heads={heads}.")
    if math.isqrt(queries) ** 2 != queries:
        raise ValueError(f"model.queries is {queries}; it must be a square number, such as 25 or 100.")
    return Detr(in_channels, widths, dim, heads, encoder, decoder, queries, outputs)
