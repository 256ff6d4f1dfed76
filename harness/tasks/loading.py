"""A data set on the device, read once per worker."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_method
from torch import Tensor

from datasets.splits import Splits

Parts = dict[str, Tensor]


def load(dataset: Mapping[str, Any], data: Mapping[str, Any], device: object) -> tuple[Splits, Parts, Parts]:
    """Return the splits of a data set, and its images and its targets on the device, by name of split."""
    settings = {name: value for name, value in dataset.items() if name not in ("_target_", "augment")}
    return _load(dataset["_target_"], str(data["root"]), bool(data["download"]), json.dumps(settings), str(device))


@functools.lru_cache(maxsize=2)  # a warm worker meets the same data again and again
def _load(target: str, root: str, download: bool, settings: str, device: str) -> tuple[Splits, Parts, Parts]:
    splits: Splits = get_method(target)(Path(root), download=download, **json.loads(settings))
    parts = {"train": splits.train, "valid": splits.valid, "test": splits.test}
    return (
        splits,
        {k: v.images.to(device) for k, v in parts.items()},
        {k: v.targets.to(device) for k, v in parts.items()},
    )
