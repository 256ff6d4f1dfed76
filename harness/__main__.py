"""python -m harness study=NAME [plan_only=true|checked] [axes.KEY=[...]] [base.KEY=VALUE] [FIELD=VALUE]

Plan a study, run what is missing, report.

  study=demo                    a file of conf/study/; its fields can be overridden:
  axes.loss=[focal,ngl]         what is crossed: loss, model, dataset, seed, or any setting (axes.loss.gamma=[1,2])
  base.trainer.epochs=30        any setting of conf/run.yaml, for every run
  baseline=focal margin=0.01    the study's own fields: question, baseline, metric, margin, controls.*
  track=lr                      first choose a learning rate for every loss, out of search.factors=[0.3,1,3] times the
                                model's own (track=fixed: run at that)
  track=tuned search.trials=8   or the learning rate, within search.range=[0.1,10] times the model's own, and the
                                loss's settings, within conf/search/; both on validation and search.seeds=[7001,...],
                                and further out while the best rate is the outermost (search.most=3 times a side)
  until=decided max_seeds=24    add seeds to what is not yet better, worse or equivalent, up to so many
  plan_only=true                print what would run, how many are done, and how long the rest may take
  plan_only=checked             the same, after every combination of data, model and loss was built and tried
  data.root=DIR                 where data sets lie (default: $LOSSBENCH_DATA, else data/); data.download=true fetches
  device=cpu  threads=1         where runs run; both are part of a run's identity
  reuse=true                    go on from published runs (results/measured/) that are the same to the last setting
  engine.workers=2              how many at once (also engine.per_device, .checkpoint_seconds, .timeout)
  tracking.enabled=false        no MLflow mirror (also tracking.uri=URI, tracking.mirrors=[mlflow,tensorboard,wandb])

python -m harness choose data=PATH budget=1h
                                which loss for your data: all that fit race (python -m harness choose --help)

Finished runs are never repeated: stop with Ctrl-C and start again whenever you like.
Exit code: 0 all runs finished; 1 some failed (they are listed); 2 the request makes no sense; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.plan import Study
    from harness.records.study import StudyData

PLAN_ONLY = (False, True, "checked")
RUN_OPTIONS = ("data", "feed", "engine", "reuse", "tracking", "device", "threads")


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command line; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0] != "choose" and {"-h", "--help"} & set(given)):
        print(__doc__)
        _print_studies()
        return 0
    from harness.command import ended

    if given[0] == "choose":
        from harness import choose

        carry_out, given = choose.main, given[1:]
    else:
        carry_out = _run
    return ended(lambda: carry_out(given), "Interrupted: finished runs are safe; the same command goes on from here.")


def _print_studies() -> None:
    from harness import compose

    print("Studies:")
    for name in compose.options("study"):
        path = compose.file_of("study", name)
        question = next(
            (line[9:].strip() for line in path.read_text().splitlines() if line.startswith("question:")), ""
        )
        print(f"  {path.stem:<14} {question.strip(chr(34))}")


def _run(given: Sequence[str]) -> int:
    from harness import compose, plan, schema
    from harness.studies import sweep

    named = [entry for entry in given if entry.startswith("study=")]
    if len(named) != 1:
        raise compose.UsageError(f"give exactly one study=NAME: {', '.join(compose.options('study'))}.")
    plan_only = plan.parsed(next((entry for entry in given if entry.startswith("plan_only=")), "plan_only=false"))[1]
    if plan_only not in PLAN_ONLY:
        raise compose.unknown("plan_only", schema.shown(plan_only), map(schema.shown, PLAN_ONLY))
    of_run = [entry for entry in given if entry.split("=")[0].split(".")[0] in RUN_OPTIONS]
    of_study = [entry for entry in given if entry not in (*named, *of_run) and not entry.startswith("plan_only=")]
    options = compose.compose_run(of_run).config
    schema.refuse_without_effect(schema.without_effect(options, compose.paths(of_run)))
    identity = [f"base.{entry}" for entry in of_run if entry.startswith(("device=", "threads="))]
    study = plan.read_study(named[0].partition("=")[2], [*of_study, *identity])
    if plan_only == "checked":
        print(sweep.checked_only(study, options), flush=True)
    if plan_only:
        print(sweep.planned_only(study, options, first_look=_first_look), flush=True)
        return 0
    return _sweep_and_report(study, options)


def _sweep_and_report(study: Study, options: dict[str, Any]) -> int:
    from harness import records, report, tracking
    from harness.studies import sweep

    tracking.check(options["tracking"])
    mirrors: list[tracking.LiveMirror] = []
    with contextlib.ExitStack() as stack:

        def started() -> None:
            if options["tracking"]["enabled"] and not mirrors:
                of = options["tracking"]
                mirrors.append(stack.enter_context(tracking.LiveMirror(study.name, of["uri"], of["mirrors"])))

        outcome = sweep.sweep(study, options, started, undecided=_undecided)
        if outcome.planned == outcome.done:
            print(f"{study.name}: all {outcome.planned} runs are finished, nothing is missing.", flush=True)
        else:
            print(f"{study.name}: {outcome.planned - outcome.done} runs in {outcome.seconds:.0f} s.", flush=True)
        data = records.load_study(study.name)
        page = report.build(data, records.RESULTS / study.name / "report")
        for mirror in mirrors:
            mirror.finish()  # the last round, which takes the report along, goes on in the background
    print(report.summary(data))
    print(f"Report:    {os.path.relpath(page)}")
    print("Dashboard: make ui" + "".join(f"  ({mirror.outcome})" for mirror in mirrors))
    for sentence in records.damaged:
        print(sentence, file=sys.stderr)
    for what, why in outcome.failed:
        print(f"failed: {what}: {why}", file=sys.stderr)
    return 1 if outcome.failed else 0


def _undecided(data: StudyData) -> set[str]:
    from harness.analysis.sequential import open_settings  # with pandas, which a sweep of given seeds does not need

    return open_settings(data)


def _first_look(compared: int, seeds: Sequence[int], unused: Sequence[int]) -> str:
    from harness.analysis.sequential import first_look

    return first_look(compared, seeds, unused)


if __name__ == "__main__":
    sys.exit(main())
