"""What a run is, and the key that names it: a hash of everything that decides its numbers.

A key covers the spec, the seed, the content of the data set's files (`harness.content`), and what the code of every
component does. The syntax tree of a component (`harness.code`) identifies its code where it is known; where it is not,
behaviour decides (`harness.behaviour`): a component that does what an earlier one did keeps the earlier identity.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from harness import compose, hardware, schema
from harness.behaviour import Behaviours, Part
from harness.code import Code
from harness.content import Digests
from harness.errors import UsageError
from harness.paths import RESULTS

Config = dict[str, Any]


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
        stress=None if schema.neutral(stress) else stress,
        shift=config["shift"] or None,
    )


def _expanded(loss: Config) -> Config:
    """Return a loss with the terms of a sum written out, so that its description does not depend on other files."""
    if "_target_" not in loss:
        return {role: _expanded(part) for role, part in loss.items()}
    if "terms" not in loss:
        return loss
    given = loss.get("parts", {})
    parts = {name: {**_expanded(compose.option("loss", name)), **given.get(name, {})} for name in loss["terms"]}
    return {**loss, "parts": parts}


def setting_hash(spec: RunSpec) -> str:
    """Return the hash of what is compared: a run's identity without seed, device and threads."""
    content = {name: value for name, value in spec.content.items() if name not in ("device", "threads")}
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:12]


READERS = ("harness.errors", "harness.text", "harness.paths", "harness.hardware", "harness.records", "harness.compose")
"""Modules that move no number: messages, places, records."""
TRAINING = ("harness.training", "harness.feeds", "losses", "harness.models")
STOPS: Mapping[str, tuple[str, ...]] = {
    "loss": ("losses.kinds",),
    "task": (*TRAINING, "harness.metrics.declared"),
    "trainer": (*TRAINING[1:], "harness.tasks", "harness.metrics", "datasets"),
}
"""Where the code of a component ends: at others that have an identity of their own, and at declarations."""
COMMON: Mapping[str, tuple[str, ...]] = {
    "loss": ("losses.loss.Loss", "losses.compound.Sum"),
    "model": ("harness.models.heads.build",),
    "dataset": ("datasets.redraw.redrawn",),
}
"""What every component of a kind uses beside its own code."""
COMPONENTS = ("loss", "model", "dataset", "task", "trainer", "optimizer", "stress", "shift")


class Addresses:
    """The keys of runs on the data below a root.

    Args:
        root: where data sets lie.
        results: where digests and behaviours are kept.
        download: whether a data set that is absent is fetched before its content is asked for.
        code: finds the code of components.
    """

    def __init__(
        self, root: Path, results: Path = RESULTS, *, download: bool = False, code: Code | None = None
    ) -> None:
        self.root, self.download, self.code = root, download, code or Code()
        self.digests, self.behaviours = Digests(results), Behaviours(results)
        self._found: dict[tuple[str, str], Any] = {}

    def identity(self, spec: RunSpec) -> dict[str, Any]:
        """Return what the key covers beyond the spec: ``data``, the digest of the data set's files (None: it reads
        none, or they are absent), and ``code``, what identifies the code of every component.
        """
        return {"data": self.content(spec), "code": {part.component: part.identity for part in self.parts(spec)}}

    def content(self, spec: RunSpec) -> str | None:
        """Return the digest of the files that the data set of a run reads."""
        config = {name: value for name, value in spec.dataset.items() if name not in ("augment", "split")}
        return self._once("content", config, self._content)

    def _content(self, config: Config) -> str | None:
        declared = self.code.declared(config["_target_"], "reads")
        settings = {name: value for name, value in config.items() if name != "_target_"}
        named = [value for value in settings.values() if isinstance(value, str) and value]
        found = self.digests.of(self.root, named if declared is None else declared, settings)
        if found is None and declared and self.download:
            from hydra.utils import get_method

            get_method(config["_target_"])(self.root, download=True, **settings)
            return self.digests.of(self.root, declared, settings)
        return found

    def parts(self, spec: RunSpec) -> list[Part]:
        """Return the components of a run whose code is the project's or the user's own."""
        found = []
        for component in COMPONENTS:
            config = getattr(spec, component)
            if component == "dataset":
                config = {name: value for name, value in config.items() if name != "augment"}
                config |= {"content": self.content(spec)}
            if config and (part := self._once(component, config, functools.partial(self._part, component))):
                found.append(part)
        return found

    def _part(self, component: str, config: Config) -> Part | None:
        names = {*targets(config), *COMMON.get(component, ())}
        tree = self.code.digest(names, (*READERS, *STOPS.get(component, ())))
        if tree is None:
            return None
        if component == "model":
            tree = self._with_libraries(config, tree)
        spec = hashlib.sha256(canonical(config).encode()).hexdigest()[:12]
        data = {"root": str(self.root), "download": False}
        identity = self.behaviours.identity(component, config, spec, tree, data)
        return Part(component, config, spec, tree, identity)

    def _with_libraries(self, config: Config, tree: str) -> str:
        """Return the tree of a model's code; if libraries make the model, also of their versions and a file of weights.

        Raises:
            UsageError: there is no such file.
        """
        libraries = self.code.declared(config["_target_"], "made_by")
        if libraries is None:
            return tree
        parts = [tree, *(f"{name} {importlib.metadata.version(name)}" for name in libraries)]
        if isinstance(config.get("pretrained"), str):
            if not Path(config["pretrained"]).is_file():
                raise UsageError(f"model.pretrained={config['pretrained']}: there is no such file; give true or false.")
            parts.append(self.digests.of_path(Path(config["pretrained"])))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def _once(self, what: str, config: Config, find: Callable[[Config], Any]) -> Any:
        key = (what, canonical(config))
        if key not in self._found:
            self._found[key] = find(config)
        return self._found[key]

    def keys(self, spec: RunSpec, seeds: Iterable[int]) -> list[str]:
        """Return the keys of the runs that differ in their seed alone: content hashes of 16 hexadecimal digits."""
        return _keys(spec.content, self.identity(spec), seeds)


def _keys(content: Config, identity: Mapping[str, Any], seeds: Iterable[int]) -> list[str]:
    setting = hashlib.sha256(canonical({**content, "identity": identity}).encode())
    out = []
    for seed in seeds:
        digest = setting.copy()
        digest.update(f"seed {seed}".encode())
        out.append(digest.hexdigest()[:16])
    return out


def key_of(content: Config, identity: Mapping[str, Any], seed: int) -> str:
    """Return the key of one run.

    Args:
        content: of its spec.
        identity: of its data and code.
        seed: its seed.
    """
    return _keys(content, identity, [seed])[0]


def targets(config: object) -> set[str]:
    """Return every ``_target_`` in a config.

    >>> sorted(targets({"_target_": "a.b", "base": {"_target_": "c.d"}}))
    ['a.b', 'c.d']
    """
    if not isinstance(config, Mapping):
        return set()
    own = {str(config["_target_"])} if "_target_" in config else set()
    return own.union(*map(targets, config.values()))


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
