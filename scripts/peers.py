"""The same losses by other libraries: what `scripts.bench_losses` measures ours against, and the tests compare with.

Every peer is the library's own loss at the setting that its documentation recommends for this use, which computes what
ours computes, up to a factor. Libraries that are not installed are left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from losses.structural import SCALES

Function = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Peer:
    """Another implementation of one of our losses.

    Attributes:
        loss: our name.
        library: what is imported.
        make: given the library and our loss (whose weights it may copy), returns data, target -> scalar.
        settings: ours, where they are not the defaults, under which both compute the same.
        factor: the peer's value is ours times this, given the shape (N,C,...) of the data.
        dense: True for losses of (N,C,H,W) only, False for those of (N,C) only, None for both.
    """

    loss: str
    library: str
    make: Callable[[Any, Any], Function]
    settings: dict[str, Any] = field(default_factory=dict)
    factor: Callable[[torch.Size], float] = lambda shape: 1.0
    dense: bool | None = None

    @property
    def installed(self) -> bool:
        """True if the library can be imported."""
        return importlib.util.find_spec(self.library.partition(".")[0]) is not None

    def build(self, ours: Any) -> Function:
        """Return data, target -> scalar."""
        return self.make(importlib.import_module(self.library), ours)


def _of(name: str, *given: Any, **settings: Any) -> Callable[[Any, Any], Function]:
    """Return a maker for a function of the library."""

    def make(library: Any, ours: Any) -> Function:
        function = getattr(library, name)
        return lambda data, target: function(data, target, *given, **settings)

    return make


def _module(name: str, **settings: Any) -> Callable[[Any, Any], Function]:
    """Return a maker for a module of the library."""
    return lambda library, ours: getattr(library, name)(**settings)


def _channel(name: str, **settings: Any) -> Callable[[Any, Any], Function]:
    """Return a maker for a module that wants the classes as (N,1,H,W)."""

    def make(library: Any, ours: Any) -> Function:
        module = getattr(library, name)(**settings)
        return lambda data, target: module(data, target.unsqueeze(1))

    return make


def _head(name: str, **settings: Any) -> Callable[[Any, Any], Function]:
    """Return a maker for a head of pytorch-metric-learning, with the weights of ours."""

    def make(library: Any, ours: Any) -> Function:
        weight = ours.function.weight.detach()  # (C,F), or (C,K,F)
        sizes = {"num_classes": len(weight), "embedding_size": weight.shape[-1]}
        head = getattr(library, name)(**sizes, **settings).to(weight)
        head.W.data.copy_(weight.flatten(0, -2).T)
        return head

    return make


def _hardest(library: Any, ours: Any) -> Function:
    distance = importlib.import_module("pytorch_metric_learning.distances").LpDistance(normalize_embeddings=False)
    miner = importlib.import_module("pytorch_metric_learning.miners").BatchHardMiner(distance=distance)
    triplet = library.TripletMarginLoss(margin=0, smooth_loss=True, distance=distance, reducer=_mean_of_anchors())
    return lambda data, target: triplet(data, target, miner(data, target))


def _proxies(library: Any, ours: Any) -> Function:
    proxies = ours.function.proxies.detach()
    peer = library.ProxyAnchorLoss(*proxies.shape, margin=0.1, alpha=32).to(proxies)
    peer.proxies.data.copy_(proxies)
    return peer


def _mean_of_anchors() -> Any:
    return importlib.import_module("pytorch_metric_learning.reducers").MeanReducer()


def _kl(library: Any, ours: Any) -> Function:
    return lambda data, target: functional.kl_div(data.log_softmax(1), target, reduction="batchmean")


def _gaussian(library: Any, ours: Any) -> Function:
    return lambda data, target: functional.gaussian_nll_loss(data[:, 0], target, data[:, 1].exp())


def _margins(library: Any, ours: Any) -> Function:
    return lambda data, target: functional.margin_ranking_loss(data[:, 0], data[:, 1], 2 * target - 1, margin=0.5)


def _log_cosh(library: Any, ours: Any) -> Function:
    return lambda data, target: library.log_cosh_error(data.flatten(), target.flatten())


def _asymmetric_classes(library: Any, ours: Any) -> Function:
    peer = library.AsymmetricLossMultiLabel(gamma_neg=4, gamma_pos=0, clip=0.05)
    return lambda data, target: peer(data, functional.one_hot(target, data.shape[1]).to(data))


def _lovasz_hinge(library: Any, ours: Any) -> Function:
    peer = library.LovaszLoss(mode="binary", per_image=True)
    return lambda data, target: peer(data.float(), target.float())  # its weights are float32, whatever it is given


def _supervised(library: Any, ours: Any) -> Function:
    return library.SupConLoss(temperature=0.1, reducer=_mean_of_anchors())


def _multi_similarity(library: Any, ours: Any) -> Function:
    miner = importlib.import_module("pytorch_metric_learning.miners").MultiSimilarityMiner(epsilon=0.1)
    peer = library.MultiSimilarityLoss(alpha=2, beta=50, base=1.0)
    return lambda data, target: peer(data, target, miner(data, target))


METRIC = "pytorch_metric_learning.losses"
SMP = "segmentation_models_pytorch.losses"
DEGREES = 180 / math.pi
NO_SMOOTHING: dict[str, Any] = {"smooth_nr": 0.0, "smooth_dr": 0.0}

PEERS = (
    Peer("mse", "torch.nn", _module("MSELoss")),
    Peer("mae", "torch.nn", _module("L1Loss")),
    Peer("huber", "torch.nn", _module("HuberLoss")),
    Peer("smooth_l1", "torch.nn", _module("SmoothL1Loss")),
    Peer("gaussian_nll", "torch", _gaussian),
    Peer("log_cosh", "torchmetrics.functional", _log_cosh),
    Peer("cross_entropy", "torch.nn", _module("CrossEntropyLoss")),
    Peer("binary_cross_entropy", "torch.nn", _module("BCEWithLogitsLoss")),
    Peer("label_smoothing", "torch.nn", _module("CrossEntropyLoss", label_smoothing=0.1)),
    Peer("label_smoothing", "timm.loss", _module("LabelSmoothingCrossEntropy", smoothing=0.1), dense=False),
    Peer("kl_divergence", "torch", _kl),
    Peer("poly1", "timm.loss", _module("PolyCrossEntropy", epsilon=1.0), dense=False),
    Peer(
        "focal",
        "kornia.losses",
        _of("focal_loss", alpha=None, gamma=2.0, reduction="mean"),
        dense=True,
        factor=lambda shape: 1 / shape[1],
    ),
    Peer(
        "focal",
        "monai.losses",
        _channel("FocalLoss", to_onehot_y=True, use_softmax=True, gamma=2.0),
        dense=True,
        factor=lambda shape: 1 / shape[1],
    ),
    Peer("binary_focal", "torchvision.ops", _of("sigmoid_focal_loss", alpha=0.25, gamma=2.0, reduction="mean")),
    Peer("binary_focal", "monai.losses", _module("FocalLoss", alpha=0.25, gamma=2.0), dense=True),
    Peer("hinge_ww", "torch.nn", _module("MultiMarginLoss"), dense=False),
    Peer(
        "dice",
        "monai.losses",
        _channel("DiceLoss", softmax=True, to_onehot_y=True, smooth_nr=1e-5, smooth_dr=1e-5),
        dense=True,
    ),
    Peer("dice", SMP, _module("DiceLoss", mode="multiclass", smooth=1e-5), settings={"over_batch": True}, dense=True),
    Peer("dice", "kornia.losses", _of("dice_loss", average="macro", eps=0.0), settings={"smooth": 0.0}, dense=True),
    Peer(
        "jaccard",
        "monai.losses",
        _channel("DiceLoss", softmax=True, to_onehot_y=True, jaccard=True, smooth_nr=1e-5, smooth_dr=1e-5),
        dense=True,
    ),
    Peer(
        "jaccard",
        SMP,
        _module("JaccardLoss", mode="multiclass", smooth=1e-5),
        settings={"over_batch": True},
        dense=True,
    ),
    Peer(
        "tversky",
        "monai.losses",
        _channel("TverskyLoss", softmax=True, to_onehot_y=True, alpha=0.3, beta=0.7, smooth_nr=1e-5, smooth_dr=1e-5),
        dense=True,
    ),
    Peer(
        "tversky",
        SMP,
        _module("TverskyLoss", mode="multiclass", alpha=0.3, beta=0.7, smooth=1e-5),
        settings={"over_batch": True},
        dense=True,
    ),
    Peer(
        "generalized_dice",
        "monai.losses",
        _channel("GeneralizedDiceLoss", softmax=True, to_onehot_y=True, smooth_nr=1e-5, smooth_dr=1e-5),
        dense=True,
    ),
    Peer(
        "cross_entropy_dice",
        "monai.losses",
        _channel("DiceCELoss", softmax=True, to_onehot_y=True, smooth_nr=1e-5, smooth_dr=1e-5),
        dense=True,
    ),
    Peer("giou", "torchvision.ops", _of("generalized_box_iou_loss", reduction="mean")),
    Peer("diou", "torchvision.ops", _of("distance_box_iou_loss", reduction="mean")),
    Peer("ciou", "torchvision.ops", _of("complete_box_iou_loss", reduction="mean")),
    Peer("giou", "monai.losses", _module("BoxGIoULoss")),
    Peer("normface", METRIC, _head("NormalizedSoftmaxLoss", temperature=1 / 30)),
    Peer("cosface", METRIC, _head("CosFaceLoss", margin=0.35, scale=64)),
    Peer("arcface", METRIC, _head("ArcFaceLoss", margin=0.5 * DEGREES, scale=64)),
    Peer("subcenter_arcface", METRIC, _head("SubCenterArcFaceLoss", margin=0.5 * DEGREES, scale=64, sub_centers=3)),
    Peer("a_softmax", METRIC, _head("SphereFaceLoss", margin=4, scale=1), {"start": 0.0, "least": 0.0}),
    Peer("l_softmax", METRIC, _head("LargeMarginSoftmaxLoss", margin=4, scale=1), {"start": 0.0, "least": 0.0}),
    Peer("triplet", METRIC, _hardest),
    Peer("proxy_anchor", METRIC, _proxies),
    Peer("margin_ranking", "torch", _margins),
    Peer("ssim", "piq", _module("SSIMLoss", downsample=False)),
    Peer("ssim", "kornia.losses", _of("ssim_loss", 11, padding="valid"), factor=lambda shape: 0.5),
    # it scales the weights, which sum to 1.0001, to 1
    Peer("ms_ssim", "piq", _module("MultiScaleSSIMLoss"), settings={"weights": [w / 1.0001 for w in SCALES]}),
    Peer("soft_target_cross_entropy", "torch.nn", _module("CrossEntropyLoss")),
    Peer("soft_target_cross_entropy", "timm.loss", _module("SoftTargetCrossEntropy"), dense=False),
    Peer(
        "asymmetric",
        "timm.loss",
        _module("AsymmetricLossMultiLabel", gamma_neg=4, gamma_pos=0, clip=0.05, reduction="mean"),
    ),
    Peer("asymmetric_ovr", "timm.loss", _asymmetric_classes, dense=False),
    Peer(
        "lovasz_softmax",
        "kornia.losses",
        _of("lovasz_softmax_loss"),
        settings={"over_batch": False, "classes": "all"},
        dense=True,
    ),
    Peer("lovasz_hinge", SMP, _lovasz_hinge, dense=True),
    Peer("supervised_contrastive", METRIC, _supervised),
    Peer("multi_similarity", METRIC, _multi_similarity),
    Peer("gan_discriminator", "torch.nn", _module("BCEWithLogitsLoss")),
)


def peers(loss: str) -> list[Peer]:
    """Return the peers of a loss whose libraries are installed."""
    return [peer for peer in PEERS if peer.loss == loss and peer.installed]
