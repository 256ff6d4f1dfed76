"""Segmentation models of segmentation-models-pytorch and torchvision by name, without their heads."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from typing import Any

import timm
import torchvision
from torch import Tensor, nn
from torchvision.models.segmentation import LRASPP

from harness.errors import UsageError, unknown
from harness.models import weights
from harness.models.libraries import Named, built, features_of, made_by
from harness.models.segmentation import SmpMap

Size = tuple[int, int]
LRASPP_FEATURES = 128
"""LR-ASPP adds up class scores of two scales; here these are features, of which a linear head makes scores."""


@made_by("segmentation-models-pytorch", "timm", "torchvision")
def smp_model(
    *,
    in_channels: int,
    image_size: Size,
    arch: str,
    encoder: str,
    pretrained: bool | str,
    arguments: Mapping[str, Any] | None,
) -> Named:
    """Any architecture of segmentation-models-pytorch with any of its encoders.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        arch: Name of the architecture there: unet, unetplusplus, manet, linknet, fpn, pspnet, deeplabv3, deeplabv3plus,
            pan, upernet, segformer, dpt.
        encoder: Name of the encoder there: resnet34, mit_b0, vgg11_bn; or tu- and the name of a model of timm.
        pretrained: Whether the encoder starts from its weights on ImageNet, which are downloaded once; or a file of
            weights of the whole model, as smp saves them.
        arguments: Further ones of the architecture, such as decoder_channels.

    Raises:
        UsageError: there is no such architecture, encoder or argument, it cannot take such images, or its weights
            cannot be had.
    """
    import segmentation_models_pytorch as smp  # takes seconds, and most models here do without
    from segmentation_models_pytorch.encoders import get_encoder_names

    if arch not in smp.MODEL_ARCHITECTURES_MAPPING:
        raise unknown("smp architecture", arch, smp.MODEL_ARCHITECTURES_MAPPING)
    if encoder not in (names := get_encoder_names()) and not encoder.startswith("tu-"):
        raise unknown("smp encoder", encoder, names)
    make = functools.partial(
        smp.create_model,
        arch,
        encoder,
        in_channels=in_channels,
        classes=1,
        **_sized(arch, encoder),
        **(arguments or {}),
    )
    name = f"{arch} with {encoder}"
    if pretrained is True:
        weights.fetched(encoder, lambda: weights.reachable(_repository(encoder)))
        net = weights.fetched(encoder, lambda: make(encoder_weights="imagenet"))
    else:
        net = built("segmentation-models-pytorch", name, lambda: make(encoder_weights=None))
    body = SmpMap(net)
    notes = []
    if isinstance(pretrained, str):
        notes = weights.fill(name, body, weights.read(pretrained), pretrained)
    _check_stride(name, image_size, int(getattr(net.encoder, "output_stride", 32)))
    return Named(name, body, features_of(name, body, in_channels, image_size), notes, dense=True)


def _repository(encoder: str) -> str | None:
    """Return where on the Hugging Face hub the ImageNet weights of an encoder lie, None if that is not known."""
    from segmentation_models_pytorch.encoders import encoders

    if encoder.startswith("tu-"):
        known = timm.is_model(encoder.removeprefix("tu-"))
        config = timm.get_pretrained_cfg(encoder.removeprefix("tu-")) if known else None
        return config.hf_hub_id if config else None
    return encoders[encoder].get("pretrained_settings", {}).get("imagenet", {}).get("repo_id")


def _sized(arch: str, encoder: str) -> dict[str, Any]:
    """Return what lets a DPT take images of any size: its encoders are ViTs."""
    return {"dynamic_img_size": True} if arch == "dpt" and encoder.startswith("tu-vit") else {}


def _check_stride(name: str, size: Size, stride: int) -> None:
    """Raise a UsageError unless images can be halved as often as an encoder does."""
    if any(side % stride for side in size):
        raise UsageError(
            f"{name} halves its input until it is {stride} times smaller, which does not divide images of "
            f"{size[0]}x{size[1]} pixels: choose dataset.size in multiples of {stride}."
        )


@made_by("torchvision")
def torchvision_map(
    *,
    in_channels: int,
    image_size: Size,
    name: str,
    pretrained: bool | str,
    arguments: Mapping[str, Any] | None,
) -> Named:
    """Any segmentation model of torchvision by its name there, without its auxiliary classifier.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        name: Such as fcn_resnet50, deeplabv3_mobilenet_v3_large, lraspp_mobilenet_v3_large.
        pretrained: Whether it starts from torchvision's weights, which are downloaded once; or a file of weights.
        arguments: Further ones of torchvision's builder.

    Raises:
        UsageError: there is no such model or argument, it cannot take such images, or its weights cannot be had.
    """
    models = torchvision.models
    names = models.list_models(module=models.segmentation)
    if name not in names:
        raise unknown("torchvision segmentation model", name, names)
    make = functools.partial(models.get_model, name, weights=None, weights_backbone=None, **(arguments or {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net: Any = built("torchvision", name, lambda: make(num_classes=LRASPP_FEATURES))
    heads = ["aux_classifier."]
    if isinstance(net, LRASPP):
        heads += ["classifier.low_classifier.", "classifier.high_classifier."]
    else:
        last = len(net.classifier) - 1
        net.classifier[last] = nn.Identity()
        heads += [f"classifier.{last}."]
    whole: Any = net  # as a type checker sees it, a module has none but modules and tensors
    whole.aux_classifier = None
    weights.take_channels(net, in_channels)
    notes = []
    if pretrained:
        notes = _filled(name, net, pretrained, tuple(heads), in_channels)
    body = _Out(net)
    return Named(name, body, features_of(name, body, in_channels, image_size), notes, dense=True)


def _filled(name: str, net: nn.Module, pretrained: bool | str, heads: tuple[str, ...], channels: int) -> list[str]:
    """Load weights of torchvision or from a file into a model; its heads keep their new ones."""
    entry: Any = torchvision.models.get_model_weights(name).DEFAULT  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(pretrained, str):
        found, source = weights.read(pretrained), pretrained
    else:
        found, source = weights.fetched(name, lambda: weights.torchvision_weights(entry)), str(entry)
    own = {key: value for key, value in net.state_dict().items() if key.startswith(heads)}
    kept = {key: value for key, value in found.items() if not key.startswith(heads)}
    notes = weights.fill(name, net, weights.adapted(kept, weights.first_convolution(net)[0], channels) | own, source)
    left = sorted({key.rpartition(".")[0] for key in found if key.startswith(heads)})
    return [*notes, *([f"of {source}, {left[0]} was left out: the head is new"] if left else [])]


class _Out(nn.Module):
    """The map of features of a segmentation model of torchvision, which returns it in a dictionary."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.backbone, self.scales = net.get_submodule("backbone"), isinstance(net, LRASPP)
        self.classifier = net.get_submodule("classifier")

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to features (N, F, h, w)."""
        found = self.backbone(images)
        return self.classifier(found if self.scales else found["out"])
