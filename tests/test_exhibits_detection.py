"""The report of a detector: names of losses in seats, exhibits of boxes, pairs and published values, pictures."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection

from harness import compose
from harness.analysis.cells import Analysis
from harness.catalogue import entries
from harness.metrics.detection import DETECTION
from harness.records.study import StudyData
from harness.report.exhibits import boxes, coco, methods, seats
from harness.report.items import Prose, Table
from harness.report.sections import boxes as pictures
from harness.report.sections import cost

NAMES = {
    "giou": "GIoU", "iou": "IoU", "smooth_l1": "Smooth L1", "eiou": "EIoU", "binary_focal": "Binary focal",
    "binary_cross_entropy": "Binary cross-entropy", "ghm_c": "GHM-C",
}  # fmt: skip
BASE = ("giou", "binary_focal")
GAINS = {"iou": 0.02, "smooth_l1": -0.1, "eiou": 0.0, "binary_cross_entropy": -0.05, "ghm_c": 0.03}
SEEDS = range(1, 9)


def label_of(pair):
    return f"boxes={pair[0]}, classes={pair[1]}"


def records(pairs, beyond=0.0, label=label_of):
    """Return a study in which what losses gain adds up, but for ``beyond`` where both seats are changed."""
    random, rows = np.random.default_rng(0), []
    for seed in SEEDS:
        common_part = random.normal(0, 0.01)
        for pair in pairs:
            ap = 0.5 + common_part + sum(GAINS.get(name, 0) for name in pair) + random.normal(0, 0.002)
            ap += beyond * (pair[0] != BASE[0] and pair[1] != BASE[1])
            rows.append({
                "role": "run", "status": "done", "label": label(pair), "task": "detection", "dataset": "crowded_scenes",
                "model": "detector_micro", "seed": seed, "pair_seed": seed, "key": f"{pair}{seed}", "source": "runs",
                "setting": str(pair), "loss.classes": pair[1], "loss.boxes": pair[0], "loss_evidence": "V",
                "loss_name": f"0.04 {NAMES[pair[1]]} + 0.1 {NAMES[pair[0]]}", "loss_family": "geometric",
                "test.ap": ap, "test.ap75": ap - 0.2, "test.matched_iou": ap + 0.2, "test.never_found": 0.1,
                **{f"test.{metric.key}": 0.25 for metric in DETECTION[5:] if metric.key != "never_found"},
                "test.errors_missed": 2.0, "test.lost_missed": 0.125, "env.device": "cpu", "env.torch": "2.14.1",
                "config.model.network": "cnn",
            })  # fmt: skip
    spec = {"name": "detection", "baseline": label(BASE), "metric": "test.ap", "margin": 0.01}
    return Analysis(StudyData("detection", spec, pd.DataFrame(rows), pd.DataFrame(), DETECTION))


ALONE = [BASE, ("iou", "binary_focal"), ("smooth_l1", "binary_focal"), ("giou", "binary_cross_entropy")]
CROSSED = [*ALONE, ("eiou", "binary_focal"), ("giou", "ghm_c"), ("iou", "ghm_c"), ("smooth_l1", "binary_cross_entropy")]


def table_of(section, name):
    """Return the table of a section whose name begins so."""
    found = [item for item in section.items if isinstance(item, Table) and item.id.startswith(name)]
    assert found, section
    return found[0]


def sentence_of(section):
    """Return the first paragraph of a section."""
    assert isinstance(section.items[0], Prose)
    return section.items[0].paragraphs[0]


def texts(table, key):
    index = [column.key for column in table.columns].index(key)
    return {row.entries[0].text: row.entries[index].text for row in table.rows}


# ---------------------------------------------------------------- names


def test_losses_are_called_by_the_seats_in_which_they_differ_from_the_baseline():
    a = records(CROSSED)
    shown = [a.display(label) for label in a.labels]
    assert shown[:4] == ["binary_focal + giou", "boxes: iou", "boxes: smooth_l1", "classes: binary_cross_entropy"]
    assert shown[-1] == "classes: binary_cross_entropy and boxes: smooth_l1"
    named = [a.name(label) for label in a.labels]
    assert named[:4] == ["Binary focal + GIoU", "boxes: IoU", "boxes: smooth L1", "classes: binary cross-entropy"]


def test_where_one_seat_varies_its_loss_is_the_name():
    a = records(ALONE[:3], label=lambda pair: pair[0])
    assert [a.display(label) for label in a.labels] == ["giou", "iou", "smooth_l1"]
    assert [a.name(label) for label in a.labels] == ["GIoU", "IoU", "Smooth L1"]
    assert a.reference == "GIoU"


# ---------------------------------------------------------------- exhibits


def test_the_taxonomy_has_every_loss_of_boxes_and_those_of_classes_that_were_trained():
    a = records(CROSSED)
    table = table_of(boxes.section(a), "boxes")
    rows = {row.entries[2].text: row.entries for row in table.rows}
    assert {"iou", "giou", "diou", "siou", "piou", "inner_iou", "smooth_l1", "binary_cross_entropy", "focal"} <= set(
        rows
    )
    assert "cross_entropy" not in rows
    assert rows["giou"][3].text == rows["focal"][3].text == "baseline"
    assert rows["iou"][3].value == pytest.approx(0.02, abs=0.003)
    assert rows["smooth_l1"][3].tone == "worse"
    assert rows["smooth_l1"][4].value == pytest.approx(-0.1, abs=0.003)  # AP75
    assert rows["smooth_l1"][4].low < -0.1 < rows["smooth_l1"][4].high
    assert rows["diou"][3].note.startswith("not in this study")


def test_errors_by_kind_stand_with_what_they_cost():
    table = table_of(boxes.section(records(ALONE)), "errors")
    assert texts(table, "missed")["boxes: iou"] == "2.00 (+12.5)"
    assert texts(table, "never_found")["boxes: iou"] == "10.0"


@pytest.mark.parametrize(("beyond", "word"), [(0.0, "adds up"), (0.05, "more than the sum"), (-0.05, "less than")])
def test_pairs_say_whether_two_gains_add_up(beyond, word):
    a = records(CROSSED, beyond)
    table = table_of(seats.section(a), "seats")
    found = texts(table, "iou")
    assert word in found["ghm_c"]
    assert found["binary_focal"] == f"{100 * a.done[a.cells[0], 'boxes=iou, classes=binary_focal']['value'].mean():.2f}"
    assert found["binary_cross_entropy"] == "–"


def test_without_pairs_it_is_said_that_nothing_is_known_of_them():
    assert "nothing is known of pairs" in sentence_of(seats.section(records(ALONE)))
    one = records(ALONE[:3], label=lambda pair: pair[0])
    assert "nothing to cross" in sentence_of(seats.section(one))


def test_published_values_stand_beside_ours_and_what_seeds_do():
    a = records(ALONE)
    values, spread = (table_of(coco.section(a), name) for name in ("coco", "coco-seeds"))
    assert texts(values, "published_difference") == {
        "L1": "−0.2",
        "IoU": "+0.3",
        "GIoU": "reference",
        "bounded IoU": "−0.2",
    }
    assert texts(values, "cell_1")["GIoU"] == "baseline"
    assert texts(values, "cell_1")["L1"] == "–"
    row = dict(zip([column.key for column in spread.columns], spread.rows[0].entries, strict=True))
    own = np.std([100 * value for value in a.done[a.cells[0], a.baseline]["value"]], ddof=1)
    assert row["sd"].value == pytest.approx(own)
    assert row["sd"].low < own < row["sd"].high
    assert 0.5 < row["chance"].value < 1  # two seeds differ by a point and a half, typically
    assert row["paired"].value < row["sd"].value  # equal seeds share what they have in common
    assert coco.resolved(int(row["needed"].value), row["paired"].value) <= 0.5


def test_methods_of_the_review_are_matched_by_seats():
    a = records(CROSSED)
    rows = {row.entries[0].text: row.entries[-1] for row in table_of(methods.section(a), "methods").rows}
    assert rows["EfficentDet"].text == "baseline"
    assert rows["RetinaNet"].text.startswith("boxes: smooth L1 −")
    assert not rows["RetinaNet"].note  # focal and smooth L1 were trained together
    assert methods.labels_for(a, {"losses": "focal ciou", "printed": ""}) == ([a.baseline], False)  # no ciou: a part
    assert "together they were not trained" in rows["FasterR-CNN"].note
    assert "classes: binary cross-entropy" in rows["FasterR-CNN"].text


def test_a_page_shows_as_many_metrics_as_it_can_hold_and_csv_all():
    table = table_of(cost.section(records(ALONE)), "metrics")
    read = [column.key for column in table.columns if not column.detail]
    assert len(read) == 3 + cost.SHOWN < len(table.columns)
    assert "metrics more" in table.caption


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("giou", "task=detection loss.boxes=giou"),
        ("quality_focal", "task=detection loss.classes=quality_focal"),
        ("cross_entropy", "task=classification loss=cross_entropy"),
    ],
)
def test_the_command_on_the_page_of_a_loss_gives_it_a_seat(name, said):
    command = next(entry for entry in entries.entries() if entry.id == name).command
    assert command == f"python -m harness.run {said}"
    assert compose.compose_run(said.split()).config["loss"]


# ---------------------------------------------------------------- pictures


def example(found, overlaps):
    corners = np.array([[[[2, 2], [9, 2], [9, 9], [2, 9]], [[0, 0], [0, 0], [0, 0], [0, 0]]]], np.float32)
    return {
        "images": np.full((1, 3, 16, 16), 128, np.uint8), "true_corners": corners, "true_labels": np.array([[1, -1]]),
        "corners": corners, "labels": np.array([found]), "overlaps": np.array([overlaps], np.float32),
    }  # fmt: skip


def test_pictures_tell_hits_from_misses_and_count_them():
    kept = {"a": example([1, 0], [1.0, 0.2]), "b": example([-1, -1], [0, 0])}
    assert pictures.tally(kept["a"]) == (2, 1, 1)
    assert str(pictures.tally(kept["b"])) == "0 boxes, 0 right, for 1 object"
    drawing = pictures.draw(kept, ["zero", "one"])
    assert [text.get_text() for axes in drawing.axes for text in axes.texts] == ["truth", "a", "b"]
    drawn = [
        [len(lines.get_segments()) for lines in axes.collections if isinstance(lines, LineCollection)]
        for axes in drawing.axes
    ]
    assert drawn == [[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]  # misses, then hits, each upon a dark line


def test_colours_differ_whatever_the_number_of_classes():
    for classes in (1, 7, 80):
        assert len(set(pictures.colours(classes))) == classes
