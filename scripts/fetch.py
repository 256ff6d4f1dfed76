"""Download a data set, verify it and say where it lies: python -m scripts.fetch cifar10 [--root data]."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

NAMES = ("cifar10", "cifar100", "fashion_mnist")


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch the named data sets; return the exit code: 0, 1 if one could not be had, 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="python -m scripts.fetch", description=__doc__)
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME", help=f"one or more of {', '.join(NAMES)}")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(os.environ.get("LOSSBENCH_DATA", "data")),
        help="folder of all data sets (LOSSBENCH_DATA, or data)",
    )
    options = parser.parse_args(arguments)

    # torchvision takes seconds to import, so a wrong name is told first
    from datasets.official import fetch
    from datasets.splits import MissingData

    try:
        for name in options.names:
            source = importlib.import_module(f"datasets.sources.{name}").SOURCE
            print(f"{source.title} is complete in {fetch(source, options.root).resolve()}")
    except MissingData as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
