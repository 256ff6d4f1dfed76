"""python -m scripts.check_latex STUDY ...: compile the LaTeX tables of reports with pdflatex, and say what is wrong."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import records
from harness.report import latex, writing

FAULT = re.compile(r"^(?:!|Overfull|LaTeX Warning: (?!Label)).*", re.MULTILINE)


def faults(study: str, folder: Path) -> list[str]:
    """Write the tables of a study into ``folder``, compile them, and return errors, overfull boxes and warnings."""
    report = writing.compose(records.load_study(study))
    for table in report.tables():
        records.write_text(folder / "tables" / f"{table.id}.tex", latex.table(table))
    records.write_text(folder / "report.tex", latex.document(report))
    command = ["pdflatex", "-interaction=nonstopmode", "report.tex"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=300, check=False
    )
    found = FAULT.findall(done.stdout)
    return found if found or done.returncode == 0 else [f"pdflatex ended with {done.returncode}"]


def main() -> int:
    """Check the studies of the command line, or a published one; return the exit code."""
    if shutil.which("pdflatex") is None:
        print("needs pdflatex on the PATH.", file=sys.stderr)
        return 2
    bad = 0
    for study in sys.argv[1:] or ["losses"]:
        with tempfile.TemporaryDirectory() as folder:
            found = faults(study, Path(folder))
        bad += len(found)
        print("\n".join([f"{study}: {'compiles' if not found else ''}", *found]))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
