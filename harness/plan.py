"""From a study to its runs: pure, quick, and without importing torch.

A study crosses its axes, adds ``include``, drops ``exclude``, applies ``recipes`` and adds its controls.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from harness import address, compose, schema
from harness.address import Addresses, RunSpec
from harness.compose import GROUPS, Composed
from harness.errors import UsageError, unknown
from harness.paths import ROOT

REPEAT_SEEDS_FROM = 1000  # the baseline's other seeds, in the control "baseline repeated", are seed + 1000
SEARCH: Mapping[str, tuple[str, ...]] = {  # what of a study's field search each track uses
    "fixed": (),
    "lr": ("factors", "most", "seeds", "most_seeds"),
    "tuned": ("trials", "range", "most", "seeds", "most_seeds"),
}
RESERVED = frozenset({"runs", "measured", "published", "claims", "compare", "bench", "multirun"})
"""Folders of results/ that hold something else than a study."""
NOT_OF_A_RUN = ("data", "engine", "feed", "reuse", "tracking")
"""Settings of a sweep as a whole."""
Values = dict[str, Any]
Contender = tuple[tuple[object, ...], str]  # a loss in a cell: a learning rate and settings are chosen for each


def _search() -> Values:
    return schema.SearchField().model_dump()


@dataclass(frozen=True)
class Study:
    """A named set of runs that answers a question; the fields of conf/study/<name>.yaml.

    ``name`` is its address in results/; ``study`` the file it comes from, ``overrides`` what was asked otherwise.
    ``until`` is empty, or ``decided``: seeds are added to undecided comparisons up to ``max_seeds``.
    """

    name: str
    question: str
    axes: Mapping[str, list[Any]]
    baseline: str = "cross_entropy"
    metric: str = "test.top1"
    margin: float = 0.005
    track: str = "fixed"
    base: Mapping[str, Any] = field(default_factory=dict)
    include: list[Values] = field(default_factory=list)
    exclude: list[Values] = field(default_factory=list)
    exhibits: list[str] = field(default_factory=list)
    recipes: list[Mapping[str, Values]] = field(default_factory=list)
    controls: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=_search)
    until: str = ""
    max_seeds: int | None = None
    study: str = ""
    overrides: list[str] = field(default_factory=list)

    @property
    def seeds(self) -> list[int]:
        """The seeds on which losses are compared."""
        return [int(seed) for seed in self.axes["seed"]]

    @property
    def unused_seeds(self) -> list[int]:
        """All other seeds: those after the greatest, then the least that are free."""
        greatest = max(self.seeds)
        return [*range(greatest + 1, REPEAT_SEEDS_FROM), *sorted(set(range(greatest)) - set(self.seeds))]

    @property
    def further_seeds(self) -> list[int]:
        """The seeds that may be added to undecided comparisons, in this order; none without ``until=decided``."""
        return self.unused_seeds[: (self.max_seeds or 0) - len(self.seeds)] if self.until else []

    def on(self, seeds: Iterable[int]) -> Study:
        """Return the same study on other seeds."""
        return replace(self, axes={**self.axes, "seed": list(seeds)})


@dataclass(frozen=True)
class Setting:
    """Everything of some runs but the seed: what is compared with what, and in which role.

    ``pinned`` are the loss's settings that the study itself gives, which no search may move.
    """

    choices: dict[str, str]
    label: str
    axes: Values
    role: str
    spec: RunSpec
    hash: str
    pinned: frozenset[str] = frozenset()

    @property
    def contender(self) -> Contender:
        """The loss in its cell: its learning rate and settings are chosen once for all seeds.

        The repeated baseline is a contender of its own, so that this control sees the noise of searching.
        """
        return (self.cell, f"{self.label} repeated" if self.role == "baseline_repeat" else self.label)

    @property
    def cell(self) -> tuple[object, ...]:
        """Data, model and further axes: within a cell runs are compared, seed by seed."""
        return (self.choices["dataset"], self.choices["model"], *(str(value) for value in self.axes.values()))

    def at(self, values: Mapping[str, Any]) -> Setting:
        """Return the same setting with other values, by dotted path, such as ``optimizer.lr`` and ``loss.gamma``."""
        spec = self.spec.at(values)
        return replace(self, spec=spec, hash=address.setting_hash(spec)) if values else self


@dataclass(frozen=True)
class Run:
    """One training: a setting and a seed, named by its key."""

    key: str
    setting: Setting
    seed: int
    pair_seed: int


def read_study(name: str, overrides: Iterable[str] = ()) -> Study:
    """Read conf/study/<name>.yaml and apply ``axes.KEY=[...]``, ``base.KEY=VALUE`` and ``FIELD=VALUE`` overrides.

    Raises:
        UsageError: unknown study or field, or a value that does not fit.
    """
    content: dict[str, Any] = compose.read_option("study", name)
    known = {entry.name for entry in fields(Study)} - {"study", "overrides"}
    overrides = list(overrides)
    given = list(map(parsed, overrides))
    for path, value in given:
        part, _, key = path.partition(".")
        if part not in known:
            raise unknown("field of a study", part, [*known, "study", "plan_only", *NOT_OF_A_RUN])
        before = content.get(part, _default(part))
        if key and not isinstance(before, Mapping):
            raise UsageError(f"{path}: {part} is a single value, so write {part}=VALUE.")
        content[part] = {**before, key: value} if key else value
    for part in content.keys() - known:
        raise unknown(f"field of the study {name}", part, known)
    schema.check_study(name, content)
    content["search"] = _search() | content.get("search", {})
    own = str(content.pop("name", name))
    own = checked_name(own) if "name" in dict(given) else _default_name(own, overrides)
    study = _checked(Study(name=own, study=name, overrides=overrides, **content))
    _check_track(study, [path for path, _ in given])
    return study


def _default_name(study: str, overrides: Iterable[str]) -> str:
    """Return the address of a sweep: the study's name, with a hash of what was asked otherwise.

    >>> _default_name("demo", []), _default_name("demo", ["axes.seed=[1,2]"])
    ('demo', 'demo-e681de')
    """
    asked = sorted(overrides)
    return f"{study}-{hashlib.sha256(chr(10).join(asked).encode()).hexdigest()[:6]}" if asked else study


def checked_name(name: str) -> str:
    """Return the name that a sweep is to have, if it can name a folder of results/ that is nobody else's."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UsageError(f"name={name} cannot name a folder: use letters, digits, dots and hyphens.")
    if name in RESERVED or name in compose.options("study"):
        raise UsageError(f"name={name} is taken: choose a name that is no study's, nor {', '.join(sorted(RESERVED))}.")
    return name


def _default(part: str) -> Any:
    entry = next(entry for entry in fields(Study) if entry.name == part)
    return entry.default_factory() if callable(entry.default_factory) else {}


def parsed(override: str) -> tuple[str, Any]:
    """Split ``key=value`` with Hydra's own grammar, so that lists, numbers and null mean what they mean there."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed_override = OverridesParser.create().parse_override(override)
        return str(parsed_override.key_or_group), parsed_override.value()
    except HydraException as error:
        key, _, text = override.partition("=")
        if key and text and text[0] not in "[{":  # a label such as "focal gamma=5", or a sentence
            return key, text
        raise UsageError(f"cannot read '{override}': write key=value, and lists as key=[a,b].") from error


def _checked(study: Study) -> Study:
    for name in study.exhibits:
        if name not in exhibits():
            raise unknown("exhibit", name, exhibits())
    if "seed" not in study.axes or not (study.axes.keys() & {"loss", *compose.roles()}):
        raise UsageError(
            f"the study {study.name} needs the axes loss and seed: add axes.loss=[...] and axes.seed=[...]."
        )
    _check_rules(study)
    _check_until(study)
    for seed in study.seeds:
        if seed < 0 or seed >= REPEAT_SEEDS_FROM:
            raise UsageError(f"axes.seed contains {seed}: use seeds from 0 to {REPEAT_SEEDS_FROM - 1}.")
    _check_search(study)
    return study


def _check_rules(study: Study) -> None:
    """Raise a UsageError if an axis lists a value twice, or something is set or asked that reaches no run."""
    for key, values in study.axes.items():
        if twice := [value for number, value in enumerate(values) if value in values[:number]]:
            raise UsageError(f"axes.{key}={schema.shown(values)} has {schema.shown(twice[0])} twice: leave one out.")
    for part, entries in {"base": [study.base], "axes": [study.axes], "recipes": _set(study)}.items():
        for path in (path for entry in entries for path in entry):
            if path.partition(".")[0] in NOT_OF_A_RUN or (path == "seed" and part != "axes"):
                instead = "axes.seed=[...]" if path == "seed" else f"{path}=..."
                raise UsageError(f"{part}.{path} has no effect: it is no setting of single runs, write {instead}.")
    crossed = {*study.axes, *(key for entry in study.include for key in entry)}
    rules = [("exclude", rule, {*study.axes, *(GROUPS if "seed" in rule else ())}) for rule in study.exclude]
    rules += [("recipes", rule["when"], {*crossed, *GROUPS}) for rule in study.recipes]
    for part, rule, known in rules:
        for key, value in rule.items():
            if key not in known:
                raise unknown(f"axis in {part}", key, known)
            for name in (value if isinstance(value, list) else [value]) if key in GROUPS else []:
                if str(name) not in compose.options(key):
                    raise unknown(f"{key} in {part}", name, compose.options(key))


def exhibits() -> list[str]:
    """Return the names of all exhibits that a study may ask for: modules of harness/report/exhibits with a section."""
    folder = ROOT / "harness" / "report" / "exhibits"
    return sorted(path.stem for path in folder.glob("[a-z]*.py") if "\ndef section(" in path.read_text())


def _check_until(study: Study) -> None:
    most, given = study.max_seeds, len(study.seeds)
    if not study.until and most is not None:
        raise UsageError(f"max_seeds={most} is for until=decided: add that, or give the seeds themselves in axes.seed.")
    if study.until and (most is None or most < given):
        raise UsageError(
            f"until=decided needs max_seeds, at least as many as the seeds given ({given}), but it is "
            f"{schema.shown(most)}: write max_seeds={max(24, 2 * given)}, for example."
        )


def _check_search(study: Study) -> None:
    search = study.search
    compared = [*study.seeds, *study.further_seeds]
    following = range(max(search["seeds"]), max(search["seeds"]) + 1 + search["most_seeds"] - len(search["seeds"]))
    searched = {*search["seeds"], *following}
    if searched & {seed + more for seed in compared for more in (0, REPEAT_SEEDS_FROM)}:
        raise UsageError(
            f"search.seeds (up to search.most_seeds) and axes.seed share a seed (the control runs on seed + "
            f"{REPEAT_SEEDS_FROM}): what is searched is chosen on seeds outside the study."
        )
    if searched & {seed + REPEAT_SEEDS_FROM for seed in searched}:
        raise UsageError(
            f"search.seeds contains a seed and that seed + {REPEAT_SEEDS_FROM}, on which the control is searched: "
            "leave one of them out."
        )
    if not search["range"][0] < 1 < search["range"][1]:
        raise UsageError(
            f"search.range={search['range']} is not [low,high] with 1 between them: learning rates are searched "
            "from low to high times the model's own."
        )


def _check_track(study: Study, given: Iterable[str]) -> None:
    """Refuse what was asked of a search that another track does."""
    for part, _, key in (path.partition(".") for path in given):
        if part == "search" and key and key not in SEARCH[study.track]:
            tracks = " and ".join(f"track={track}" for track, keys in SEARCH.items() if key in keys)
            raise UsageError(f"search.{key} is for {tracks}, but the track of this study is {study.track}.")


def settings(study: Study) -> list[Setting]:
    """Return every distinct setting of the study, controls included, as on track ``fixed``.

    Raises:
        UsageError: an axis names something that does not exist, or the baseline is not among the losses.
    """
    groups = {key: value for key, value in study.base.items() if key in GROUPS}
    base = compose.compose_run([f"{key}={_listed(value)}" for key, value in groups.items()])
    fixed = {key: value for key, value in study.base.items() if key not in GROUPS}
    crossed = [(values, _composed(base, fixed, values, study)) for values in _combinations(study)]
    _refuse_without_effect([run for _, (run, _) in crossed], study)
    planned = [_setting(*composed, values, "run") for values, composed in crossed]
    labels = {setting.label for setting in planned}
    if study.baseline not in labels:
        raise UsageError(
            f"baseline={study.baseline} is not among the losses of the study: {', '.join(sorted(labels))}."
        )
    baselines = [setting for setting in planned if setting.label == study.baseline]
    if study.controls.get("baseline_repeat", True):
        planned += [replace(setting, role="baseline_repeat") for setting in baselines]
    if worse := _negative_control(study, base.config):
        swapped = (
            {key: value for key, value in values.items() if not key.startswith("loss")} | worse
            for values in _combinations(study)
            if _label(values) == study.baseline
        )
        planned += [_setting(*_composed(base, fixed, values, study), values, "negative_control") for values in swapped]
    return list({(setting.cell, setting.label, setting.role): setting for setting in planned}.values())


def _refuse_without_effect(planned: Sequence[Composed], study: Study) -> None:
    """Raise a UsageError if what the study sets has no effect in any of its runs."""
    given = {*study.base, *study.axes, *(key for rule in (*study.include, *_set(study)) for key in rule)}
    found = [schema.without_effect(run.config, given) for run in planned]
    everywhere = set.intersection(*(set(each) for each in found)) if found else set()
    schema.refuse_without_effect({path: found[0][path] for path in sorted(everywhere)})


def _set(study: Study) -> list[Values]:
    return [rule["set"] for rule in study.recipes]


def _negative_control(study: Study, config: compose.Config) -> Values:
    """Return the loss that must be found to be worse, by the key of its axis: the study's, else the task's own."""
    asked = study.controls.get("negative_control", True)
    named = config.get("negative_control") if asked is True else asked
    if not named:
        return {}
    return {f"loss.{role}": name for role, name in named.items()} if isinstance(named, Mapping) else {"loss": named}


def _listed(value: object) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


def _combinations(study: Study) -> Iterator[Values]:
    crossed = {key: values for key, values in study.axes.items() if key != "seed"}
    for values in _product(crossed):
        if not any(_matches(rule, values) for rule in study.exclude if "seed" not in rule):
            yield values
    for extra in study.include:
        rest = {key: values for key, values in crossed.items() if key not in extra}
        for values in _product(rest):
            yield values | extra


def _product(axes: Mapping[str, list[Any]]) -> Iterator[Values]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _matches(rule: Values, values: Values) -> bool:
    return all(
        values.get(key) == wanted or (isinstance(wanted, list) and values.get(key) in wanted)
        for key, wanted in rule.items()
    )


def _label(values: Values) -> str:
    """Return what the study calls a loss: its name, or those of its roles, with the settings that are crossed."""
    roles = {key.removeprefix("loss."): value for key, value in values.items() if key in compose.roles()}
    named = next(iter(roles.values())) if len(roles) == 1 else ", ".join(f"{k}={v}" for k, v in roles.items())
    details = ", ".join(
        f"{key.removeprefix('loss.')}={value}"
        for key, value in values.items()
        if key.startswith("loss.") and key not in compose.roles()
    )
    return f"{values.get('loss', named)} {details}".strip()


def _composed(base: Composed, fixed: Values, values: Values, study: Study) -> tuple[Composed, frozenset[str]]:
    """Return the run of a combination, and which settings of its loss the study gives."""
    recipe: Values = {}
    for rule in study.recipes:
        if _matches(rule["when"], base.choices | values):
            recipe |= rule["set"]
    given = fixed | recipe | values
    return compose.swapped(base, given), frozenset(key for key in given if key.startswith("loss."))


def _setting(run: Composed, pinned: frozenset[str], values: Values, role: str) -> Setting:
    spec = address.spec_of(run.config)
    axes = {
        key: value
        for key, value in values.items()
        if key not in ("loss", "model", "dataset") and not key.startswith("loss.")
    }
    choices = compose.with_model_called(run.choices, run.config)
    return Setting(choices, _label(values), axes, role, spec, address.setting_hash(spec), pinned)


def runs(
    settings: Iterable[Setting],
    study: Study,
    addresses: Addresses,
    chosen: Mapping[Contender, Values] | None = None,
) -> list[Run]:
    """Return the runs to compare, each setting with every seed, at what was ``chosen`` for its loss.

    Seeds come one after the other, so that a sweep that is stopped has compared whole blocks.
    """
    planned: dict[tuple[str, str], Run] = {}
    for setting in settings:
        at = setting.at(chosen[setting.contender]) if chosen else setting
        seeds = [seed + REPEAT_SEEDS_FROM * (setting.role == "baseline_repeat") for seed in study.seeds]
        values = at.choices | {"model": compose.model_option(at.choices["model"])} | at.axes
        for key, seed, pair in zip(addresses.keys(at.spec, seeds), seeds, study.seeds, strict=True):
            if not any(_matches(rule, values | {"seed": pair}) for rule in study.exclude if "seed" in rule):
                planned.setdefault((key, setting.role), Run(key, at, seed, pair))
    order = {seed: index for index, seed in enumerate(study.seeds)}
    return sorted(planned.values(), key=lambda run: order[run.pair_seed])


def as_dict(study: Study) -> dict[str, Any]:
    """Return the study as plain data, as it is written to results/<study>/study.json."""
    return asdict(study)
