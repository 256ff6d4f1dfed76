"""python -m harness.evolution [dataset=digits] [model=cnn_micro] [generations=10] [population=25] [KEY=VALUE]

Search for a loss: formulas are bred, sieved, trained, chosen and tested; controls of equal budget stand beside them.

  dataset=, model=, task=, trainer.epochs=10, ...   the run that every formula is put into: any setting of conf/run.yaml
  population=25 generations=10  members of a generation (elites among them), and how many generations are bred
  moved=2                       generations in the end in which the numbers of the best three formulas are moved
  methods=[genetic,random,chance]   breeding; random search; the best of as many seeds of cross-entropy
  seed=1                        of all draws
  seeds=[1,2] short=0.25        stages of training: all for a quarter of the epochs on the first seed, a third of them
                                for all epochs, a ninth on all seeds
  test_seeds=[101,...,106]      seeds on which finalists are chosen (half of the test items) and tested (the other half)
  finalists=4                   of each method: its best that differ in more than their numbers
  metric=top1 margin=0.005      fitness (default: the task's first metric); what is too small a difference to matter
  over_classes=mean             or sum: how the values of a formula for the classes of an item become one
  name=NAME                     folder of the results
  data.root=DIR device=cpu engine.workers=2         as for python -m harness

python -m harness.evolution publish NAME     a search that has ended, to the published evidence

It ends with a report, and with the choice of genetic programming as results/NAME/conf/loss/NAME.yaml, a loss like any
other (that of random search: NAME_random).
Stop with Ctrl-C whenever you like: the same command goes on, and no run is repeated.
Exit code: 0 finished; 1 some runs failed; 2 the request makes no sense; 130 interrupted.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command line; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or {"-h", "--help"} & set(given):
        print(__doc__)
        return 0
    from harness.command import ended

    if given[0] == "publish":
        return ended(lambda: _publish(given[1:]))
    return ended(lambda: _search(given), "Interrupted: finished runs are safe; the same command goes on from here.")


def _publish(given: Sequence[str]) -> int:
    from harness.errors import UsageError
    from harness.evolution import kept

    if len(given) != 1:
        raise UsageError("write python -m harness.evolution publish NAME, with the name of one search.")
    print(os.path.relpath(kept.publish(given[0])))
    return 0


def _search(given: Sequence[str]) -> int:
    from harness.evolution import asked as settings
    from harness.evolution import judged, kept, report
    from harness.evolution.search import search
    from harness.evolution.tasks import classes_of

    asked = settings.read(given)
    say = functools.partial(print, flush=True)
    say(f"{asked.name}: {', '.join(asked.methods)}; {asked.population} formulas in each of "
        f"{asked.generations + asked.moved} generations")  # fmt: skip
    classes = classes_of(asked)
    searched, finals = search(asked, classes, say)
    found = judged.judge(searched, finals)
    print("\n".join(judged.told(found)))
    ended = kept.Kept(found, classes, tuple(given), kept.made(searched, finals))
    kept.write(ended)
    page = report.write(ended)
    print(f"Report:    {os.path.relpath(page)}")
    for what, why in searched.failed:
        print(f"failed: {what}: {why}", file=sys.stderr)
    return 1 if searched.failed else 0


if __name__ == "__main__":
    sys.exit(main())
