"""Numbers stay what they were, or `losses.NUMERICS` is raised: it is part of every run's identity.

After a change that is meant, raise NUMERICS and write the table again; new losses join it then, or at any time:
PYTHONPATH=. python tests/losses/test_loss_golden.py
"""

import csv
from pathlib import Path

import pytest
import torch
from loss_registry import NAMES, batch, build, value_and_gradients

import losses

TABLE = Path(__file__).with_name("golden.csv")


def measure(name):
    """Two steps, so that memory counts: the second value, and the size of its gradient."""
    loss = build(name)
    draw = torch.Generator().manual_seed(0)
    for weight in loss.parameters():  # drawn in float64: normal numbers in float32 are not the same on every CPU
        weight.data = torch.randn(weight.shape, generator=draw, dtype=torch.float64)
    loss(batch(loss, seed=3))
    value, gradients = value_and_gradients(loss, batch(loss, seed=4))
    return value.item(), sum(gradient.square().sum().item() for gradient in gradients) ** 0.5


def read():
    with TABLE.open(newline="") as file:
        return {row["loss"]: row for row in csv.DictReader(file)}


def test_the_table_holds_losses_that_exist():
    assert set(read()) <= set(NAMES)
    assert len(read()) >= 20


@pytest.mark.parametrize("name", [name for name in NAMES if name in read()])
def test_numbers_change_only_with_numerics(name):
    row = read()[name]
    assert int(row["numerics"]) == losses.NUMERICS, "NUMERICS was raised: write the table again"
    expected = (float(row["value"]), float(row["gradient"]))
    assert measure(name) == pytest.approx(expected, rel=1e-9), "numbers changed: raise losses.NUMERICS if that is meant"


if __name__ == "__main__":
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["numerics", "loss", "value", "gradient"])
        writer.writerows([losses.NUMERICS, name, *map(repr, measure(name))] for name in NAMES)
