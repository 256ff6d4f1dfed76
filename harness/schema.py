"""The schema of all settings: what each may be, checked when a run is composed, before anything starts.

Which settings there are, and what each is by default, stands in conf/. What each may be stands here, by config group
and name; the signature of what an option builds says it of those that are not named here, and where that says nothing
(settings that are passed on), the default does.
"""

from __future__ import annotations

import ast
import functools
import json
import operator
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from harness.code import Code
from harness.errors import UsageError, unknown

Schema = Mapping[str, Any]
Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
Amount = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
SomeShare = Annotated[Number, Field(gt=0, le=1)]
PartShare = Annotated[Number, Field(ge=0, lt=1)]
Part = Annotated[Number, Field(gt=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
Level = Annotated[int, Field(ge=0, le=255)]
Size = Annotated[list[Count], Field(min_length=2, max_length=2)]
CountOrNull = Count | None
IndexOrNull = Index | None
TextOrNull = Text | None
AmountOrNull = Amount | None
PositiveOrNull = Positive | None
CellsOrNull = Annotated[list[Count], Field(min_length=1)] | None
SizeOrNull = Size | None
ThreeCounts = Annotated[list[Count], Field(min_length=3, max_length=3)]
TwoShares = Annotated[list[SomeShare], Field(min_length=2, max_length=2)]
RangeOrNull = Annotated[list[Number], Field(min_length=2, max_length=2)] | None
NamesOrNull = Annotated[list[Text], Field(min_length=1)] | None
TwoNamesOrNull = Annotated[list[Text], Field(min_length=2)] | None
ColoursOrNull = dict[str, Level | Annotated[list[Level], Field(min_length=3, max_length=3)]] | None
CountOrPart = Count | Part | None
Precision = Literal["bf16", "fp32"]
PrecisionOrNull = Precision | None
Network = Literal["cnn", "transformer", "mlp"]


class Strict(BaseModel):
    """Settings that are what they are written as: no text is a number or a truth value, and no other name is known."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Data(Strict):
    """Where data sets lie."""

    root: Text = Field(description="folder of data sets")
    download: bool = Field(description="whether a missing data set is fetched, where it can be")


class Tracking(Strict):
    """The mirrors of what runs leave."""

    enabled: bool = Field(description="whether runs are mirrored")
    mirrors: Annotated[list[Literal["mlflow", "tensorboard", "wandb"]], Field(min_length=1)] = Field(
        description="to what: mlflow, tensorboard, wandb"
    )
    uri: Text | None = Field(description="MLflow's store; null: MLFLOW_TRACKING_URI, or the database in results/")


class Augment(Strict):
    """How training images are varied."""

    zoom: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = None
    flip: bool = False
    colour: Share = 0.0
    foreground: Share = 0.0
    visible: Share | None = None
    shift: Index = 0
    cutout: Index = 0


RUN: dict[str, Any] = {
    "seed": Annotated[int, Field(ge=0, description="of initial weights, order, augmentation, and splits by seed")],
    "device": Annotated[Literal["auto", "cpu", "cuda"], Field(description="auto: a GPU where there is one")],
    "threads": Annotated[int, Field(ge=1, description="CPU threads of a run; part of its identity on a CPU")],
    "data": Data,
    "reuse": bool,
    "tracking": Tracking,
}
"""Settings of a run outside of config groups."""
GROUPS: dict[str, dict[str, Any]] = {
    "trainer": {
        "epochs": Count,
        "batch_size": Count,
        "eval_batch_size": Count,
        "schedule": Literal["cosine", "constant", "plateau"],
        "patience": Count,
        "warmup": Share,
        "clip_norm": PositiveOrNull,
        "precision": PrecisionOrNull,
        "select": Literal["best_valid", "last"],
        "probe": bool,
    },
    "optimizer": {
        "lr": PositiveOrNull,
        "weight_decay": Amount,
        "momentum": PartShare,
        "betas": Annotated[list[PartShare], Field(min_length=2, max_length=2)],
    },
    "stress": {
        "rate": PartShare,
        "kind": Literal["symmetric", "next"],
        "ratio": Annotated[Number, Field(ge=1)],
        "profile": Literal["tail", "step"],
        "share": SomeShare,
        "outliers": PartShare,
        "seed": Index,
    },
    "shift": {"size": Share},
    "feed": {"workers": Count, "prefetch": Count},
    "engine": {
        "workers": CountOrNull,
        "per_device": Count,
        "checkpoint_seconds": Amount,
        "retries": Index,
        "timeout": PositiveOrNull,
        "partition": TextOrNull,
        "time": Annotated[int, Field(ge=5)],
        "gpus": IndexOrNull,
        "cores": CountOrNull,
        "setup": list[Text],
        "options": dict[Text, Text | bool | Number] | None,
        "address": TextOrNull,
    },
    "task": {
        "critic_steps": Count,
        "passes": Count,
        "samples": Annotated[int, Field(ge=2)],
        "weights": dict[str, Amount],
        "nms": Share,
        "assignment": Literal["atss", "centre", "task_aligned"],
        "balance": Literal["gradient", "fixed"],
        "steps": Annotated[int, Field(ge=2)],
        "predicts": Literal["noise", "image"],
        "sampler": Literal["balanced", "shuffled"],
        "images_per_class": Count,
        "dimension": CountOrNull,
        "normalise": bool,
        "views": Literal[1, 2],
        "crop": SizeOrNull,
        "overlap": PartShare,
        "scales": Annotated[list[Positive], Field(min_length=1)],
        "mirror": bool,
        "mixup": Amount,
        "cutmix": Amount,
    },
    "dataset": {
        "train_size": CountOrNull,
        "valid_size": CountOrNull,
        "test_size": CountOrNull,
        "split_seed": Index,
        "split": Literal["fixed", "by_seed"],
        "damaged": Literal["stop", "skip"],
        "fit": Literal["pad", "stretch"],
        "augment": Augment,
        "path": Text,
        "target": Text,
        "outliers": Share,
        "outlier_size": Amount,
        "crop": Count,
        "digits": Annotated[list[Annotated[int, Field(ge=0, le=9)]], Field(min_length=1)],
        "images_per_class": Count,
        "valid_alphabets": Count,
        "test_alphabets": CountOrNull,
        "channels": Literal[1, 3],
        "void": list[Index],
    },
    "model": {
        "lr": Positive,
        "precision": Precision,
        "network": Network,
        "layer_scale": PositiveOrNull,
        "mlp_ratio": Positive,
        "position_std": Positive,
        "pool": Literal["avg", "token"],
    },
    "loss": {},
}
"""By config group and name."""
MISSING = "???"
"""What a yaml has where a value must be given."""
BY_NAME: dict[str, Any] = {"network": Network | None, "arguments": dict[str, Any] | None}
"""Settings of models that another library makes, or a builder of one's own."""
OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("engine", "slurm"): {"workers": Count},
    **{
        ("dataset", name): {
            "separator": Literal[",", ";", "|", "tab"] | None,
            "decimal": Literal[".", ","] | None,
            "header": bool | None,
            "encoding": TextOrNull,
            "missing": Literal["stop", "drop", "fill"],
            "missing_words": list[Text],
            "drop": list[Text],
            "keep": list[Text],
            "group": TextOrNull,
            "valid_size": CountOrPart,
            "test_size": CountOrPart,
        }
        for name in ("table", "labelled_table")
    },
    **{
        ("model", name): BY_NAME
        for name in ("timm", "torchvision", "smp", "torchvision_segmentation", "torchvision_detector", "own")
    },
    ("model", "timm_detector"): BY_NAME | {"cells": CellsOrNull},
    ("dataset", "folder"): {
        "images": TextOrNull,
        "masks_in": TextOrNull,
        "mask_suffix": TextOrNull,
        "group": TextOrNull,
        "classes": TwoNamesOrNull,
        "colours": ColoursOrNull,
        "tolerance": AmountOrNull,
        "valid_size": CountOrPart,
        "test_size": CountOrPart,
    },
    ("dataset", "boxes"): {
        "group": TextOrNull,
        "classes": NamesOrNull,
        "valid_size": CountOrPart,
        "test_size": CountOrPart,
    },
    ("dataset", "cifar10n"): {"labels": Literal["worse", "aggre", "random1", "random2", "random3"]},
    ("dataset", "coco"): {"annotations": Literal["panoptic", "stuff"]},
    ("dataset", "voc"): {"training_list": Literal["official", "augmented"]},
    ("dataset", "voc_boxes"): {"lists": Literal["voc2012", "voc2007", "voc0712"]},
    ("dataset", "crowded_scenes"): {"objects": Size, "sides": Size, "overlap": Share},
    ("dataset", "rotated_scenes"): {"objects": Size, "sides": Size, "narrowness": TwoShares},
    ("dataset", "two_digits"): {"classes": ThreeCounts},
    ("dataset", "glyphs"): {"classes": ThreeCounts, "size": Annotated[int, Field(ge=8)], "shake": Amount},
    ("dataset", "cifar100_by_class"): {"classes": ThreeCounts},
}
"""Of single options, where they differ from the rest of their group."""
TARGETS: dict[str, dict[str, Any]] = {
    "datasets.sources.images.images": {
        "size": SizeOrNull,
        "range": RangeOrNull,
        "duplicates": Literal["warn", "drop", "allow"],
        "valid_size": CountOrPart,
        "test_size": CountOrPart,
    },
    "datasets.sources.named.named": {"size": Size, "valid_size": CountOrPart, "test_size": CountOrPart},
}
"""Of all options with this ``_target_``."""


class SearchField(Strict):
    """How learning rates and settings are searched."""

    factors: Annotated[list[Positive], Field(min_length=1)] = Field(
        default=[0.3, 1.0, 3.0], description="track=lr: learning rates tried, as multiples of the model's own"
    )
    trials: Count = Field(default=12, description="track=tuned: how many combinations are tried")
    range: Annotated[list[Positive], Field(min_length=2, max_length=2)] = Field(
        default=[0.1, 10.0], description="track=tuned: learning rates from and to, as multiples of the model's own"
    )
    most: Index = Field(
        default=3, description="how often the range may grow on each side while the best rate is the outermost"
    )
    seeds: Annotated[list[Count], Field(min_length=1)] = Field(
        default=[7001, 7002, 7003], description="seeds of trials, none of them a seed that is compared"
    )
    most_seeds: Annotated[int, Field(ge=1, lt=1000)] = Field(
        default=8, description="seeds of trials at most, where rates cannot be told apart"
    )


class ControlsField(Strict):
    """Which controls a study has."""

    baseline_repeat: bool = Field(default=True, description="whether the baseline runs again with other seeds")
    negative_control: bool | Text | dict[str, Text] | None = Field(
        default=True,
        description="the loss that must be found to be worse, by role if there are several; true: the task's own",
    )


class Recipe(Strict):
    """Settings of some of a study's runs."""

    when: dict[str, Any]
    set: dict[str, Any]


class StudyFile(Strict):
    """A file of conf/study/: the fields of a study."""

    name: Text = Field("", description="folder of its results; by default the file's name")
    question: Text = Field(description="what it is to answer, the title of its report")
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        description="what is crossed: loss, seed, and any of model, dataset, other groups and settings"
    )
    baseline: Text = Field("cross_entropy", description="the loss that all others are compared with")
    metric: Annotated[str, Field(pattern=r"^(test|shifted\.\w+)\.\w+$")] = Field(
        "test.top1", description="what is compared"
    )
    margin: Amount = Field(0.005, description="what is too small to matter, in the metric's unit")
    track: Literal["fixed", "lr", "tuned"] = Field(
        "fixed", description="what is searched for every loss: nothing, the learning rate, or its own settings too"
    )
    base: dict[str, Any] = Field({}, description="options and settings of every run")
    include: list[dict[str, Any]] = Field([], description="further combinations of the axes, with other values")
    exclude: list[dict[str, Any]] = Field([], description="combinations to leave out")
    exhibits: list[Text] = Field([], description="tables and figures of publications to reproduce in the report")
    recipes: list[Recipe] = Field([], description="settings (set) of the runs that match (when)")
    controls: ControlsField = Field(ControlsField(), description="its controls")
    search: SearchField = Field(SearchField(), description="how the track searches")
    until: Literal["", "decided"] = Field("", description="decided: seeds are added to what is not decided")
    max_seeds: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="seeds at most, with until=decided"
    )


OPEN = ("additionalProperties",)
"""Where a JSON schema says what values of any name may be."""


# ---------------------------------------------------------------- without effect

Group = Mapping[str, Any]
NO_EFFECT: tuple[tuple[str, str, Callable[[Group], bool]], ...] = (
    ("trainer.patience", "trainer.schedule=plateau", lambda trainer: trainer.get("schedule") == "plateau"),
    ("task.images_per_class", "task.sampler=balanced", lambda task: task.get("sampler") == "balanced"),
    ("task.overlap", "a task.crop", lambda task: task.get("crop") is not None),
    ("dataset.tolerance", "dataset.colours", lambda dataset: bool(dataset.get("colours"))),
    ("dataset.outlier_size", "dataset.outliers above 0", lambda dataset: bool(dataset.get("outliers"))),
    ("model.weights", "model.pretrained=true", lambda model: bool(model.get("pretrained"))),
    ("stress.kind", "stress.rate above 0", lambda stress: bool(stress.get("rate"))),
    ("stress.profile", "stress.ratio above 1", lambda stress: stress.get("ratio", 1) != 1),
    ("stress.outliers", "stress.ratio above 1", lambda stress: stress.get("ratio", 1) != 1),
    ("stress.seed", "a stress that changes something", lambda stress: not neutral(stress)),
    ("tracking.uri", "tracking.enabled=true", lambda tracking: bool(tracking.get("enabled"))),
    (
        "engine.per_device",
        "engine.workers=null",
        lambda engine: engine.get("workers") is None or not {"address", "partition"}.isdisjoint(engine),
    ),
    ("tracking.mirrors", "tracking.enabled=true", lambda tracking: bool(tracking.get("enabled"))),
)
"""Settings that matter under a condition only: path, the condition in words, and whether their group meets it."""
OVERRULED = {"model.lr": "optimizer.lr", "model.precision": "trainer.precision"}
"""Settings of a model that matter only where the other is null."""
NEUTRAL = {"rate": 0, "ratio": 1, "share": 1}
"""Sizes at which a stress changes nothing."""


def neutral(stress: Group) -> bool:
    """Return whether a stress changes nothing."""
    return not stress or any(stress.get(key) == value for key, value in NEUTRAL.items())


def without_effect(config: Mapping[str, Any], given: Iterable[str]) -> dict[str, str]:
    """Return which of the settings ``given`` have no effect in a composed run, and the condition that each wants."""
    given = set(given)
    of_group = ((path, wanted, met, config.get(path.partition(".")[0]) or {}) for path, wanted, met in NO_EFFECT)
    found = {path: wanted for path, wanted, met, group in of_group if path in given and not met(group)}
    for path in OVERRULED.keys() & given:
        group, _, name = OVERRULED[path].partition(".")
        if config[group][name] is not None:
            found[path] = f"{OVERRULED[path]}=null"
    weights = config.get("task", {}).get("weights") or {}
    for role in (role for role in config.get("loss", {}) if weights.get(role, 1) == 0):
        of_role = (path for path in given if path == f"loss.{role}" or path.startswith(f"loss.{role}."))
        found |= dict.fromkeys(of_role, f"task.weights.{role} above 0")
    return found


def refuse_without_effect(found: Mapping[str, str]) -> None:
    """Raise a UsageError if there is a setting without effect."""
    for path, wanted in found.items():
        raise UsageError(f"{path} has no effect here: it is for {wanted}. Add that, or leave {path} out.")


# ---------------------------------------------------------------- checking


def check_group(
    group: str, option: str, content: Mapping[str, Any], default: Mapping[str, Any], path: str = ""
) -> None:
    """Raise a UsageError unless every setting of a config group's option is what it may be.

    Where another ``_target_`` takes the place of the option's own, its parameters are settings too.

    Args:
        group, option: such as ``trainer`` and ``short``.
        content: the settings, as composed.
        default: those of the option's own file.
        path: what settings are called after; the group's name by default.
    """
    target = content.get("_target_")
    if target == MISSING:
        raise UsageError(f"{path or group}={option} needs a builder: {group}._target_=MODULE.FUNCTION.")
    if target != default.get("_target_"):
        more = _code().signature(str(target)) or {}
        default = {**default, "_target_": target} | {name: content[name] for name in more if name in content}
    _check(_group_model(group, option, json.dumps(default)), path or group, content)


def of_group(group: str, option: str, default: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a config group's option whose file holds ``default``."""
    found = _group_model(group, option, json.dumps(default)).model_json_schema()
    for part in (found, *found.get("$defs", {}).values()):
        part.pop("required", None)  # a file may leave to its defaults list what it does not change
    return found


def of_run(name: str) -> dict[str, Any]:
    """Return the JSON schema of a setting outside of config groups, such as ``data``."""
    return _run_model(name).model_json_schema()


def check_run(config: Mapping[str, Any]) -> None:
    """Raise a UsageError unless every setting outside of config groups is what it may be; absent ones are fine."""
    for name in RUN.keys() & config.keys():
        _check(_run_model(name), "", {name: config[name]})


def check_study(name: str, content: Mapping[str, Any]) -> None:
    """Raise a UsageError unless every field of a study is what it may be.

    Args:
        name: of the study, for messages.
        content: its fields.
    """
    try:
        _check(StudyFile, "", content)
    except UsageError as error:
        raise UsageError(f"study {name}: {error}") from error
    seeds = content["axes"].get("seed", [])
    if any(type(seed) is not int or not 0 <= seed < 1000 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UsageError(f"axes.seed={shown(seeds)}: use a list of different whole numbers from 0 to 999.")


def _check(model: type[BaseModel], path: str, content: Mapping[str, Any]) -> None:
    try:
        model.model_validate(content)
    except ValidationError as error:
        raise _usage(model, path, content, error) from error


@functools.cache
def _run_model(name: str) -> type[BaseModel]:
    fields: dict[str, Any] = {name: (RUN[name], ...)}
    return create_model(name, __base__=Strict, **fields)


@functools.cache
def _group_model(group: str, option: str, default: str) -> type[BaseModel]:
    """Return the model of an option whose file holds ``default``, as JSON."""
    content = json.loads(default)
    of_target = TARGETS.get(content.get("_target_", ""), {})
    return _model_of(f"{group}_{option}", content, GROUPS.get(group, {}) | of_target | OPTIONS.get((group, option), {}))


def _model_of(name: str, default: Mapping[str, Any], known: Mapping[str, Any]) -> type[BaseModel]:
    config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())
    declared = _code().signature(str(default.get("_target_", ""))) or {}
    fields: dict[str, Any] = {}
    for key, value in default.items():
        if key == "_target_":
            fields["hidden_target"] = (Annotated[str, AfterValidator(_existing)], Field(alias=key))
        elif key.startswith("_"):
            fields[f"hidden{key}"] = (type(value), Field(alias=key))
        else:
            inner = f"{name}_{key}"
            annotated = key in declared and _type_of_annotation(declared[key], _whole(inner, value))
            fields[key] = (known.get(key) or annotated or _type_of(inner, value), ...)
    return create_model(name, __config__=config, **fields)


@functools.cache
def _code() -> Code:
    return Code()


def _existing(target: str) -> str:
    if target.partition(".")[0] in sys.stdlib_module_names or not _code().exists(target):
        raise ValueError("nothing of that name can be built")
    return target


def _whole(name: str, default: Any) -> Any:
    """Return the type of whole numbers: those of models and data sets are sizes, unless the default is none."""
    sizes = name.startswith(("model_", "dataset_")) and not (isinstance(default, int) and default < 1)
    return Count if sizes else int


def _type_of_annotation(node: ast.expr, whole: Any) -> Any:
    """Return the type that an annotation stands for in a config; None where it says nothing, or no config can hold it.

    Args:
        node: the annotation.
        whole: the type of whole numbers.
    """
    match node:
        case ast.Constant(value=None):
            return type(None)
        case ast.Name(id=name):
            return {"int": whole, "float": Number, "bool": bool, "str": str}.get(name)
        case ast.BinOp(op=ast.BitOr()):
            parts = [
                part for part in (node.left, node.right) if not (isinstance(part, ast.Name) and part.id == "Tensor")
            ]
            kinds = [_type_of_annotation(part, whole) for part in parts]
            return None if None in kinds else functools.reduce(operator.or_, kinds)
        case ast.Subscript(value=ast.Name(id="Literal")):
            return Literal[ast.literal_eval(node.slice)]
        case ast.Subscript(value=ast.Name(id="Sequence" | "list")):
            inner = _type_of_annotation(node.slice, whole)
            return None if inner is None else Annotated[list[inner], Field(min_length=1)]
    return None


def _type_of(name: str, default: Any) -> Any:
    """Return the type of a setting by its default; of one that is open (null), anything."""
    if isinstance(default, bool):
        return bool
    if isinstance(default, int) and _whole(name, default) is Count:
        return Count
    if isinstance(default, list) and name.endswith("_size"):
        return Size
    if isinstance(default, int | float):
        return Number
    if isinstance(default, str):
        return str
    if isinstance(default, list) and default and not isinstance(default[0], dict):
        kinds = {_type_of(name, value) for value in default}
        return Annotated[list[kinds.pop()], Field(min_length=1)] if len(kinds) == 1 else list[Any]
    if isinstance(default, Mapping) and default:
        return _model_of(name, default, {})
    return Any


def _usage(model: type[BaseModel], path: str, content: Mapping[str, Any], error: ValidationError) -> UsageError:
    """Return the first thing that is wrong as one sentence, with the value and what is allowed."""
    found = error.errors(include_url=False)[0]
    names: list[str] = []
    whole: Schema = model.model_json_schema()
    schema, value = whole, content
    for part in found["loc"]:
        # a branch of a union ("int"), or a place in a list: the setting as a whole says more
        if not isinstance(value, Mapping) or part not in value or not schema.keys() & {"properties", *OPEN}:
            break
        names.append(str(part))
        value = value[str(part)]
        schema = _below(schema, part, whole)
    full = ".".join(filter(None, [path, *names]))
    if found["type"] == "extra_forbidden":
        siblings = _last(whole, found["loc"][:-1]).get("properties", {})
        known = [name for name in siblings if not name.startswith("_")]
        parents = [path, *names[:-1]]
        return unknown("setting", full, [".".join(filter(None, [*parents, name])) for name in known])
    if found["type"] == "missing":
        missing = ".".join(filter(None, [path, *map(str, found["loc"])]))
        return UsageError(f"{missing} is missing: give it {words(_last(whole, found['loc']), whole)}.")
    if found["type"] == "value_error":
        return UsageError(f"{full}={shown(value)}: {found.get('ctx', {}).get('error')}.")
    if choices := _choices(schema):
        return unknown(full, shown(value), map(shown, choices))
    return UsageError(f"{full}={shown(value)}: use {words(schema, whole)}.")


def _resolved(schema: Schema, whole: Schema) -> Schema:
    if "$ref" in schema:
        return whole["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _below(schema: Schema, part: Any, whole: Schema) -> Schema:
    """Return the schema of a setting within another: by name, or of what is listed there."""
    inner = schema.get("items") if isinstance(part, int) else schema.get("properties", {}).get(part)
    inner = inner or next((schema[key] for key in OPEN if isinstance(schema.get(key), Mapping)), {})
    return _resolved(inner, whole)


def _last(whole: Schema, loc: Sequence[Any]) -> Schema:
    return functools.reduce(lambda schema, part: _below(schema, part, whole), loc, whole)


def _choices(schema: Schema) -> list[Any]:
    """Return the values of a setting that has a few; none for others."""
    if "anyOf" in schema:
        parts = [_choices(part) or ([None] if part.get("type") == "null" else []) for part in schema["anyOf"]]
        return [value for part in parts for value in part] if all(parts) and any(map(any, parts)) else []
    return list(schema.get("enum", [schema["const"]] if "const" in schema else []))


# ---------------------------------------------------------------- in words


def shown(value: Any) -> str:
    """Return a value as it is written on the command line.

    >>> shown([1, None, {"a": True}])
    '[1,null,{a:true}]'
    """
    if value == "":
        return '""'
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{shown(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(shown, value)) + "]"
    return str(value)


def words(schema: Schema, whole: Schema) -> str:
    """Return in words what a JSON schema allows.

    Args:
        schema: of one setting.
        whole: what its references refer to.

    >>> words({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}, {})
    'a whole number from 1 on, or null'
    """
    schema = _resolved(schema, whole)
    if choices := _choices(schema):
        return " or ".join(map(shown, choices))
    if "anyOf" in schema:
        parts = [words(part, whole) for part in schema["anyOf"]]
        return ", or ".join(dict.fromkeys(parts))
    kind = schema.get("type")
    if kind == "array":
        return _list_words(schema, whole)
    if kind == "object":
        values = schema.get("additionalProperties")
        each = words(values, whole) if isinstance(values, Mapping) and values else ""
        return f"a mapping from names to {each}" if each else "a mapping"
    named = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "null": "null"}
    if kind == "string":
        return "test.NAME or shifted.SHIFT.NAME" if "pattern" in schema else "a text"
    return f"{named[kind]}{_bounds(schema)}" if kind in named else "anything"


def _list_words(schema: Schema, whole: Schema) -> str:
    low, high = schema.get("minItems", 0), schema.get("maxItems")
    each = words(schema.get("items", {}), whole)
    many = each.replace("a whole number", "whole numbers").replace("a number", "numbers").replace("a text", "texts")
    many = many.replace("a mapping", "mappings").replace("a list", "lists").replace("anything", "values")
    many = many.removesuffix(", at least one")
    size = f"{low} " if high == low else f"at least {low} " if low > 1 else ""
    least = ", at least one" if low == 1 and high is None else ""
    return f"a list of {size}{many}{least}"


def _bounds(schema: Schema) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if low is not None and below is not None:
        return f", at least {low:g} and below {below:g}"
    start = f"from {low:g}" if low is not None else f"above {above:g}" if above is not None else ""
    end = f"to {high:g}" if high is not None else f"below {below:g}" if below is not None else ""
    if start and not end:
        return f" {start} on" if low is not None else f" {start}"
    end = end.replace("to ", "at most ") if "above" in start else end
    joined = " and ".join(filter(None, [start, end])) if "above" in start or "below" in end else f"{start} {end}"
    return f" {joined.strip()}" if joined.strip() else ""
