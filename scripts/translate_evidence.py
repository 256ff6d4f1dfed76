"""python -m scripts.translate_evidence: bring evidence published by version 0.1 to today's columns, settings and keys.

Run once, with all data sets at hand (LOSSBENCH_DATA). Every row is planned anew from its study; its configuration is then
compared, value by value, with the one that the row recorded, and nothing is written unless all agree.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import address, behaviour, plan
from harness.address import Addresses
from harness.compose import compose_run
from harness.paths import MEASURED
from harness.records.store import flat

ROLES = {"self": "baseline_repeat", "planted": "negative_control"}
LOSSES = {f"planted_{name}": f"negative_control_{name}" for name in ("worse", "blind", "high")}
AXES = {
    "stress.label_noise": "stress.rate",
    "stress.imbalance_ratio": "stress.ratio",
    "stress.imbalance": "stress.profile",
    "stress.share": "stress.share",
}
SHIFTED = {"noisy": "noise", "attacked": "attack", "blurred": "blur", "faded": "fade"}
MOVED = {
    "datasets.": "datasets.sources.",
    "losses.control.planted_": "losses.negative_controls.negative_control_",
    "losses.lift.": "losses.adapters.",
    "harness.segmenters.": "harness.models.segmentation.",
}
BUILDERS = {
    "wide_resnet": "resnet",
    "mlp": "mlp",
    "cnn": "cnn",
    "vit": "vit",
    "resnet": "resnet",
    "convnext": "convnext",
}
NEW_FIELDS = {"config.trainer._target_", "config.model.network"}


def moved(value: str) -> str:
    """Return a dotted name as it is today."""
    for old, new in MOVED.items():
        if value.startswith(old) and not value.startswith(new):
            return new + value.removeprefix(old)
    if value.startswith("harness.models.") and value.count(".") == 2:
        name = value.rpartition(".")[2]
        return f"harness.models.{BUILDERS[name]}.{name}"
    return value


def plain(value: Any) -> str:
    """Return a value as text that is equal for equal numbers, however they were written."""
    if value is None or value == "":
        return ""
    text = str(value)
    if text in ("True", "False"):
        return text.lower()
    try:
        return f"{float(text):.6g}"
    except ValueError:
        return moved(text)


def main() -> int:
    """Translate every published study; return 1 if a row does not come out as it was."""
    wrong = 0
    (MEASURED / behaviour.NAME).unlink(missing_ok=True)
    for file in sorted(MEASURED.glob("*_history.csv")):
        name = file.stem.removesuffix("_history")
        wrong += translate(name)
    working = MEASURED / "working"
    lines = [line for line in (working / behaviour.NAME).read_text().splitlines() if line]
    (MEASURED / behaviour.NAME).write_text("\n".join(sorted(lines)) + "\n")
    shutil.rmtree(working)
    return int(wrong > 0)


def translate(name: str) -> int:
    """Translate one study; return how many rows differ from what they recorded."""
    with (MEASURED / f"{name}.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    kept = json.loads((MEASURED / f"{name}.json").read_text())
    kept.setdefault("shared", {})
    if not any(str(column).startswith("numerics.") for column in [*rows[0], *kept["shared"]]):
        print(f"{name}: nothing to translate")
        return 0
    study = plan.read_study(name)
    own = {k: v for k, v in kept["base"].items() if k.startswith(("dataset.", "trainer.", "model."))}
    study = replace(study, base={**study.base, **own}, axes={**study.axes, "seed": kept["axes"]["seed"]})
    settings = {_identity(setting): setting for setting in plan.settings(study)}
    root = Path(compose_run().config["data"]["root"])
    addresses = Addresses(root, MEASURED / "working")
    found, keys, wrong = [], {}, 0
    for row in rows:
        whole = {**{k: v for k, v in kept["shared"].items() if k not in row}, **row}
        axes = _axes(name, row)
        role = ROLES.get(row["role"], row["role"])
        label = LOSSES.get(row["label"], row["label"])
        rest = (label, row["dataset"], row["model"], json.dumps(axes, sort_keys=True))
        wanted = ("run", "negative_control") if role == "search" else (role,)
        setting = next((settings[each, *rest] for each in wanted if (each, *rest) in settings), None)
        if setting is None:
            print(f"{name}: not planned: {role} {label} {row['dataset']} {row['model']} {axes}")
            wrong += 1
            continue
        setting = _as_run(setting, whole)
        if problems := _differences(setting.spec, whole):
            print(f"{name} {row['key']}: {problems[:4]}")
            wrong += 1
        key = addresses.keys(setting.spec, [int(row["seed"])])[0]
        keys[row["key"]] = key
        for part in addresses.parts(setting.spec):
            addresses.behaviours.observe(part, {"root": str(root), "download": False})
        found.append(_row(row, whole, setting, role, label, axes, key, addresses))
    if wrong:
        print(f"{name}: {wrong} of {len(rows)} rows differ; nothing was written")
        return wrong
    _write(name, study, found, keys)
    return 0


def _identity(setting: plan.Setting) -> tuple[str, ...]:
    axes = json.dumps({key: plain(value) for key, value in setting.axes.items()}, sort_keys=True)
    return (setting.role, setting.label, setting.choices["dataset"], setting.choices["model"], axes)


def _axes(name: str, row: dict[str, str]) -> dict[str, str]:
    axes = {key.removeprefix("axis."): value for key, value in row.items() if key.startswith("axis.") and value != ""}
    if name == "survey_fashion":
        noisy, rare = float(axes["stress.label_noise"]) > 0, float(axes["stress.imbalance_ratio"]) > 1
        return {"stress": "label_noise" if noisy else "imbalance" if rare else "none"}
    return {AXES.get(key, key): plain(value) for key, value in axes.items()}


def _as_run(setting: plan.Setting, row: dict[str, Any]) -> plan.Setting:
    """Return the setting at what the run's search chose and its machine decided."""
    values: dict[str, Any] = {
        "optimizer.lr": float(row["config.optimizer.lr"]),
        "trainer.precision": row["config.trainer.precision"],
        "device": row["env.device"],
        "threads": int(float(row["env.threads"])) if row.get("env.threads") not in (None, "") else None,
    }
    for key, value in row.items():
        if key.startswith("config.loss.") and value not in ("", None) and not key.endswith("_"):
            path = key.removeprefix("config.")
            try:
                now = setting.spec.value(path)
            except (KeyError, TypeError):
                continue
            if isinstance(now, float | int) and not isinstance(now, bool) and plain(now) != plain(value):
                values[path] = (
                    type(now)(float(value)) if isinstance(now, float) or float(value).is_integer() else float(value)
                )
    return setting.at(values)


def _differences(spec: address.RunSpec, row: dict[str, Any]) -> list[str]:
    """Return where the configuration planned today differs from the one that a row recorded."""
    now = {key: plain(value) for key, value in flat(_config(spec)).items()}
    then = {}
    for key, value in row.items():
        if not key.startswith("config."):
            continue
        path = key.replace("config.dataset.stress.", "config.stress.")
        for old, new in (("stress.label_noise", "stress.rate"), ("stress.noise", "stress.kind"),
                         ("stress.imbalance_ratio", "stress.ratio"), ("stress.imbalance", "stress.profile")):  # fmt: skip
            path = f"config.{new}" if path == f"config.{old}" else path
        if path.startswith("config.task.robustness."):
            path = f"config.shift.{path.rpartition('.')[2]}.size"
        then[path] = plain(value)
    problems = []
    for key in now.keys() | then.keys():
        if (
            key in NEW_FIELDS
            or key.endswith(("._partial_",))
            or (key.startswith(("config.stress.", "config.shift.")) and key not in now)
        ):
            continue
        if key.startswith(("config.shift.", "config.stress.")) and key.endswith("_target_"):
            continue
        if now.get(key, "") != then.get(key, ""):
            problems.append(f"{key}: {then.get(key, '')} -> {now.get(key, '')}")
    return sorted(problems)


def _config(spec: address.RunSpec) -> dict[str, Any]:
    return {"config": {k: v for k, v in spec.content.items() if k not in ("device", "threads")}}


def _row(
    row: dict[str, str], whole: dict[str, Any], setting: plan.Setting, role: str, label: str, axes: dict[str, str],
    key: str, addresses: Addresses,
) -> dict[str, Any]:  # fmt: skip
    dropped = ("config.", "numerics.", "axis.", "names.")
    new: dict[str, Any] = {k: v for k, v in whole.items() if not k.startswith(dropped)}
    for old, shift in SHIFTED.items():
        if f"test.{old}_top1" in new:
            new[f"shifted.{shift}.top1"] = new.pop(f"test.{old}_top1")
    new |= flat(_config(setting.spec)) | flat({"identity": addresses.identity(setting.spec)})
    new |= setting.choices | {f"axis.{k}": v for k, v in axes.items()}
    new |= {"key": key, "role": role, "label": label, "setting": setting.hash}
    if role == "negative_control":
        from hydra.utils import instantiate

        from losses.loss import about_of

        new["loss_name"] = about_of(instantiate(setting.spec.loss)).name
    new.pop("data.checksum", None)  # it covered labels alone; identity.data has the content of all files
    new["loss_link"] = "" if new["loss_link"] == "none" else new["loss_link"]
    return new


def _write(name: str, study: plan.Study, rows: list[dict[str, Any]], keys: dict[str, str]) -> None:
    from hydra.utils import get_class

    task = get_class(rows[0]["config.task._target_"])
    columns = list(dict.fromkeys(column for row in rows for column in row))
    columns = [c for c in columns if any(row.get(c) not in ("", None) for row in rows)]
    prefixes = ("config.", "data.", "env.", "identity.")
    shared = {}
    for column in [c for c in columns if c.startswith(prefixes)]:
        values = {json.dumps(row.get(column, "")) for row in rows}
        if len(values) == 1:
            shared[column] = rows[0][column]
    written = [c for c in columns if c not in shared]
    rows = sorted(rows, key=lambda row: (row["role"], row["label"], row["key"]))
    with (MEASURED / f"{name}.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, written, lineterminator="\n", extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)
    spec = plan.as_dict(study) | {"metrics": [metric.as_dict() for metric in task.metrics], "shared": shared}
    (MEASURED / f"{name}.json").write_text(json.dumps(spec, indent=1) + "\n")
    with (MEASURED / f"{name}_history.csv").open(newline="") as lines:
        epochs = list(csv.DictReader(lines))
    epochs = sorted(
        ({**epoch, "key": keys[epoch["key"]]} for epoch in epochs), key=lambda e: (e["key"], int(e["epoch"]))
    )
    with (MEASURED / f"{name}_history.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, list(epochs[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(epochs)
    print(f"{name}: {len(rows)} rows")


if __name__ == "__main__":
    sys.exit(main())
