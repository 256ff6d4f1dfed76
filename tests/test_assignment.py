"""Which cells are asked to find which box: ATSS, centre sampling, task alignment, on one level and on several."""

import pytest
import torch

from harness.metrics.detection import pairwise_iou
from harness.tasks.assignment import ALIGNED, ANCHOR, NEAREST, RADIUS, Cells, atss, centre, inside, task_aligned


def grid(*sides, size=64):
    """Cells of these sides over a square image, level after level."""
    centres = []
    for side in sides:
        line = side * (torch.arange(size // side) + 0.5)
        centres.append(torch.cartesian_prod(line, line).flip(1))
    counts = tuple(map(len, centres))
    lengths = [torch.full((n,), float(side)) for n, side in zip(counts, sides, strict=True)]
    return Cells(torch.cat(centres), torch.cat(lengths), counts)


ONE, TWO = grid(8), grid(8, 16)
SMALL, LARGE = [10.0, 10, 23, 25], [2.0, 1, 62, 60]


def scene(*boxes):
    truth = torch.tensor([boxes], dtype=torch.float32)
    return truth, torch.ones(truth.shape[:2], dtype=torch.bool)


def crowd(seed=0, images=3, most=6):
    """Random boxes, some rows of which are none."""
    draw = torch.Generator().manual_seed(seed)
    corner = 40 * torch.rand(images, most, 2, generator=draw)
    truth = torch.cat([corner, corner + 4 + 20 * torch.rand(images, most, 2, generator=draw)], 2)
    there = torch.rand(images, most, generator=draw) < 0.7
    return truth * there[..., None], there


def aligned(truth, there, cells, seed=0):
    """The rule of task alignment, with random scores and boxes near the cells."""
    draw = torch.Generator().manual_seed(seed)
    half = cells.sides[:, None] * (0.5 + 2 * torch.rand(len(truth), len(cells.sides), 2, generator=draw))
    scores = torch.rand(*truth.shape[:2], len(cells.sides), generator=draw)
    return task_aligned(truth, there, cells, scores, torch.cat([cells.centres - half, cells.centres + half], 2))


RULES = {"atss": atss, "centre": centre, "task_aligned": aligned}


@pytest.mark.parametrize("cells", [ONE, TWO], ids=["one level", "two levels"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_boxes_are_found_by_cells_in_them_or_by_one(rule, cells):
    truth, there = crowd()
    found = rule(truth, there, cells)
    assert found.shape == (3, len(cells.sides))
    for image in range(3):
        for box in range(truth.shape[1]):
            mine = found[image] == box
            assert there[image, box] or not mine.any()
            if mine.sum() > 1:
                assert inside(truth[image, box].view(1, 1, 4), cells.centres[mine]).all()
            assert (rule(truth[image : image + 1, box : box + 1], there.new_ones(1, 1), cells) == 0).any()  # if alone


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_rows_without_a_box_and_an_image_without_boxes_are_found_by_nothing(rule):
    truth, there = torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)
    assert (rule(truth, there, TWO) == -1).all()


@pytest.mark.parametrize("rule", [atss, centre])
def test_a_batch_is_assigned_as_its_images_are(rule):
    truth, there = crowd(5)
    whole = rule(truth, there, TWO)
    for image in range(3):
        assert torch.equal(whole[image], rule(truth[image : image + 1], there[image : image + 1], TWO)[0])


def test_atss_takes_candidates_of_every_level_and_keeps_those_above_mean_and_deviation():
    """Algorithm 1, written down for one box."""
    truth, there = scene([9.0, 13, 50, 40])
    half = ANCHOR / 2 * TWO.sides[:, None]
    overlap = pairwise_iou(truth[0], torch.cat([TWO.centres - half, TWO.centres + half], 1))[0]
    distance = (TWO.centres - torch.tensor([29.5, 26.5])).norm(dim=1)
    candidates = distance[:64].argsort(stable=True)[:NEAREST].tolist()
    candidates += (64 + distance[64:].argsort(stable=True)[:NEAREST]).tolist()
    least = overlap[candidates].mean() + overlap[candidates].std(correction=0)
    expected = {one for one in candidates if overlap[one] >= least and inside(truth, TWO.centres)[0, 0, one]}
    assert set((atss(truth, there, TWO)[0] == 0).nonzero()[:, 0].tolist()) == expected
    assert len(expected) > 1


def test_centre_sampling_takes_the_level_by_the_farthest_edge_and_cells_near_the_middle():
    truth, there = scene(SMALL, [2.0, 0, 62, 63])
    found = centre(truth, there, grid(4, 8))[0]
    fine, coarse = found[:256], found[256:]
    assert set(fine.tolist()) == {-1, 0}
    assert set(coarse.tolist()) == {-1, 1}
    middle = torch.tensor([32.0, 31.5])
    near = (ONE.centres - middle).abs().amax(1) < RADIUS * 8
    assert torch.equal(coarse == 1, near)


def test_a_cell_of_two_boxes_takes_the_smaller_by_centre_sampling():
    truth, there = scene(LARGE, [25.0, 25, 39, 39])
    found = centre(truth, there, ONE)[0]
    both = inside(truth, ONE.centres)[0].all(0)
    assert both.any()
    assert (found[both] == 1).all()


def test_task_alignment_takes_the_cells_whose_score_and_box_are_best():
    truth, there = scene(LARGE)
    boxes = torch.cat([ONE.centres - 20, ONE.centres + 20], 1)[None]
    scores = torch.linspace(0.01, 1, 64).view(1, 1, 64)
    found = task_aligned(truth, there, ONE, scores, boxes)[0]
    quality = scores[0, 0] * pairwise_iou(truth[0], boxes[0])[0] ** 6
    quality = torch.where(inside(truth, ONE.centres)[0, 0], quality, -1)
    assert set((found == 0).nonzero()[:, 0].tolist()) == set(quality.topk(ALIGNED).indices.tolist())


def test_a_box_between_all_centres_gets_the_nearest_cell_of_its_level():
    truth, there = scene([9.0, 9, 11, 11], [40.0, 15.5, 63, 16.5])
    for rule in RULES.values():
        found = rule(truth, there, TWO)[0]
        assert TWO.centres[found == 0].tolist() == [[12, 12]]
        assert (found == 1).sum() == 1
