"""python -m harness.look data=PATH [task=TASK] [page=FILE.html] [dataset.SETTING=VALUE ...]

Show what a folder or a table of your own is understood to be, before anything is trained: the task, classes with their
counts, sizes, splits, what looks wrong, and the command that trains with it.

  data=DIR                      a folder per class; images and masks; a table (CSV, TSV, parquet)
  task=segmentation             what it is for, where the layout alone does not say it
  page=look.html                also as a page, with a sheet of images and their labels, masks or boxes
  dataset.target=price          any setting of the data set that need not be guessed

Exit code: 0 understood; 2 not, and why.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command line; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or {"-h", "--help"} & set(given):
        print(__doc__)
        return 0
    from harness.command import ended

    return ended(lambda: _look(given))


def _look(given: Sequence[str]) -> int:
    from harness import plan
    from harness.errors import UsageError
    from harness.look import page, pictures
    from harness.look.shown import shown
    from harness.look.understood import with_data

    values = dict(plan.parsed(entry) for entry in given)
    path, task = values.pop("data", None), values.pop("task", None)
    file = page.checked(Path(str(values.pop("page")))) if "page" in values else None
    if not path:
        raise UsageError("give data=PATH, a folder or a table in a file.")
    if wrong := [key for key in values if not key.startswith("dataset.")]:
        raise UsageError(
            f"{wrong[0]} is nothing to look at: give data=, task=, page= and settings of the data set, dataset.NAME=."
        )
    understood, splits = with_data(Path(path), task, values)
    if file:
        page.write(file, understood, pictures.drawn(splits))
    print(shown(understood))
    if file:
        print(f"Page: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
