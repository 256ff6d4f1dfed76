"""What a run is, and the key that names it: a hash of everything that decides its numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from harness import compose, hardware

Config = dict[str, Any]
NEUTRAL = {"rate": 0, "ratio": 1, "share": 1}
"""Sizes at which a stress changes nothing."""


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides a run's numbers apart from its seed, as plain data.

    Attributes:
        task, dataset, model, optimizer, trainer: options of these config groups, without any value left open.
        loss: one loss, or one for each role of the task; the terms of sums are written out.
        stress: what makes training harder; None: nothing does.
        shift: what makes test data harder, by name.
        device: cpu or cuda.
        threads: CPU threads; None on a GPU.
    """

    task: Config
    dataset: Config
    model: Config
    loss: Config
    optimizer: Config
    trainer: Config
    device: str
    threads: int | None
    stress: Config | None = None
    shift: Config | None = None

    def at(self, values: Mapping[str, Any]) -> RunSpec:
        """Return the same with other values, by dotted path, such as ``optimizer.lr``."""
        changed = self
        for path, value in values.items():
            group, _, rest = path.partition(".")
            content = compose.with_value(getattr(changed, group), rest, value) if rest else value
            changed = replace(changed, **{group: content})
        return changed

    def value(self, path: str) -> Any:
        """Return the value at the dotted ``path``."""
        group, _, rest = path.partition(".")
        return compose.value_at(getattr(self, group), rest) if rest else getattr(self, group)

    @property
    def content(self) -> Config:
        """All fields but those that nothing is asked of."""
        return {name.name: value for name in fields(self) if (value := getattr(self, name.name)) not in (None, {})}


def spec_of(config: Config) -> RunSpec:
    """Return what decides the numbers of a composed run, with every ``null`` that means "the model's own" or "what the
    hardware has" resolved.
    """
    device = hardware.device_type(config["device"])
    model, optimizer, trainer = config["model"], config["optimizer"], config["trainer"]
    if optimizer["lr"] is None:
        optimizer = {**optimizer, "lr": model["lr"]}
    if trainer["precision"] is None:
        trainer = {**trainer, "precision": hardware.fast_precision(device, model["precision"])}
    stress = config["stress"]
    return RunSpec(
        task=config["task"],
        dataset=config["dataset"],
        model={key: value for key, value in model.items() if key not in ("lr", "precision")},
        loss=_expanded(config["loss"]),
        optimizer=optimizer,
        trainer=trainer,
        device=device,
        threads=config["threads"] if device == "cpu" else None,
        stress=None if not stress or any(stress.get(key) == value for key, value in NEUTRAL.items()) else stress,
        shift=config["shift"] or None,
    )


def _expanded(loss: Config) -> Config:
    """Return a loss with the terms of a sum written out, so that its description does not depend on other files."""
    if "_target_" not in loss:
        return {role: _expanded(part) for role, part in loss.items()}
    if "terms" not in loss:
        return loss
    return {**loss, "parts": {name: _expanded(compose.option("loss", name)) for name in loss["terms"]}}


def setting_hash(spec: RunSpec) -> str:
    """Return the hash of what is compared: a run's identity without seed, device and threads."""
    content = {name: value for name, value in spec.content.items() if name not in ("device", "threads")}
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:12]


class Addresses:
    """The keys of runs on the data below a root.

    Args:
        root: where data sets lie.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def identity(self, spec: RunSpec) -> dict[str, Any]:
        """Return what the key covers beyond the spec: the content of the data, and what the code does."""
        return {}

    def keys(self, spec: RunSpec, seeds: Iterable[int]) -> list[str]:
        """Return the keys of the runs that differ in their seed alone: content hashes of 16 hexadecimal digits."""
        setting = hashlib.sha256(canonical({**spec.content, "identity": self.identity(spec)}).encode())
        out = []
        for seed in seeds:
            digest = setting.copy()
            digest.update(f"seed {seed}".encode())
            out.append(digest.hexdigest()[:16])
        return out


def canonical(content: object) -> str:
    """Return JSON in which equal settings are equal text: sorted keys, and 2.0 written as 2."""
    return json.dumps(_plain(content), sort_keys=True, separators=(",", ":"))


def _plain(content: object) -> object:
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, float) and content.is_integer():
        return int(content)
    return content
