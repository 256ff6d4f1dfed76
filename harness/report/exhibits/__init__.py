"""Exhibits: reproductions of a document's tables and figures, beside the numbers it prints.

A study names them (`exhibits: [hybrid]`); each is a module here with `section(analysis)`. One that breaks is shown as
broken, with its reason, and takes nothing else with it.
"""

from __future__ import annotations

import importlib

from harness.analysis.cells import Analysis
from harness.report.items import Notice, Section


def sections(a: Analysis) -> list[Section]:
    """Return the exhibits that the study of these records names."""
    found = []
    for name in a.study.spec.get("exhibits") or ():
        try:
            found.append(importlib.import_module(f"{__name__}.{name}").section(a))
        except Exception as error:  # whatever goes wrong in it, the rest of the report stands
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            text = f"The exhibit {name} could not be made ({reason}); the rest of this report does not depend on it."
            found.append(Section(f"exhibit-{name}", f"Exhibit {name}", (Notice(text, "alarm"),)))
    return found
