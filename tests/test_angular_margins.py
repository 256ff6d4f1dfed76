"""Losses whose margin is annealed learn what the others learn."""

import pytest

from tests.conftest import carried_out


@pytest.mark.parametrize("loss", ["a_softmax", "l_softmax"])
def test_a_multiplied_angle_is_learnt(loop, tmp_path, loss):
    run = loop(f"loss={loss}", "trainer.epochs=8")
    record = carried_out(run, tmp_path)
    assert record["test"]["top1"] > 0.95
    print(loss, record["test"]["top1"], float(run.losses["model"].function.annealing))
