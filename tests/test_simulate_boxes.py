"""The simulation of box regression: its cases, its update, the authors' gradients, and that it goes on where it was."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from harness.report.exhibits import box_simulation
from scripts import box_regression, simulate_boxes
from scripts.authors_gradients import direction
from scripts.box_regression import CASES, Trial, cases, points, rates, simulate, step, summary, values, way


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float64).t()


# ---------------------------------------------------------------- cases and update


def test_the_cases_are_those_of_the_paper():
    start, target = cases(points(3))
    assert start.shape == target.shape == (4, 3 * 343)
    assert target[2].mul(target[3]).allclose(torch.ones(3 * 343))
    assert (target[:2] == 10).all()
    area, ratio = start[2] * start[3], start[2] / start[3]
    kinds = {(round(a, 3), round(r, 3)) for a, r in zip(area.tolist(), ratio.tolist(), strict=True)}
    expected = itertools.product((0.5, 0.67, 0.75, 1.0, 1.33, 1.5, 2.0), (0.25, 0.333, 0.5, 1.0, 2.0, 3.0, 4.0))
    assert kinds == set(expected)
    assert len({tuple(column) for column in torch.cat([start, target]).t().tolist()}) == 3 * CASES


def test_points_lie_in_the_disc_uniformly_and_a_share_is_the_first_of_them():
    found = points(5000)
    distance = np.linalg.norm(found - 10, axis=1)
    assert distance.max() <= 3
    assert (distance < 3 / np.sqrt(2)).mean() == pytest.approx(0.5, abs=0.03)  # half of the area
    assert (points(7) == found[:7]).all()
    assert not np.isin(points(50, seed=1), found).any()


def test_the_learning_rate_falls_at_80_and_90_percent():
    assert rates(0.1) == [0.1] * 160 + [0.01] * 20 + [0.001] * 20


def test_a_step_by_hand():
    box, target = boxes((1.0, 0.0, 2.0, 0.5)), boxes((0.0, 0.0, 2.0, 1.0))
    # the overlap is 1 x h = 0.5 and the union 2 + h = 2.5, so IoU = 0.2. Its slopes (I' U - I U')/U^2 are
    # in x: I' = -h, U' = h, which gives -0.24
    # in w: the left edge moves by 1/2, so I' = U' = h/2, which gives 0.08
    # in h: I' = U' = 1, which gives 0.32
    moved, error = step(way(Trial("", "", "iou")), box, target, torch.tensor(0.1))
    factor = 0.1 * (2 - 0.2)
    expected = boxes((1 - 0.24 * factor, 0.0, 2 + 0.08 * factor, 0.5 + 0.32 * factor))
    torch.testing.assert_close(moved, expected)
    torch.testing.assert_close(error, (expected - target).abs().sum(0))


def test_boxes_that_are_there_stay_and_smooth_l1_gets_there():
    start, target = cases(points(1))
    stayed, error = step(way(Trial("", "", "giou")), target, target, torch.tensor(0.1))
    assert error.max() < 0.1
    assert stayed.isfinite().all()
    found = simulate(Trial("", "", "smooth_l1"), points(1))
    assert found.final.max() < 1e-3
    assert found.curves[0, 0] == pytest.approx((start - target).abs().sum(0).mean().item(), rel=1e-5)


def test_a_loss_that_diverges_is_counted():
    found = summary(simulate(Trial("", "", "squared_error", rate=1e3), points(1)))
    assert found["mean"] == found["median"] == np.inf
    assert found["unsolved"] == 1
    assert found["half_after"] is None


DETACHED = ("ghm_r", "focal_eiou", "ciou")
"""Losses with weights that have no gradient, so that a way down may lead up."""


@pytest.mark.parametrize("trial", simulate_boxes.TRUE, ids=lambda trial: trial.label)
def test_every_loss_gives_a_way_down_for_every_box(trial):
    start, target = (each[:, ::7] for each in cases(points(1)))
    moved, error = step(way(trial), start, target, torch.tensor(1e-3))
    loss = values(trial.loss, trial.settings)
    if trial.loss not in DETACHED and not trial.settings.get("kind"):
        assert loss(moved, target).mean() <= loss(start, target).mean() + 1e-5
    assert error.isfinite().all()


# ---------------------------------------------------------------- the authors' gradients

NEAR = boxes((0.3, 0.1, 1.1, 0.7), (-0.2, 0.4, 0.8, 1.4), (0.1, -0.2, 2.5, 0.6))
FAR = boxes((2.0, 0.1, 1.1, 0.7), (-0.2, 2.4, 0.8, 1.4), (-2.1, 2.3, 0.9, 0.6))
TARGET = boxes(*[(0.0, 0.0, 1.0, 1.2)] * 3)


def true(name, start, mended=""):
    """Return the way down by central differences of the loss, which no code of gradients has a part in."""
    found = torch.zeros_like(start)
    for row in range(4):
        ahead, behind = start.clone(), start.clone()
        ahead[row] += 1e-6
        behind[row] -= 1e-6
        loss = values(name, {})
        found[row] = (loss(behind, TARGET) - loss(ahead, TARGET)) / 2e-6
    return found


def authors(name, start, mended=""):
    return direction(name, start.t(), TARGET.t(), mended).t()


@pytest.mark.parametrize("start", [NEAR, FAR], ids=["near", "far"])
def test_the_sides_of_iou_count_twice_in_the_authors_program(start):
    twice = torch.tensor([[1.0], [1], [2], [2]])
    torch.testing.assert_close(authors("iou", start), true("iou", start) * twice, atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(authors("iou", start, "halved"), true("iou", start), atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(authors("giou", start, "overlap"), true("giou", start) * twice, atol=1e-8, rtol=1e-6)


def test_giou_of_boxes_that_are_apart_has_a_negative_overlap():
    torch.testing.assert_close(authors("giou", NEAR), authors("giou", NEAR, "overlap"))
    assert not torch.allclose(authors("giou", FAR), authors("giou", FAR, "overlap"), atol=1e-2)


@pytest.mark.parametrize("start", [NEAR, FAR], ids=["near", "far"])
def test_the_distance_of_diou_differs_and_can_be_mended(start):
    # what is left of the mended gradient without IoU is that of the distance
    mended, from_iou = authors("diou", start, "distance"), authors("iou", start)
    torch.testing.assert_close(mended - from_iou, true("diou", start) - true("iou", start), atol=1e-8, rtol=1e-6)
    assert not torch.allclose(authors("diou", start), mended, atol=1e-3)


def test_the_aspect_ratio_of_ciou_lacks_a_factor():
    extra, own = authors("ciou", NEAR) - authors("diou", NEAR), true_aspect()
    torch.testing.assert_close(extra[2:], own[2:] * (NEAR[2] ** 2 + NEAR[3] ** 2), atol=1e-6, rtol=1e-4)


def true_aspect():
    """Return the way down of CIoU's last term; its weight is detached, so differences of the loss would not do."""
    start = NEAR.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        (values("ciou", {})(start, TARGET) - values("diou", {})(start, TARGET)).sum(), start
    )
    return -gradient


# ---------------------------------------------------------------- the command


@pytest.fixture
def short(monkeypatch, tmp_path):
    """Make a simulation of 10 steps from one point, and return a function that starts it and the table it writes."""
    monkeypatch.setattr(box_regression, "STEPS", 10)
    monkeypatch.setattr(simulate_boxes, "RESULTS", tmp_path)
    table = tmp_path / "out" / "box_simulation.csv"

    def start(*arguments):
        return simulate_boxes.main(["--share", "0.0002", "--out", str(table), *arguments])

    return start, table


def test_it_goes_on_where_it_was(short, monkeypatch, capsys):
    start, table = short
    wanted = ["--panel", "true", "--loss", "giou", "absolute_error"]
    assert start(*wanted) == 0
    first = table.read_bytes()
    assert list(pd.read_csv(table)["label"]) == ["giou", "mae"]
    assert capsys.readouterr().out.count("kept from") == 0
    part = next((table.parent.parent / "box_simulation" / "1").glob("true-giou.npz"))
    part.write_bytes(part.read_bytes()[:100])  # damaged: made again
    carried = []
    whole = simulate_boxes.carry_out
    monkeypatch.setattr(
        simulate_boxes, "carry_out", lambda trial, *more: (carried.append(trial.label), whole(trial, *more))
    )
    assert start(*wanted) == 0
    assert carried == ["giou"]
    same = ["label", "mean", "median", "p99", "summed"]
    pd.testing.assert_frame_equal(pd.read_csv(table)[same], pd.read_csv(pd.io.common.BytesIO(first))[same])
    curves = pd.read_csv(table.with_name("box_simulation_curves.csv.gz"))
    assert len(curves) == 2 * 11
    with np.load(table.with_name("box_simulation_map.npz")) as maps:
        assert maps["true giou"].shape == (1,)


def test_the_search_finds_a_rate_and_a_size_that_are_no_worse_than_the_defaults(monkeypatch):
    monkeypatch.setattr(box_regression, "STEPS", 10)
    monkeypatch.setattr(simulate_boxes, "SEARCH_POINTS", 1)
    monkeypatch.setattr(simulate_boxes, "RATES", (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0))
    found = simulate_boxes.search("nwd")
    starts = points(1, seed=1)

    def error(trial):
        return summary(simulate(trial, starts, every=simulate_boxes.SEARCH_EVERY))["mean"]

    assert set(found.trial.settings) == {"size"}
    assert found.trial.rate > 0.1  # ten steps of at most 0.1 reach no target
    assert error(found.trial) < error(Trial("", "", "nwd", {"size": 1.0}))


def test_bad_input_ends_in_a_sentence(capsys):
    assert simulate_boxes.main(["--share", "0"]) == 2
    assert simulate_boxes.main(["--share", "0.5"]) == 2
    assert simulate_boxes.main(["--loss", "gio"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert "name another file" in said[1]
    assert "giou" in said[2]


# ---------------------------------------------------------------- the exhibit


def test_the_exhibit_shows_what_was_simulated(short, monkeypatch):
    start, table = short
    monkeypatch.setattr(box_simulation, "MEASURED", table.parent)
    assert "scripts.simulate_boxes" in box_simulation.section(None).items[0].paragraphs[0]
    start("--panel", "true", "authors", "--loss", "giou", "mpdiou")
    found = box_simulation.section(None)
    assert [item.id for item in found.items[1:]] == [
        "box-simulation-curves", "box-simulation-maps", "box-simulation-true", "box-simulation-authors",
    ]  # fmt: skip
    for figure in found.items[1:3]:
        assert figure.draw().axes
    rows = found.items[3].rows
    means = [row.entries[3].value for row in rows]
    assert means == sorted(means)
    assert {row.entries[0].text for row in rows} == {"giou", "mpdiou 640", "mpdiou 20", "mpdiou 3"}
    assert "no negative overlap" in " ".join(row.entries[1].text for row in found.items[4].rows)
