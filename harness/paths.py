"""Where things lie: the checkout, its configs, the user's own project, results of runs, and evidence that is committed.

The user's own project is a folder with a `conf/` of its own: the working directory, or what ``--config-dir DIR`` names
on any command line (that folder of configs, or the project around it). Its options stand beside those of the checkout,
its modules can be imported, and its results go into its own `results/`.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
FLAG = "--config-dir"
VARIABLE = "LOSSBENCH_CONFIG_DIR"
"""By which the processes that a command starts know the user's configs."""


def config_dir(arguments: list[str], here: Path, known: str | None) -> Path | None:
    """Take ``--config-dir DIR`` out of a command line; return the folder of the user's own configs, if there is one.

    Args:
        arguments: of the command, without its name; the flag is removed.
        here: the working directory.
        known: what the process that started this one knows.
    """
    named = known or None
    for place, entry in enumerate(arguments):
        if entry == FLAG or entry.startswith(f"{FLAG}="):
            count = 1 if "=" in entry else 2
            named = entry.partition("=")[2] if "=" in entry else "".join(arguments[place + 1 : place + 2])
            del arguments[place : place + count]
            break
    folder = here / "conf" if named is None else here / Path(named).expanduser()
    if (folder / "conf").is_dir():
        folder = folder / "conf"
    if named is not None and (not named or not folder.is_dir()):
        sys.exit(_refused(named))
    own = folder.resolve()
    return own if own.is_dir() and own != CONF else None


def _refused(named: str) -> int:
    print(
        f"{FLAG}: give a folder that exists, not {named!r}; python -m harness.project DIR makes one.", file=sys.stderr
    )
    return 2


_arguments = sys.argv[1:]
OWN_CONF = config_dir(_arguments, Path.cwd(), os.environ.get(VARIABLE))
"""The user's own configs; None: there are none."""
sys.argv[1:] = _arguments
if OWN_CONF is not None:
    os.environ[VARIABLE] = str(OWN_CONF)
    if str(OWN_CONF.parent) not in sys.path:
        sys.path.append(str(OWN_CONF.parent))  # last, so that nothing of the user's stands for something of ours
OWN = None if OWN_CONF is None else OWN_CONF.parent
"""The user's own project."""
RESULTS = Path(os.environ.get("LOSSBENCH_RESULTS") or (OWN or ROOT) / "results").absolute()
"""Working output: runs, studies, reports."""
MEASURED = ROOT / "results" / "measured"
"""Committed evidence; it belongs to the checkout, wherever working output goes."""
PUBLISHED = ROOT / "results" / "published"
"""Values printed in papers, committed."""
