"""The commands that make these numbers again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from harness.analysis.cells import Analysis, tally
from harness.analysis.frames import column
from harness.errors import UsageError
from harness.records.study import StudyData
from harness.report.items import Code, Prose, Section
from harness.text import DASH


def section(a: Analysis) -> Section:
    """Return how to run the study again and how to rebuild this report from records alone."""
    commit = tally(column(a.main, "env.commit"))
    start = [f"git checkout {commit}"] if commit != DASH and " " not in commit else []
    text = (
        "Finished runs are never repeated, so the first command below runs only what is missing; on the same processor "
        "and versions a fresh clone gets the same numbers, elsewhere numbers that agree within their intervals."
    )
    commands = "\n".join([*start, command(a.study), f"python -m harness.report build {a.study.name}"])
    items = [Prose((text,)), Code(commands)]
    if _written(a.study.name) is None:
        items.append(Prose((f"Save the study, given in full under Setting, as conf/study/{a.study.name}.yaml first.",)))
    return Section("reproduce", "How to reproduce", tuple(items))


def command(study: StudyData) -> str:
    """Return the command that carries out ``study``, with whatever was overridden on its command line."""
    written = _written(study.name)
    words = [f"study={study.name}"]
    for field, value in study.spec.items() if written else ():
        before = written.get(field) if written else None
        if field == "name" or value == before:
            continue
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            words += [f"{field}.{key}={_word(new)}" for key, new in value.items() if new != before.get(key)]
        else:
            words.append(f"{field}={_word(value)}")
    return " ".join(["python -m harness", *(_quoted(word) for word in words)])


def yaml_of(spec: Mapping[str, Any]) -> str:
    """Return a study as the text of its yaml file."""
    return yaml.safe_dump(json.loads(json.dumps(spec)), sort_keys=False, allow_unicode=True, width=100).strip()


def _written(name: str) -> dict[str, Any] | None:
    """Return the study as its file in conf/study/ says, or None if there is no readable one."""
    from harness import plan

    try:
        return json.loads(json.dumps(plan.as_dict(plan.read_study(name))))
    except UsageError:
        return None


def _word(value: object) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_word, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_word(new)}" for key, new in value.items()) + "}"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def _quoted(word: str) -> str:
    return f"'{word}'" if set(word) & set("[]{} ,*?'\"") else word
