"""From names and overrides to the full description of one run.

Hydra composes the base once; every further run is that description with option dictionaries swapped and single values
set, because composing each run through Hydra costs about a thousand times more.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import schema
from harness.errors import UsageError, unknown
from harness.paths import CONF, OWN_CONF

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

GROUPS = ("task", "dataset", "model", "loss", "optimizer", "trainer", "stress", "shift")
OTHERS = ("engine", "feed")
"""Groups that decide no number of a run."""
Config = dict[str, Any]
MOST_DEPTH, MOST_NODES, MOST_ALIASES = 12, 20_000, 10
"""Bounds on a YAML file, which can describe more than any memory holds in a few lines of aliases."""


@dataclass(frozen=True)
class Composed:
    """A composed run: ``choices``, the name of every option, and ``config`` with every value.

    Where a task has several losses, one for each role, ``choices`` has ``loss.ROLE`` too, and ``loss`` lists all.
    """

    choices: dict[str, str]
    config: Config


def options(group: str) -> list[str]:
    """Return the names of all options of a config group, the user's own among them."""
    return sorted({path.stem for folder in _folders() for path in (folder / group).glob("*.yaml")})


def file_of(group: str, name: str) -> Path:
    """Return the file of an option, of ours or of the user's own folder.

    Raises:
        UsageError: no such option, and the sentence has the nearest names; or the user's own folder has another.
    """
    found = [path for folder in _folders() if (path := folder / group / f"{name}.yaml").is_file()]
    what = group.replace("dataset", "data set")
    if len(found) > 1:
        raise UsageError(f"{name} is a {what} of lossbench's, so {found[1]} is not used: give yours another name.")
    if found and found[0].stem == name:
        return found[0]
    raise unknown(what, name, options(group))


def _folders() -> list[Path]:
    return [CONF, *([] if OWN_CONF is None else [OWN_CONF])]


@functools.cache
def option(group: str, name: str) -> Config:
    """Return what `read_option` does, read once: for the options of runs, of which there are many."""
    return read_option(group, name)


def read_option(group: str, name: str) -> Config:
    """Return one option of a config group, or a study, as plain data, with those that its ``defaults`` name in it.

    Raises:
        UsageError: no such option, and the sentence has the nearest names; or its file is no config.
    """
    path = file_of(group, name)
    content = loaded(path)
    if not any(word in path.read_text() for word in ("defaults:", "@package", "${")):  # Hydra has nothing to compose
        return content
    if group == "study" and "_self_" not in (listed := content.get("defaults", ["_self_"])):
        raise UsageError(
            f"the study {name} would be overruled by those that it builds on: "
            f"write defaults: [{', '.join(map(str, [*listed, '_self_']))}]."
        )
    if group == "task":  # its data set, model and losses are options of other groups, which it may override
        return _composed([f"task={name}"])[0].config["task"]
    from hydra import compose
    from hydra.errors import HydraException

    try:
        with _hydra():
            composed = compose(config_name=f"{group}/{name}")
    except HydraException as error:
        raise explain(error, ()) from error
    return plain(composed[group])


def loaded(path: Path) -> Config:
    """Return a YAML file as plain data.

    Raises:
        UsageError: it is no mapping in YAML, or far larger than any config, as it is or with its aliases resolved.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    depth = nodes = aliases = 0
    try:
        for event in yaml.parse(path.read_text(), Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            nodes += isinstance(event, yaml.NodeEvent)
            aliases += isinstance(event, yaml.AliasEvent)
            if depth > MOST_DEPTH or nodes > MOST_NODES or aliases > MOST_ALIASES:
                raise UsageError(
                    f"{path.name} holds more than any config needs ({MOST_DEPTH} levels, {MOST_NODES:,} values, "
                    f"{MOST_ALIASES} aliases): write it out, in several files if need be."
                )
        content = plain(OmegaConf.load(path))
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path.name} cannot be read as YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path.name} holds no settings: write NAME: VALUE on lines of its own.")
    return content


def compose_run(overrides: Sequence[str] = ()) -> Composed:
    """Compose conf/run.yaml through Hydra with command-line ``overrides`` such as ``loss=focal``.

    Raises:
        UsageError: an override names something that does not exist, or gives it a value that it cannot have.
    """
    found, chosen_by_hydra = _composed(overrides)
    check_groups(found.choices, found.config)
    check_others(chosen_by_hydra, found.config)
    return found


def _composed(overrides: Sequence[str]) -> tuple[Composed, Mapping[str, Any]]:
    """Return what Hydra composes, not yet checked, and the option of each of its groups."""
    from hydra import compose
    from hydra.errors import HydraException

    for entry in overrides:
        parsed(entry)
    try:
        with _hydra():
            composed = compose(config_name="run", overrides=for_hydra(overrides), return_hydra_config=True)
    except HydraException as error:
        raise explain(error, overrides) from error
    config = {"shift": {}, **{str(key): plain(composed[key]) for key in composed if key != "hydra"}}
    return Composed(chosen(composed.hydra.runtime.choices, config), config), composed.hydra.runtime.choices


def check_groups(choices: Mapping[str, str], config: Config, groups: Iterable[str] = GROUPS) -> None:
    """Raise a UsageError unless every setting of these groups is what it may be.

    Args:
        choices: the option of every group, as `chosen` returns them.
        config: as composed.
        groups: which to check.
    """
    for group in groups:
        if group == "shift":
            for name, content in config["shift"].items():
                schema.check_group("shift", name, content, option("shift", name)[name], f"shift.{name}")
        elif group == "loss" and "loss" in config and any(key.startswith("loss.") for key in choices):
            for role, content in config["loss"].items():
                name = choices[f"loss.{role}"]
                schema.check_group("loss", name, content, option("loss", name), f"loss.{role}")
        elif group in choices:
            schema.check_group(group, choices[group], config[group], option(group, choices[group]))


def check_others(choices: Mapping[str, Any], config: Config) -> None:
    """Raise a UsageError unless what decides no number of a run is what it may be: engine, feed, data, reuse,
    tracking.
    """
    schema.check_run(config)
    for group in OTHERS:
        schema.check_group(group, str(choices[group]), config[group], option(group, str(choices[group])))


def chosen(choices: Mapping[str, Any], config: Config) -> dict[str, str]:
    """Return the option that Hydra chose for every group, and by role where a task has several losses.

    Hydra keeps no list, such as that of the shifts, and keeps roles backwards: ``config`` has both in order.
    """
    in_order = {f"loss.{role}": choices.get(f"loss@loss.{role}") for role in config["loss"]}
    roles = {key: str(name) for key, name in in_order.items() if name}
    found = {group: str(choices[group]) for group in GROUPS if group in choices and group != "shift"}
    found |= {"shift": "+".join(config["shift"]) or "none", **roles}
    return found | ({"loss": joined_roles(found, config)} if roles else {})


def with_model_called(choices: Mapping[str, str], config: Config) -> dict[str, str]:
    """Return the choices with a model of a library called by its name there, for terminal, tables and reports.

    >>> with_model_called({"model": "timm"}, {"model": {"name": "resnet50"}})
    {'model': 'resnet50 (timm)'}
    >>> with_model_called({"model": "smp"}, {"model": {"arch": "unet", "encoder": "mit_b0"}})
    {'model': 'unet-mit_b0 (smp)'}
    >>> with_model_called({"model": "mlp"}, {"model": {"width": 64}})
    {'model': 'mlp'}
    """
    option, model = choices["model"], config["model"]
    words = [model["name"]] if "name" in model else [model[key] for key in ("arch", "encoder") if "arch" in model]
    return {**choices, "model": f"{'-'.join(map(str, words))} ({option})"} if words else dict(choices)


def model_option(called: str) -> str:
    """Return the option of conf/model/ of a model as `with_model_called` calls it.

    >>> model_option("resnet50 (timm)"), model_option("mlp")
    ('timm', 'mlp')
    """
    return called.rpartition("(")[2].rstrip(")")


def joined_roles(choices: Mapping[str, str], config: Config) -> str:
    """Return how the losses of several roles are called together; roles to which the task gives weight 0 are left out.

    >>> joined_roles({"loss.boxes": "giou", "loss.labels": "focal"}, {"task": {"weights": {"labels": 2.0}}})
    'giou + focal'
    """
    weights = config["task"].get("weights") or {}
    roles = {key.removeprefix("loss."): name for key, name in choices.items() if key.startswith("loss.")}
    return " + ".join(name for role, name in roles.items() if weights.get(role, 1))


@functools.cache
def roles() -> frozenset[str]:
    """Return the keys ``loss.ROLE`` of all roles that tasks of conf/task/ have for their losses."""
    texts = (file_of("task", name).read_text() for name in options("task"))
    return frozenset(name for text in texts for name in re.findall(r"/loss@(loss\.\w+):", text))


def parsed(override: str) -> Override:
    """Return an override as Hydra's own grammar reads it, so that lists, numbers and null mean what they mean there.

    Raises:
        UsageError: it cannot be read, or names what is no option as one of a config group.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        found = OverridesParser.create().parse_override(override)
        value = None if found.is_delete() or found.is_sweep_override() else found.value()
    except HydraException as error:
        raise UsageError(f"cannot read '{override}': write key=value, and lists as key=[a,b].") from error
    group = str(found.key_or_group)
    names = value if group == "shift" and isinstance(value, list) else [value]
    chooses = group in {*GROUPS, *roles(), *OTHERS} and not found.is_sweep_override()
    if chooses and not all(isinstance(name, str) and name for name in names):
        raise UsageError(f"{override}: give the name of an option, such as {group}={options(_folder(group))[0]}.")
    return found


def _folder(group: str) -> str:
    return "loss" if group in roles() else group


def alternatives(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Yield lists of overrides in which every value of a multirun (``loss=focal,ngl``) occurs once at least.

    Raises:
        UsageError: an override cannot be read.
    """
    found = [parsed(entry) for entry in overrides]
    swept = [
        [f"{(each.input_line or '').partition('=')[0]}={value}" for value in each.sweep_string_iterator()]
        if each.is_sweep_override() and each.is_discrete_sweep()
        else [entry]
        for each, entry in zip(found, overrides, strict=True)
    ]
    for number in range(max(map(len, swept), default=1)):
        yield [values[min(number, len(values) - 1)] for values in swept]


def paths(overrides: Iterable[str]) -> set[str]:
    """Return the dotted paths that overrides set.

    >>> sorted(paths(["+task.crop=null", "~trainer.probe", "loss@loss.boxes=giou"]))
    ['loss.boxes', 'task.crop', 'trainer.probe']
    """
    return {entry.partition("=")[0].lstrip("+~").removeprefix("loss@") for entry in overrides}


def for_hydra(overrides: Iterable[str]) -> list[str]:
    """Return overrides as Hydra writes them: ``loss.boxes=giou`` chooses the option of a role.

    >>> for_hydra(["loss=focal", "loss.gamma=1"])
    ['loss=focal', 'loss.gamma=1']
    """
    return [f"loss@{entry}" if entry.partition("=")[0] in roles() else entry for entry in overrides]


def plain(node: Any) -> Any:
    """Return a node of a Hydra config as plain data, interpolations resolved; a single value as it is."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def explain(error: Exception, overrides: Iterable[str]) -> UsageError:
    """Turn an error of Hydra about command-line ``overrides`` into one sentence with the nearest names."""
    from hydra.errors import MissingConfigException

    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return unknown(group.replace("dataset", "data set") or "config", name, error.options or options(group))
    first = str(error).strip().splitlines()[0].rstrip(".")
    if first.startswith("Could not override '"):
        path = first.split("'")[1]
        groups = [e for e in overrides if e.split("=")[0] in GROUPS and e.split("=")[0] != path and "," not in e]
        try:
            base = compose_run(groups)
            _require_one_loss(base.choices, [path])
            require_path(base.config, path)
        except UsageError as better:
            return better
    return UsageError(f"{first}: see --help for what can be set.")


@functools.cache
def add_own_configs() -> None:
    """Let Hydra find the user's own options in this process, after those of conf/."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class OwnConfigs(SearchPathPlugin):
        """Hydra's search path with the user's own folder."""

        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            """Add the folder behind all others."""
            search_path.append("own", f"file://{OWN_CONF}")

    if OWN_CONF is not None:
        Plugins.instance().register(OwnConfigs)


@contextlib.contextmanager
def _hydra() -> Iterator[None]:
    """Let Hydra compose from conf/, also within a command that Hydra itself is carrying out."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    add_own_configs()
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


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


def _require_one_loss(choices: Mapping[str, str], keys: Iterable[str]) -> None:
    """Raise a UsageError with the roles of the task if it has any and ``keys`` set its one loss."""
    if "loss" in keys and (known := [name for name in choices if name.startswith("loss.")]):
        raise UsageError(f"the task {choices['task']} has several losses: set {' and '.join(known)}, not loss.")


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
    """Return ``base`` with options swapped (keys that are config groups, or roles) and single values set (dotted keys).

    Raises:
        UsageError: there is no such option, role or setting.
    """
    choices, config = dict(base.choices), dict(base.config)
    _require_one_loss(choices, values)
    for key, value in values.items():
        if key == "shift":
            listed = [value] if isinstance(value, str) else list(value)
            choices[key], config[key] = "+".join(listed) or "none", {name: option(key, name)[name] for name in listed}
        elif key in GROUPS:
            if str(value) != choices[key]:
                choices[key], config[key] = str(value), option(key, str(value))
        elif key in roles():
            require_path(config, key)
            choices[key], config = str(value), with_value(config, key, option("loss", str(value)))
    for path, value in values.items():
        if path not in GROUPS and path not in roles():
            require_path(config, path)
            config = with_value(config, path, value)
    if any(name.startswith("loss.") for name in choices):
        choices["loss"] = joined_roles(choices, config)
    changed = {path.partition(".")[0] for path in values}
    check_groups(choices, config, [group for group in GROUPS if group in changed])
    schema.check_run({name: config[name] for name in changed if name in config})
    return Composed(choices, config)
