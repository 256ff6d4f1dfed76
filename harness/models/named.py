"""Classifiers of timm and torchvision by name, without their classifier: bodies for `harness.models.heads`.

Images of any size and number of channels are given to a model as they are. What is known to suit small images is done
(`model.stem=auto`): a stem of stride 1 for a ResNet or DenseNet, patches and windows for a ViT or Swin. What is not is
said, in the record and on the terminal (`Named.notes`).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import timm
import torch
import torchvision
from timm.models import PretrainedCfg, get_pretrained_cfg, model_entrypoint
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from harness.errors import UsageError, unknown
from harness.models import weights
from harness.models.libraries import (
    SMALL,
    Named,
    built,
    crowded,
    example,
    features_of,
    made_by,
    patch_for,
    small_stem,
    smallest_size,
)

Size = tuple[int, int]
Stem = Literal["auto", "small", "original"]
WINDOW = 7
"""Side of a window of Swin, in patches, at most."""
STEM_NOTE = "the stem is that for small images: stride 1 and no max-pooling (model.stem=original keeps the library's)"


# ---------------------------------------------------------------- timm


@made_by("timm")
def timm_model(
    *,
    in_channels: int,
    image_size: Size,
    name: str,
    pretrained: bool | str,
    stem: Stem,
    arguments: Mapping[str, Any],
) -> Named:
    """Any classifier of timm by its name there.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        name: Such as resnet50, vit_tiny_patch16_224 or, with one of its sets of weights, resnet50.a1_in1k.
        pretrained: Whether it starts from timm's weights, which are downloaded once; or a file of weights.
        stem: small: a stem for small images; original: the library's; auto: small where one is known, images are below
            64 pixels, and no weights ask for the original.
        arguments: Further ones of timm's builder, such as drop_path_rate.

    Raises:
        UsageError: there is no such model or argument, it cannot take such images, or its weights cannot be had.
    """
    config = _timm_config(name)
    fitted = {**_timm_arguments(name, image_size, stem), **arguments}
    make = functools.partial(timm.create_model, name, num_classes=0, in_chans=in_channels, **fitted)
    from_network = pretrained is True
    if from_network:
        if not config.has_weights:
            raise UsageError(f"timm has no weights for {name}: set model.pretrained=false, or give a file of them.")
        weights.fetched(name, lambda: weights.timm_weights_reachable(config))
    net = weights.fetched(name, lambda: make(pretrained=True)) if from_network else built("timm", name, make)
    notes = _stem(name, net, image_size, stem, bool(pretrained))
    if isinstance(pretrained, str):
        notes += weights.fill(name, net, _for_timm(net, weights.read(pretrained), config, in_channels), pretrained)
    native = config.input_size[-1]
    plain = functools.partial(timm.create_model, name, num_classes=0, in_chans=in_channels, **arguments)
    least = functools.partial(smallest_size, plain, in_channels, min(image_size), native)
    count = features_of(name, net, in_channels, image_size, least)
    left = _left(net, functools.partial(net.forward_features, example(net, in_channels, image_size)), count)
    return Named(name, net, count, [*notes, *crowded(image_size, native, left)])


def _timm_config(name: str) -> Any:
    """Return what timm knows of a model and the set of weights that its name may name: where they lie, its native size.

    Raises:
        UsageError: there is no such model, or no such weights; with the nearest names.
    """
    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models())
    try:
        return get_pretrained_cfg(name) or PretrainedCfg()
    except RuntimeError as error:
        raise unknown("timm model", name, timm.list_pretrained(f"{name.partition('.')[0]}.*")) from error


def _timm_arguments(name: str, size: Size, stem: Stem) -> dict[str, Any]:
    """Return the arguments by which a model of timm takes images of this size."""
    made: type = inspect.signature(model_entrypoint(name)).return_annotation
    known = {key for cls in made.__mro__ if cls is not object for key in inspect.signature(cls.__init__).parameters}
    found: dict[str, Any] = {"img_size": size} if "img_size" in known else {}
    if stem == "original" or not issubclass(made, VisionTransformer | Beit | Eva | SwinTransformer | SwinTransformerV2):
        return found
    with torch.device("meta"):
        patch = timm.create_model(name, num_classes=0).patch_embed.patch_size[0]
    if not issubclass(made, SwinTransformer | SwinTransformerV2):
        return found | {"patch_size": patch_for(size, patch)}
    if min(size) >= 2 * SMALL:
        return found
    # four stages halve three times: 32x32 in patches of 2 go down to 2x2 features, as in Lee et al., arXiv:2112.13492
    patch = patch if min(size) >= SMALL else max(1, patch // 2) if min(size) >= SMALL // 2 else 1
    windows = [w for w in range(2, WINDOW + 1) if all(side // patch % w == 0 for side in size)]
    return found | {"patch_size": patch} | ({"window_size": windows[-1]} if windows else {})


def _for_timm(net: nn.Module, found: Mapping[str, Tensor], config: Any, channels: int) -> dict[str, Tensor]:
    """Return weights from a file as timm itself would fit them to a model: names, positions, patches, channels."""
    suited = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    found = dict(found) if suited is None else suited(dict(found), net)
    firsts = [config.first_conv] if isinstance(config.first_conv, str) else config.first_conv or ()
    for first in firsts:
        found = weights.adapted(found, first, channels)
    return dict(found)


def _stem(name: str, net: nn.Module, size: Size, stem: Stem, weighted: bool) -> list[str]:
    """Give a model the stem that is asked for, and return what was done, as notes.

    Raises:
        UsageError: a stem for small images is asked for, and none is known.
    """
    if stem == "original" or (stem == "auto" and (weighted or min(size) >= SMALL)):
        return []
    if small_stem(net):
        return [STEM_NOTE]
    if stem == "small" and not hasattr(net, "patch_embed"):
        raise UsageError(f"no stem for small images is known for {name}: set model.stem=auto.")
    return []


def _left(net: nn.Module, features: Callable[[], Any], count: int) -> Size | None:
    """Return height and width of the last features of a model, None where they have none, such as tokens."""
    training = net.training
    try:
        with torch.no_grad(), contextlib.suppress(RuntimeError, ValueError, TypeError):
            net.eval()
            found = features()
            if isinstance(found, Tensor) and found.ndim == 4:
                channels = {count, getattr(net, "num_features", count)}
                channels_last = found.shape[-1] in channels and found.shape[1] not in channels
                return tuple(found.shape[1:3] if channels_last else found.shape[2:])
        return None
    finally:
        net.train(training)


# ---------------------------------------------------------------- torchvision


@made_by("torchvision")
def torchvision_model(
    *,
    in_channels: int,
    image_size: Size,
    name: str,
    pretrained: bool | str,
    stem: Stem,
    arguments: Mapping[str, Any],
) -> Named:
    """Any classifier of torchvision by its name there; Inception and GoogLeNet without their auxiliary classifiers.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        name: Such as resnet18, vgg11_bn, squeezenet1_1.
        pretrained: Whether it starts from torchvision's weights, which are downloaded once; or a file of weights.
        stem: As for `timm_model`.
        arguments: Further ones of torchvision's builder, such as stochastic_depth_prob.

    Raises:
        UsageError: there is no such model or argument, it cannot take such images, or its weights cannot be had.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise unknown("torchvision model", name, names)
    make = functools.partial(torchvision.models.get_model_builder(name), weights=None)
    fitted = {**_torchvision_arguments(name, image_size), **arguments}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = built("torchvision", name, functools.partial(make, **fitted))
    head = _without_classifier(name, net)
    weights.take_channels(net, in_channels)
    notes = _stem(name, net, image_size, stem, bool(pretrained))
    entry: Any = torchvision.models.get_model_weights(name).DEFAULT  # pyright: ignore[reportAttributeAccessIssue]
    if pretrained:
        notes += _torchvision_weights(name, net, pretrained, entry, head, in_channels)
    native = entry.transforms.keywords["crop_size"]

    def plain() -> nn.Module:
        made = make(**{**_torchvision_arguments(name, (native, native)), **arguments})
        _without_classifier(name, made)
        weights.take_channels(made, in_channels)
        return made

    least = functools.partial(smallest_size, plain, in_channels, min(image_size), native)
    count = features_of(name, net, in_channels, image_size, least)
    left = _left(net, functools.partial(_last_map, net, example(net, in_channels, image_size)), count)
    return Named(name, net, count, [*notes, *crowded(image_size, native, left)])


def _torchvision_arguments(name: str, size: Size) -> dict[str, Any]:
    """Return the arguments by which a model of torchvision takes images of this size and has one output."""
    models = torchvision.models
    made: type = inspect.signature(models.get_model_builder(name)).return_annotation
    if issubclass(made, models.GoogLeNet | models.Inception3):
        return {"aux_logits": False, "init_weights": True}
    if issubclass(made, models.VisionTransformer):
        if size[0] != size[1]:
            raise UsageError(f"{name} of torchvision takes square images, not {size[0]}x{size[1]}: use model=timm.")
        return {"image_size": size[0]}
    return {"input_size": size} if issubclass(made, models.MaxVit) else {}


def _without_classifier(name: str, net: nn.Module) -> str:
    """Take the last layer, which gives class scores, from a model of torchvision and return its name."""
    layers = [key for key, module in net.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    parent, _, child = layers[-1].rpartition(".")
    setattr(net.get_submodule(parent), child, nn.Identity())
    return layers[-1]


def _torchvision_weights(
    name: str, net: nn.Module, pretrained: bool | str, entry: Any, head: str, channels: int
) -> list[str]:
    """Load weights of torchvision or from a file into a model; return what was left out, as notes."""
    if isinstance(pretrained, str):
        found, source = weights.read(pretrained), pretrained
    else:
        found, source = weights.fetched(name, lambda: weights.torchvision_weights(entry)), f"{entry}"
    found = weights.adapted(found, weights.first_convolution(net)[0], channels)
    heads = (f"{head}.", "aux1.", "aux2.", "AuxLogits.")
    kept = {key: value for key, value in found.items() if not key.startswith(heads)}
    return weights.fill(name, net, kept if pretrained is True else found, source)


def _last_map(net: nn.Module, images: Tensor) -> Any:
    """Return the last map of features of a model of torchvision, before it is averaged."""
    found: list[Any] = []
    children = dict(net.named_children())
    after = next((children[key] for key in ("features", "layers", "conv5", "layer4") if key in children), None)
    if after is not None:
        hook = after.register_forward_hook(lambda module, inputs, output: found.append(output))
    elif "avgpool" in children:
        hook = children["avgpool"].register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    else:
        return None
    with hook:
        net(images)
    return found[-1]
