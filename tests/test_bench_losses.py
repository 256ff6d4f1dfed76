"""The benchmark of losses measures what it says, at sizes small enough for a test."""

import math

import pytest
import torch

from harness.catalogue import costs, entries
from scripts import bench_losses as bench
from scripts.peers import PEERS

SMALL = bench.Size("6x5", (6, 5), 5, 8)
TRAINABLE = {entry.about.kinds: entry.id for entry in entries.entries() if not entry.about.untrainable}


def test_ours_and_a_peer_are_compared_in_one_run():
    rows = bench.contest("mse", SMALL, "cpu", rounds=3, least=0.0, compiled=False)
    assert {(row.by, row.mode) for row in rows} == {("lossbench", "eager"), ("torch", "eager")}
    assert all(row.milliseconds > 0 and row.copies > 0 for row in rows)
    (ours,) = (row for row in rows if row.by == "lossbench")
    assert ours.low <= ours.ratio <= ours.high
    assert any("geometric mean" in line for line in bench.goals(rows))


def test_a_peer_is_compared_with_ours_under_its_own_settings():
    size = bench.Size("2x3x4x5", (2, 3, 4, 5), 3)
    rows = bench.contest("lovasz_softmax", size, "cpu", rounds=3, least=0.0, compiled=False)
    (ours,) = (row for row in rows if row.ratio == row.ratio)
    assert ours.by == "lossbench as kornia"
    assert {row.by for row in rows} == {"lossbench", "lossbench as kornia", "kornia"}
    assert [line.rpartition(", ")[2] for line in bench.lines(rows)][1:] == ["as kornia"]


@pytest.mark.parametrize("kinds", TRAINABLE, ids="+".join)
def test_there_are_pairs_for_the_kinds_of_every_loss(kinds):
    size = bench.sizes(entries.build(TRAINABLE[kinds]), "cpu")[0]
    loss = bench.built(TRAINABLE[kinds], size, "cpu")
    pairs = bench.batch(kinds, size, "cpu")
    assert loss(pairs).isfinite()
    assert all(pair.prediction.dtype == torch.float32 for pair in pairs.values())


def test_pairs_have_the_shapes_of_a_size():
    dense, flat = bench.Size("2x3x4x5", (2, 3, 4, 5), 3), bench.Size("4x6", (4, 6), 10, 8)
    shapes = {
        kinds: [tuple(map(tuple, (pair.prediction.shape, pair.target.shape))) for pair in pairs.values()]
        for kinds, pairs in (
            ("class_logits", bench.batch(["class_logits"], dense, "cpu")),
            ("values", bench.batch(["values"], dense, "cpu")),
            ("distributions", bench.batch(["distributions"], dense, "cpu")),
            ("score_pairs", bench.batch(["score_pairs"], flat, "cpu")),
            ("boxes", bench.batch(["boxes"], bench.Size("7 pairs", (7,)), "cpu")),
            ("features and logits", bench.batch(["class_logits", "features"], flat, "cpu")),
        )
    }
    assert shapes == {
        "class_logits": [((2, 3, 4, 5), (2, 4, 5))],
        "values": [((2, 3, 4, 5), (2, 3, 4, 5))],
        "distributions": [((2, 2, 3, 4, 5), (2, 3, 4, 5))],
        "score_pairs": [((12, 2), (12,))],
        "boxes": [((7, 4), (7, 4))],
        "features and logits": [((4, 8), (4,)), ((4, 10), (4,))],
    }


def test_memory_counts_what_is_held_and_not_the_gradient():
    data = torch.ones(1000, requires_grad=True)
    step = bench.step_of(lambda: (data * 2).exp().sum(), [data])  # exp keeps its result, 2x is given back
    assert 4000 <= bench.peak_memory("cpu", step, [4000]) <= 8100


def test_the_interval_of_a_median():
    assert bench.interval([1.0] * 15) == (1.0, 1.0, 1.0)
    median, low, high = bench.interval([float(n) for n in range(1, 16)])
    assert median == 8
    assert 1 < low < 8 < high < 15


def test_stress_finds_gradients_that_are_not_finite():
    size = bench.Size("128x1000", (128, 1000))
    assert bench.finite_share("cross_entropy", size, "cpu") == 1
    assert bench.finite_share("exponential_multiclass", size, "cpu") < 1  # e to the 1,000 is no number of float32


def test_peers_are_losses_of_ours():
    assert {peer.loss for peer in PEERS} <= {entry.id for entry in entries.entries()}


def test_the_words_of_the_review_are_compared_pair_by_pair(monkeypatch):
    monkeypatch.setattr(
        costs, "measured",
        lambda: costs.pd.DataFrame({"loss": ["mae", "gwd", "iou"], "copies": [1.0, 5.0, 1.0], "finite": 1.0,
                                    "not_finite": 0.0, "operations": [3, 3, 3]}),
    )  # fmt: skip
    (time,) = (one for one in costs.agreements() if one.aspect == "time")
    assert (time.share, time.pairs) == (0.75, 2)
    assert not math.isnan(time.share)


def test_what_was_measured_before_stays(tmp_path):
    bench.store(tmp_path / "table.csv", [{"loss": "focal", "size": "a", "milliseconds": 1.0}])
    bench.store(tmp_path / "table.csv", [{"loss": "mse", "size": "a", "milliseconds": 2.0}])
    table = bench.store(tmp_path / "table.csv", [{"loss": "focal", "size": "b", "milliseconds": 3.0}])
    assert sorted(zip(table["loss"], table["size"], strict=True)) == [("focal", "b"), ("mse", "a")]


def test_cost_of_a_loss_is_that_at_its_largest_size():
    rows = [
        bench.Contender("mse", size, "lossbench", "eager", milliseconds, 2.0, 1.0)
        for size, milliseconds in (("128x10", 1.0), ("512x1000", 5.0))
    ]
    found = bench.cost(rows, "cpu")
    assert (found["size"], found["eager_ms"]) == ("512x1000", 5.0)
    assert found["operations"] > 1
