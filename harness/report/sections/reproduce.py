"""The commands that make these numbers again."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from harness.analysis.cells import Analysis, tally
from harness.analysis.frames import column
from harness.errors import UsageError
from harness.records.study import StudyData
from harness.report.items import Code, Prose, Section
from harness.text import joined


def section(a: Analysis) -> Section:
    """Return how to run the study again and how to rebuild this report from records alone."""
    commit = tally(column(a.main, "env.commit"))
    start = [f"git checkout {commit}"] if re.fullmatch("[0-9a-f]{7,40}", commit) else []
    text = (
        "Finished runs are never repeated, so the study's command runs only what is missing; on the same processor and "
        "versions a fresh clone gets the same numbers, elsewhere numbers that agree within their intervals."
    )
    commands = "\n".join([*start, command(a.study), f"python -m harness.report build {shlex.quote(a.study.name)}"])
    items = [Prose((text,)), Code(commands)]
    if warning := unlike_its_file(a.study):
        items.append(Prose((warning,)))
    return Section("reproduce", "How to reproduce", tuple(items))


def command(study: StudyData) -> str:
    """Return the command that carries out ``study``, with the overrides that it was started with."""
    chosen = study.spec.get("until") == "chosen"  # a race, which has no file
    first = "choose" if chosen else f"study={study.spec.get('study') or study.name}"
    words = [first, *study.spec.get("overrides", ())]
    return " ".join(["python -m harness", *map(shlex.quote, words), *(["budget=1h"] if chosen else [])])


def asked(study: StudyData) -> str:
    """Return what was asked other than in the study's file: ``demo with axes.seed=[1,2]``; empty if nothing was.

    >>> asked(StudyData("demo-3fa9c2", {"study": "demo", "overrides": ["axes.seed=[1,2]"]}, None, None))
    'demo with axes.seed=[1,2]'
    """
    overrides = [each for each in study.spec.get("overrides", ()) if not each.startswith("name=")]
    return f"{study.spec.get('study')} with {' '.join(overrides)}" if overrides else ""


def yaml_of(spec: Mapping[str, Any]) -> str:
    """Return a study as the text of its yaml file."""
    return yaml.safe_dump(json.loads(json.dumps(spec)), sort_keys=False, allow_unicode=True, width=100).strip()


def unlike_its_file(study: StudyData) -> str:
    """Return why the command would not ask for this study again, empty if it would."""
    from harness import plan

    if study.spec.get("until") == "chosen":
        return ""
    name = study.spec.get("study") or study.name
    try:
        planned = json.loads(json.dumps(plan.as_dict(plan.read_study(name, study.spec.get("overrides", ())))))
    except UsageError:
        return f"Save the study, given in full under Setting, as conf/study/{name}.yaml first."
    wording = ("name", "question", "study", "overrides")
    changed = [key for key, value in planned.items() if key not in wording and study.spec.get(key, value) != value]
    return (
        f"conf/study/{name}.yaml has changed since in {joined(changed)}; Setting has what was asked." if changed else ""
    )
