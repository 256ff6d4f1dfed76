"""A loss that misbehaves harms its own run, and no other: each of them runs between runs of an honest loss."""

import sys

import pytest

from harness.engines.engine import FIRST_SECONDS, LEAST_SECONDS, Event, Silences
from harness.studies.progress import Progress
from scripts import campaign_workers, misbehaving

ENDED = {
    "died": {"exits_at_once", "aborts", "kills_itself"},
    "timeout": set(misbehaving.HANGING),
    "diverged": {"is_not_a_number", "is_infinite"},
    "failed": {
        "raises", "raises_no_exception", "raises_memory", "raises_an_endless_message", "interrupts", "exits",
        "recurses", "has_no_gradient", "is_no_tensor", "sets_the_default_device", "sets_no_gradient", "replaces_relu",
        "replaces_topk",
    },
}  # fmt: skip
REPLACED = {
    "forks", "forks_and_waits", "starts_a_thread", "starts_a_thread_that_stays", "closes_its_output", "replaces_relu",
    "replaces_topk", *ENDED["died"], *ENDED["timeout"],
}  # fmt: skip


@pytest.fixture(scope="module")
def outcomes():
    """What became of every misbehaving loss, by name."""
    return {outcome.loss: outcome for outcome in campaign_workers.outcomes()}


@pytest.mark.skipif(sys.platform != "linux", reason="forks and process groups are Linux's here")
@pytest.mark.parametrize("name", misbehaving.ALL)
def test_a_misbehaving_loss_harms_its_own_run_alone(name, outcomes):
    found = outcomes[name]
    expected = next((status for status, names in ENDED.items() if name in names), "done")
    assert found.ended == expected, found.reason
    assert found.follower, "the honest run after it has the same bits"
    assert bool(found.replaced) == (name in REPLACED), found.replaced
    assert len(found.reason) < 600


def test_the_limit_follows_from_runs_that_finished(job, spec):
    silences, asked = Silences(), job(spec())
    assert silences.limit(asked) == FIRST_SECONDS
    silences.finished(1.0)
    assert silences.limit(asked) == LEAST_SECONDS
    silences.finished(100.0)
    silences.finished(2.0)
    assert silences.limit(asked) == 2000.0
    assert Silences(7.0).limit(asked) == 7.0


def test_outside_a_terminal_a_long_run_is_told_of(job, spec, capsys, monkeypatch):
    at = [0.0]
    monkeypatch.setattr("harness.studies.progress.time.monotonic", lambda: at[0])
    asked = job(spec())
    with Progress(3, 1) as progress:
        for at[0] in range(1, 200):
            progress.show(Event("waiting", asked, 0, {"seconds": at[0], "epoch": "epoch 3 of 60"}), "focal")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0] == "0/3 runs, 51 s; focal runs for 51 s, at epoch 3 of 60"
