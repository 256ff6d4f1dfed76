"""From names and overrides to the full description of one run.

Hydra composes the base once; every further run is that description with option dictionaries swapped and single values
set, because composing each run through Hydra costs about a thousand times more.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import losses
from harness import NUMERICS, hardware
from harness.errors import UsageError, unknown

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
RESULTS = Path(os.environ.get("LOSSBENCH_RESULTS", ROOT / "results")).absolute()
GROUPS = ("task", "dataset", "model", "loss", "optimizer", "trainer")
IDENTITY = (*GROUPS, "threads", "device")

Config = dict[str, Any]


@dataclass(frozen=True)
class Composed:
    """A composed run: ``names`` of the chosen options, and ``config`` with every value."""

    names: dict[str, str]
    config: Config


def options(group: str) -> list[str]:
    """Return the names of all options of a config group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@functools.cache
def option(group: str, name: str) -> Config:
    """Return one option of a config group as plain data.

    Raises:
        UsageError: no such option; the sentence has the nearest names.
    """
    if name not in options(group):
        raise unknown(group.replace("dataset", "data set"), name, options(group))
    path = CONF / group / f"{name}.yaml"
    if not any(word in path.read_text() for word in ("defaults:", "@package", "${")):  # Hydra has nothing to compose
        from omegaconf import OmegaConf

        return plain(OmegaConf.load(path))
    from hydra import compose

    with _hydra():
        composed = compose(config_name=f"{group}/{name}")
    return plain(composed[group])


def compose_run(overrides: Sequence[str] = ()) -> Composed:
    """Compose conf/run.yaml through Hydra with command-line ``overrides`` such as ``loss=focal``.

    Raises:
        UsageError: an override names something that does not exist.
    """
    from hydra import compose
    from hydra.errors import HydraException

    try:
        with _hydra():
            composed = compose(config_name="run", overrides=list(overrides), return_hydra_config=True)
    except HydraException as error:
        raise explain(error, overrides) from error
    names = {group: str(composed.hydra.runtime.choices[group]) for group in GROUPS}
    return Composed(names, {str(key): plain(composed[key]) for key in composed if key != "hydra"})


def plain(node: Any) -> Any:
    """Return a node of a Hydra config as plain data, interpolations resolved; a single value as it is."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def explain(error: Exception, overrides: Iterable[str]) -> UsageError:
    """Turn an error of Hydra about command-line ``overrides`` into one sentence with the nearest names."""
    from hydra.errors import MissingConfigException

    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return unknown(group.replace("dataset", "data set") or "config", name, error.options)
    first = str(error).strip().splitlines()[0].rstrip(".")
    if first.startswith("Could not override '"):
        path = first.split("'")[1]
        groups = [entry for entry in overrides if entry.split("=")[0] in GROUPS and "," not in entry]
        try:
            require_path(compose_run(groups).config, path)
        except UsageError as better:
            return better
    return UsageError(f"{first}: see --help for what can be set.")


def _hydra():
    from hydra import initialize_config_dir

    return initialize_config_dir(str(CONF), version_base="1.3")


def with_value(config: Config, path: str, value: object) -> Config:
    """Return ``config`` with the value at the dotted ``path`` replaced; nothing but the way to it is copied."""
    head, _, rest = path.partition(".")
    if not rest:
        return {**config, head: value}
    return {**config, head: with_value(config[head], rest, value)}


def require_path(config: Config, path: str) -> None:
    """Raise a UsageError with the nearest settings unless the dotted ``path`` exists in ``config``."""
    part: object = config
    for name in path.split("."):
        if not isinstance(part, dict) or name not in part:
            raise unknown("setting", path, _paths(config))
        part = part[name]


def value_at(config: Mapping[str, Any], path: str) -> Any:
    """Return the value at the dotted ``path``."""
    return functools.reduce(lambda part, name: part[name], path.split("."), config)


def _paths(config: Mapping[str, Any]) -> list[str]:
    paths = []
    for name, value in config.items():
        if not name.startswith("_"):
            paths += [name, *(f"{name}.{rest}" for rest in _paths(value))] if isinstance(value, dict) else [name]
    return paths


def swapped(base: Composed, values: Mapping[str, Any]) -> Composed:
    """Return ``base`` with options swapped (keys that are config groups) and single values set (dotted keys)."""
    names = base.names | {key: str(value) for key, value in values.items() if key in GROUPS}
    config = base.config | {group: option(group, name) for group, name in names.items() if name != base.names[group]}
    for path, value in values.items():
        if path not in GROUPS:
            require_path(config, path)
            config = with_value(config, path, value)
    return Composed(names, config)


def identity(config: Config) -> Config:
    """Return everything that decides a run's numbers apart from its seed, with every ``null`` that means "the model's
    own" or "what the hardware has" resolved.
    """
    device = hardware.device_type(config["device"])
    model, optimizer, trainer = config["model"], config["optimizer"], config["trainer"]
    if optimizer["lr"] is None:
        optimizer = {**optimizer, "lr": model["lr"]}
    if trainer["precision"] is None:
        trainer = {**trainer, "precision": hardware.fast_precision(device, model["precision"])}
    own = {key: value for key, value in model.items() if key not in ("lr", "precision")}
    stress = config["stress"]  # what is not asked for is no part of a run
    robustness = {kind: size for kind, size in config["robustness"].items() if size}
    return {
        "task": config["task"] | ({"robustness": robustness} if robustness else {}),
        "dataset": config["dataset"] | ({"stress": stress} if _stressed(stress) else {}),
        "model": own,
        "loss": expanded(config["loss"]),
        "optimizer": optimizer,
        "trainer": trainer,
        "device": device,
        "threads": config["threads"] if device == "cpu" else None,
        "numerics": {"losses": losses.NUMERICS, "harness": NUMERICS},
    }


def _stressed(stress: Config) -> bool:
    """Return whether anything is asked for: without, data are described as they always were."""
    return stress["share"] != 1 or stress["imbalance_ratio"] != 1 or stress["label_noise"] != 0


def expanded(loss: Config) -> Config:
    """Return a loss with the terms of a sum written out, so that its description does not depend on other files."""
    if "terms" not in loss:
        return loss
    return {**loss, "parts": {name: expanded(option("loss", name)) for name in loss["terms"]}}


def setting_hash(described: Config) -> str:
    """Return the hash of what is compared: a run's identity without seed, device, threads and numerics."""
    return _sha({group: described[group] for group in GROUPS})[:12]


def keys(described: Config, seeds: Iterable[int]) -> list[str]:
    """Return the keys of the runs that differ in their seed alone: content hashes of 16 hexadecimal digits."""
    setting = hashlib.sha256(_canonical(described).encode())
    out = []
    for seed in seeds:
        digest = setting.copy()
        digest.update(f"seed {seed}".encode())
        out.append(digest.hexdigest()[:16])
    return out


def _sha(content: object) -> str:
    return hashlib.sha256(_canonical(content).encode()).hexdigest()


def _canonical(content: object) -> str:
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
