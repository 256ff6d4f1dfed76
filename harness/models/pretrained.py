"""Pretrained weights of timm's models: all of them fit, or none is taken."""

from typing import Any

import timm
import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from torch import nn


def load_pretrained(body: nn.Module, weights: str | None, **shape: Any) -> None:
    """Fill the body with the weights of timm's model of this name, all of them or none.

    Args:
        body: A body of one of timm's classes.
        weights: Name of the model in timm; None where timm has none of this form.
        shape: What timm adapts its weights to (`in_chans`; for a ViT also `img_size` and `patch_size`).

    Raises:
        ValueError: There are no weights of this shape, or they could not be fetched.
    """
    if weights is None:
        raise ValueError("timm has no pretrained weights for this model; set model.pretrained=false.")
    # Compared without any storage first, so that weights that cannot fit are not downloaded.
    with torch.device("meta"):
        official = timm.create_model(weights, num_classes=0, **shape)
    wanted, offered = ({name: v.shape for name, v in net.state_dict().items()} for net in (body, official))
    if wanted != offered:
        example = min(name for name in {**wanted, **offered} if wanted.get(name) != offered.get(name))
        raise ValueError(
            f"timm's weights {weights} do not fit this model (they differ at {example}, for one); "
            f"keep timm's own form of it, or set model.pretrained=false."
        )
    try:
        repository = vars(official)["pretrained_cfg"]["hf_hub_id"]
        if not isinstance(try_to_load_from_cache(repository, "model.safetensors"), str):
            HfApi().model_info(repository, timeout=10)  # one question, where timm would ask for a minute
        donor = timm.create_model(weights, pretrained=True, num_classes=0, **shape)
    except Exception as error:  # the libraries below raise a dozen kinds when a host cannot be reached
        raise ValueError(
            f"The pretrained weights {weights} could not be fetched ({type(error).__name__}); "
            f"connect to the internet once, or set model.pretrained=false."
        ) from error
    body.load_state_dict(donor.state_dict())
