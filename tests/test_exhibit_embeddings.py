"""The exhibit of embeddings: floors beside losses, what collapsed, and its pictures."""

import numpy as np
import pandas as pd
import pytest

from harness.analysis.cells import Analysis
from harness.metrics.retrieval import RETRIEVAL
from harness.records.study import StudyData
from harness.report.exhibits import embeddings, embeddings_drawn
from harness.report.items import Figure, Table


def run(label, seed, score, **more):
    floors = {
        f"data.floors.{floor}.{metric.key}": level
        for floor, level in (("raw_pixels", 0.26), ("untrained_network", 0.15))
        for metric in RETRIEVAL
    }
    return {
        "role": "run", "status": "done", "label": label, "task": "embedding", "dataset": "glyphs", "model": "cnn_micro",
        "seed": seed, "pair_seed": seed, "key": f"{label}{seed}", "source": "runs", "setting": label, "loss": label,
        "loss_name": label, "loss_family": "euclidean", "loss_evidence": "V", "env.device": "cpu",
        "env.torch": "2.14.1", "config.model.network": "cnn",
        **{f"test.{metric.key}": score for metric in RETRIEVAL}, "test.spread": 0.4,
        **floors, **more,
    }  # fmt: skip


def analysis(rows, history=None):
    spec = {"name": "embedding", "baseline": "cross_entropy", "metric": "test.map_at_r", "margin": 0.02}
    history = pd.DataFrame(columns=["key", "epoch", "train.loss"]) if history is None else history
    return Analysis(StudyData("embedding", spec, pd.DataFrame(rows), history, RETRIEVAL))


HINGE = {"config.loss._target_": "losses.euclidean.triplet", "config.loss.margin": 0.2, "config.loss.soft": False}


@pytest.fixture
def rows():
    found = [run("cross_entropy", seed, 0.4) for seed in (1, 2, 3)]
    found += [run("center", seed, 0.05, **{"test.spread": 1e-6}) for seed in (1, 2, 3)]
    return found + [run("triplet", seed, 0.2, **HINGE) for seed in (1, 2, 3)]


def remarks(a):
    (table,) = (item for item in embeddings.section(a).items if isinstance(item, Table))
    return {row.entries[0].text: (row.entries[1].text, row.entries[-1].text) for row in table.rows}


def test_floors_stand_first_and_what_fell_together_is_said(rows):
    found = remarks(analysis(rows))
    assert [*found][:2] == ["floor: raw pixels", "floor: the network before training"]
    assert found["floor: raw pixels"][0] == "26.0"
    assert found["cross_entropy"] == ("40.0", "")
    assert found["center"] == ("5.0", "collapsed: its embeddings fall together")


@pytest.mark.parametrize(("last", "said"), [(0.2005, "its value rests at its margin"), (0.11, "")])
def test_a_hinge_that_rests_at_its_margin_has_collapsed(rows, last, said):
    runs = pd.DataFrame(rows[-3:])
    history = pd.DataFrame(
        [{"key": f"triplet{seed}", "epoch": e, "train.loss": v} for seed in (1, 2, 3) for e, v in ((1, 0.4), (2, last))]
    )
    assert embeddings.collapsed(runs, history) == said
    assert embeddings.collapsed(runs.assign(**{"config.loss.soft": True}), history) == ""


def examples(channels):
    draw = np.random.default_rng(0)
    return {
        "queries": draw.integers(0, 255, (2, channels, 8, 8), np.uint8),
        "neighbours": draw.integers(0, 255, (2, 3, channels, 8, 8), np.uint8),
        "right": np.array([[True, False, True], [False, False, True]]),
        "genuine": np.full(10, 0.1, np.float32),
        "impostors": np.full(10, 0.1, np.float32),
        "false": np.array([0, 0.1, 1], np.float32),
        "true": np.array([0, 0.7, 1], np.float32),
        "plane": draw.normal(size=(12, 2)).astype(np.float32),
        "plane_class": np.arange(12, dtype=np.int16) % 4,
    }


def test_every_picture_shows_every_loss(rows, monkeypatch):
    monkeypatch.setattr(embeddings.records, "examples", lambda key: examples(3))
    figures = [item for item in embeddings.section(analysis(rows)).items if isinstance(item, Figure)]
    assert [figure.id.split("-")[1] for figure in figures] == ["neighbours", "similarities", "roc", "plane"]
    assert "50%" in figures[0].alt
    for figure in figures:
        drawn = figure.draw()
        panels = [axes for axes in drawn.axes if axes.has_data()]
        assert len(panels) == (1 if "-roc-" in figure.id else 3), figure.id


def test_neighbours_are_framed_by_whether_they_are_right():
    (image,) = embeddings_drawn.neighbours({"one": examples(1)}).axes[0].get_images()
    pixels = np.asarray(image.get_array())
    assert pixels.shape == (2 * 12, 4 * 12, 3)
    blue, orange = pixels[0, 12], pixels[0, 24]
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]
