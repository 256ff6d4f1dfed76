"""What is said of the time that is left."""

from rich.progress import Progress as Bars

from harness.studies.progress import Left


def test_two_runs_that_end_together_do_not_make_the_rest_instant():
    now = [0.0]
    bars = Bars(get_time=lambda: now[0], disable=True)
    task = bars.add_task("all runs", total=8)
    assert Left().render(bars.tasks[0]).plain == "left -:--:--"
    now[0] = 36.0
    bars.update(task, completed=1)
    bars.update(task, completed=2)
    assert Left().render(bars.tasks[0]).plain == "left 0:01:48"
