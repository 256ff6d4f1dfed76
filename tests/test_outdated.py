"""Published runs know when today's code would do something else."""

from pathlib import Path

import pandas as pd
import pytest

from harness import plan
from harness.address import Addresses
from harness.records.outdated import CODE, outdated


@pytest.fixture
def rows(tmp_path):
    """The rows that publication of the study smoke would have today."""
    addresses = Addresses(Path("data"), tmp_path)
    found = [
        {"role": role, "label": s.label, "dataset": s.choices["dataset"], "model": s.choices["model"]}
        | {f"{CODE}{part}": code for part, code in addresses.identity(s.spec)["code"].items()}
        for s in plan.settings(plan.read_study("smoke"))
        for role in ((s.role, "search") if s.role == "run" else (s.role,))
    ]
    return pd.DataFrame(found)


def test_runs_of_todays_code_are_up_to_date(rows, tmp_path):
    assert outdated(rows, "smoke", tmp_path) == [False] * len(rows)
    assert len(rows) > 4


@pytest.mark.parametrize("part", ["task", "trainer", "loss"])
def test_runs_of_other_code_are_outdated(rows, part, tmp_path):
    rows.loc[1, f"{CODE}{part}"] = "0123456789abcdef"
    assert outdated(rows, "smoke", tmp_path) == [i == 1 for i in range(len(rows))]


def test_what_the_study_does_not_ask_any_more_is_outdated(rows, tmp_path):
    rows.loc[0, "label"] = "forgotten"
    assert outdated(rows, "smoke", tmp_path)[0]


def test_of_a_study_without_a_file_nothing_is_known(rows, tmp_path):
    assert outdated(rows, "nobodys", tmp_path) == [False] * len(rows)
