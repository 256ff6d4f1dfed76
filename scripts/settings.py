"""python -m scripts.settings [FOLDER]: all settings as docs/settings.md, and as JSON schemas for editors in FOLDER.

An editor that knows the YAML language server completes and checks a file whose first line names its schema:
# yaml-language-server: $schema=FOLDER/study.json
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import compose, schema
from harness.paths import CONF, ROOT

PAGE = ROOT / "docs" / "settings.md"
HEAD = """# All settings

Written by `python -m scripts.settings` from conf/ and harness/schema.py. `harness.run` takes a setting as
`trainer.epochs=30`, a study as `base.trainer.epochs=30` for all of its runs and `axes.trainer.epochs=[10,30]` to cross
it. A value that a setting cannot have is refused before anything starts, and so is one that has no effect.

`python -m scripts.settings FOLDER` writes JSON schemas, by which editors complete and check files of conf/.
"""
SHOWN = ("task", "trainer", "optimizer", "stress", "shift", "dataset", "model", "feed", "engine")
COMMENT = re.compile(r"^(\w+):(?:[^#]*?)\s#\s(.+)$")


def page() -> str:
    """Return docs/settings.md: of every option of every group its settings, defaults, allowed values and meaning.

    Losses are left out: the catalogue lists theirs.
    """
    parts = [HEAD, "## A study", "", *_table(_study_rows(), "field"), "", "## A run", "", *_table(_run_rows())]
    for group in SHOWN:
        parts += ["", f"## {group}", ""]
        parts += _table(_group_rows(group), "setting", "option")
    return "\n".join(parts) + "\n"


def _table(rows: Sequence[Sequence[str]], *heads: str) -> Iterator[str]:
    names = [*(heads[1:] or ()), heads[0] if heads else "setting", "default", "allowed", "what it is"]
    yield f"| {' | '.join(names)} |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _study_rows() -> list[list[str]]:
    whole = schema.StudyFile.model_json_schema()
    rows = []
    for name, part in whole["properties"].items():
        if "$ref" in part:
            inner = whole["$defs"][part["$ref"].rpartition("/")[2]]["properties"]
            rows += [_field_row(f"{name}.{key}", each, whole) for key, each in inner.items()]
        else:
            rows.append(_field_row(name, part, whole))
    return rows


def _field_row(name: str, part: dict[str, Any], whole: dict[str, Any]) -> list[str]:
    default = f"`{schema.shown(part['default'])}`" if part.get("default") not in (None, "") else ""
    return [f"`{name}`", default, schema.words(part, whole), part.get("description", "")]


def _run_rows() -> list[list[str]]:
    config, rows = compose.compose_run().config, []
    for name in schema.RUN:
        whole = schema.of_run(name)
        if isinstance(config[name], dict):
            parts = {f"{name}.{k}": p for k, p in whole["$defs"][name.capitalize()]["properties"].items()}
        else:
            parts = {name: whole["properties"][name]}
        for path, part in parts.items():
            default = "$LOSSBENCH_DATA or data" if path == "data.root" else schema.shown(compose.value_at(config, path))
            rows.append([f"`{path}`", f"`{default}`", schema.words(part, whole), part.get("description", "")])
    return rows


def _group_rows(group: str) -> list[list[str]]:
    rows, seen = [], {}
    for option in compose.options(group):
        content = compose.option(group, option)
        content = content[option] if group == "shift" else content
        whole, notes = schema.of_group(group, option, content), _comments(group, option)
        for name, value in content.items():
            if name.startswith("_"):
                continue
            allowed = schema.words(whole["properties"][name], whole)
            row = [f"`{group}.{name}`", f"`{schema.shown(value)}`", allowed, notes.get(name, "")]
            seen.setdefault(tuple(row), []).append(option)
    everywhere = len(compose.options(group))
    for row, options in seen.items():
        named = "all" if len(options) == everywhere else ", ".join(f"`{option}`" for option in options)
        rows.append([named, *row])
    return rows


def _comments(group: str, option: str) -> dict[str, str]:
    """Return what the file of an option, and those that it builds on, say of each setting."""
    text = (CONF / group / f"{option}.yaml").read_text()
    found = {}
    if inherited := re.search(r"^defaults: \[(\w+), _self_\]", text, re.MULTILINE):
        found = _comments(group, inherited[1])
    lines = (COMMENT.match(line.strip()) for line in text.splitlines())
    return found | {match[1]: match[2] for match in lines if match}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, and the schemas if a folder is given; return the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    PAGE.write_text(page())
    if given:
        folder = Path(given[0])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "study.json").write_text(json.dumps(_of_file(schema.StudyFile.model_json_schema()), indent=1))
        for group in (*SHOWN, "loss"):
            for option in compose.options(group):
                content = compose.option(group, option)
                made = schema.of_group(group, option, content[option] if group == "shift" else content)
                (folder / f"{group}_{option}.json").write_text(json.dumps(_of_file(made), indent=1))
    return 0


def _of_file(made: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a file, which may build on others and leave to them what it does not change."""
    required = made.pop("required", [])
    what = "files of the same folder that this one changes, and _self_ for itself"
    defaults = {"type": "array", "items": {"type": "string"}, "description": what}
    alone = {"anyOf": [{"required": ["defaults"]}, {"required": required}]} if required else {}
    return {**made, "properties": {**made["properties"], "defaults": defaults}, **alone}


if __name__ == "__main__":
    sys.exit(main())
