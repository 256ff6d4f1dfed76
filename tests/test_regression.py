"""Regression: metrics against scikit-learn, what losses see, and a study in which outliers tell losses apart."""

import re

import pytest
import sklearn.metrics
import torch

from harness import records
from harness.metrics.regression import metrics
from harness.tasks.regression import Regression
from tests.conftest import carried_out

BASE = ("task=regression", "dataset=diabetes", "model=mlp", "model.widths=[16]", "loss=mse", "trainer.batch_size=32")


def test_metrics_are_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(200, generator=generator).double() * 30 + 150
    values = truth + 10 * torch.randn(200, generator=generator).double()
    found = metrics(values, truth)
    assert found["r2"] == pytest.approx(sklearn.metrics.r2_score(truth, values))
    assert found["rmse"] == pytest.approx(sklearn.metrics.root_mean_squared_error(truth, values))
    assert found["mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(truth, values))
    assert found["mdae"] == pytest.approx(sklearn.metrics.median_absolute_error(truth, values))


def test_losses_see_standardised_numbers_that_gross_errors_hardly_move(loop):
    calm, hard = (loop(*BASE, f"dataset.outliers={share}").task for share in (0, 0.1))
    assert isinstance(calm, Regression)
    torch.testing.assert_close(calm.inputs["train"].mean(0), torch.zeros(10), atol=1e-5, rtol=0)
    assert float(calm.targets["train"].quantile(0.5)) == pytest.approx(0, abs=1e-5)
    assert hard.spread / calm.spread < 1.5
    assert float(hard.targets["train"].max()) > 5
    predicted = hard.evaluate(lambda x: {"numbers": hard.targets["test"]}, "test")  # the truth, back in its own unit
    assert predicted["r2"] == pytest.approx(1)
    assert predicted["mae"] == pytest.approx(0, abs=1e-3)


def test_a_network_learns_more_than_the_mean(loop, tmp_path):
    record = carried_out(loop(*BASE, "trainer.epochs=20", "optimizer.lr=0.005"), tmp_path)
    assert record["status"] == "done"
    assert record["test"]["r2"] > 0.3
    assert record["data"]["features"][0] == "age"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("loss=focal",), "compares class_logits, but this task offers only counts and distributions and values"),
        (("dataset=digits",), "digits has a class for every image"),
        (("model=cnn_micro",), "the model cnn takes images, but an input of this task has (10,): use model=mlp"),
        (("task=classification", "loss=cross_entropy"), "use task=regression"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(loop, changes, message):
    changed = dict(entry.split("=", 1) for entry in (*BASE, *changes))
    with pytest.raises(ValueError, match=re.escape(message)):
        loop(*(f"{key}={value}" for key, value in changed.items() if key != "model.widths"))


def test_a_study_of_outliers_tells_the_absolute_error_from_the_squared_one(cli):
    done = cli(
        "harness", "study=outliers", "axes.loss=[mse,mae]", "axes.seed=[1,2]", "track=fixed", "name=errors",
        "base.trainer.epochs=30", "base.optimizer.lr=0.01", "tracking.enabled=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    data = records.load_study("errors", cli.results)
    runs = data.runs[data.runs["role"] == "run"]
    assert set(runs["status"]) == {"done"}
    mean = runs.groupby(["label", "axis.dataset.outliers"])["test.r2"].mean()
    assert mean["mae", 0.1] > mean["mse", 0.1]
    page = (cli.results / "errors" / "report" / "index.html").read_text()
    assert "test R²" in page
    assert "test median absolute error" in page
