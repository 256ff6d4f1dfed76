"""Segmentation: metrics beside torchmetrics, models, and the way from a config to a record."""

from pathlib import Path

import pytest
import torch
import torchmetrics.functional.classification as reference
from omegaconf import OmegaConf
from torchmetrics.functional.segmentation import mean_iou

from harness import compose, records
from harness.catalogue import entries
from harness.errors import UsageError
from harness.metrics.segmentation import ConfusionMetrics, boundary_f1, of_confusion
from harness.models import heads
from harness.tasks import Seeds
from harness.training.job import Stopped
from tests.conftest import carried_out

FOLDER = Path(__file__).resolve().parents[1] / "conf" / "model"
MODELS = sorted(path.stem for path in FOLDER.glob("*.yaml") if "harness.models.segmentation." in path.read_text())
SEGMENTATION = ("task=segmentation", "dataset=scenes", "model=fcn_micro", "trainer.batch_size=8")
SMALL = ("dataset.train_size=32", "dataset.valid_size=16", "dataset.test_size=16")
CLASSES = ("background", "a", "b", "c", "never")


def batch(seed=0, images=6, classes=5):
    """Logits and a target with void, in which the last class never occurs and is never predicted."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes - 1, (images, 12, 10), generator=generator)
    logits = torch.randn(images, classes, 12, 10, generator=generator)
    logits[:, classes - 1] = -20
    logits.scatter_add_(1, target.unsqueeze(1), torch.full((images, 1, 12, 10), 1.0))
    target[:, 0] = 255
    return logits, target.to(torch.uint8)


def judged(logits, target, link="softmax", boundaries=True, size=2):
    metrics = ConfusionMetrics(logits.shape[1], link, boundaries=boundaries, device=logits.device)
    for part, aim in zip(logits.split(size), target.split(size), strict=True):
        metrics.add(part, aim)
    return metrics.scores(CLASSES)


def test_metrics_agree_with_torchmetrics():
    logits, target = batch()
    found, aim = judged(logits, target), target.long()
    settings = {"num_classes": 5, "ignore_index": 255}

    def present(values):
        return float(values[:4].mean())  # the fifth class is neither there nor predicted

    iou = reference.multiclass_jaccard_index(logits, aim, average="none", **settings)
    assert found["per_class"][:4] == pytest.approx(iou[:4].tolist())
    assert found["miou"] == pytest.approx(present(iou))
    assert found["miou_all"] == pytest.approx(float(iou[:4].sum() / 5))
    assert found["foreground_iou"] == pytest.approx(float(iou[1:4].mean()))
    for name, function in {
        "dice": reference.multiclass_f1_score,
        "precision": reference.multiclass_precision,
        "recall": reference.multiclass_recall,
    }.items():
        assert found[name] == pytest.approx(present(function(logits, aim, average="none", **settings)))
    for function in (reference.multiclass_accuracy, reference.multiclass_f1_score, reference.multiclass_precision):
        assert found["pixel_accuracy"] == pytest.approx(float(function(logits, aim, average="micro", **settings)))
    ece = reference.multiclass_calibration_error(logits.softmax(1), aim, n_bins=15, **settings)
    assert found["ece"] == pytest.approx(float(ece), abs=1e-5)
    nll = torch.nn.functional.cross_entropy(logits, aim, ignore_index=255)
    assert found["nll"] == pytest.approx(float(nll), rel=1e-5)


def test_the_mean_over_images_agrees_with_torchmetrics():
    logits, target = batch()
    logits, target = logits[..., 1:, :], target[..., 1:, :]  # without void, which that function does not know
    each = mean_iou(logits.argmax(1), target.long(), num_classes=5, input_format="index", per_class=False)
    assert judged(logits, target)["miou_image"] == pytest.approx(float(each.mean()), rel=1e-5)


def test_batches_of_any_size_give_the_same():
    logits, target = batch()
    whole, parts = judged(logits, target, size=6), judged(logits, target, size=1)
    assert {k: v for k, v in whole.items() if k != "per_class"} == pytest.approx(
        {k: v for k, v in parts.items() if k != "per_class"}
    )


def test_void_is_not_judged():
    logits, target = batch()
    changed = logits.clone()
    changed[:, :, 0] = torch.randn(6, 5, 10)
    assert judged(logits, target, boundaries=False)["miou"] == judged(changed, target, boundaries=False)["miou"]
    assert judged(logits, target)["nll"] == judged(changed, target)["nll"]


def test_a_perfect_prediction_scores_one():
    _, target = batch()
    logits = 50.0 * torch.nn.functional.one_hot(target.long().where(target != 255, 0), 5).movedim(-1, 1).float()
    found = judged(logits, target)
    perfect = ("miou", "foreground_iou", "dice", "precision", "recall", "pixel_accuracy", "miou_image", "boundary_f1")
    assert [found[name] for name in perfect] == pytest.approx([1.0] * len(perfect))
    assert found["miou_all"] == found["dice_all"] == pytest.approx(0.8)


def test_links_without_likelihood_have_none():
    logits, target = batch()
    found = judged(logits, target, link=None)
    assert (found["nll"], found["ece"]) == (None, None)


def test_iou_and_dice_of_one_class_are_tied():
    confusion = torch.tensor([[130.0, 20.0], [10.0, 40.0]])  # the catalogue's fixture
    found = of_confusion(confusion, ("background", "object"))
    assert found["foreground_iou"] == pytest.approx(0.57142857)
    iou = torch.tensor([130 / 160, 40 / 70])
    assert found["dice"] == pytest.approx(float((2 * iou / (1 + iou)).mean()))


def square(top, left):
    mask = torch.zeros(1, 40, 40, dtype=torch.uint8)
    mask[:, top : top + 10, left : left + 10] = 1
    return mask


@pytest.mark.parametrize(("moved", "least", "most"), [(0, 1, 1), (1, 1, 1), (4, 0.3, 0.7), (15, 0, 0.05)])
def test_boundaries_agree_within_a_pixel_and_less_and_less_beyond(moved, least, most):
    score = float(boundary_f1(square(10 + moved, 10), square(10, 10), 2))
    assert least - 1e-9 <= score <= most + 1e-9


def test_an_image_without_boundary_has_no_boundary_score():
    flat = torch.zeros(1, 8, 8, dtype=torch.uint8)
    assert boundary_f1(flat, flat, 2).isnan().all()


# ---------------------------------------------------------------- models


@pytest.mark.parametrize("name", MODELS)
def test_every_model_predicts_every_pixel(name):
    config = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    built = heads.build(config, (1, 64, 96), {"class_logits": 3}).eval()
    with torch.inference_mode():
        outputs = built(torch.randn(2, 1, 64, 96))
    assert built.dense
    assert outputs["class_logits"].shape == (2, 3, 64, 96)
    assert outputs["features"].shape[:2] == (2, built.num_features)


@pytest.mark.parametrize("name", ["unet_micro", "fcn_micro", "vit_seg_micro", "unet_resnet34"])
def test_a_size_that_does_not_fit_is_refused(name):
    config = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    with pytest.raises(ValueError, match=r"do(es)? not divide images of 30x50"):
        heads.build(config, (3, 30, 50), {"class_logits": 3})


# ---------------------------------------------------------------- from config to record


WINDOWS = ("task=segmentation_windows", "task.crop=[32,40]", "task.scales=[1.0,1.5]", "task.mirror=true")


@pytest.mark.parametrize("views", [("task=segmentation",), WINDOWS], ids=["whole", "windows"])
def test_a_run_learns_and_resumes_bit_for_bit(views, loop, tmp_path):
    small = ("dataset.train_size=64", *SMALL[1:], "trainer.epochs=4", "dataset.digits=[0,1]")
    given = (*views, *SEGMENTATION[1:], *small)
    straight = carried_out(loop(*given), tmp_path / "a")
    assert straight["status"] == "done"
    assert straight["test"]["boundary_f1"] is not None
    assert straight["valid"]["boundary_f1"] is None
    stopped = loop(*given)
    with pytest.raises(Stopped):
        carried_out(stopped, tmp_path / "b", lambda: stopped.state.step == 11)
    resumed = carried_out(loop(*given), tmp_path / "b")
    assert resumed["test"] == straight["test"]
    assert straight["cost"]["data_s"] < straight["cost"]["train_s"]
    assert straight["data"].get("window") == ([32, 40] if views == WINDOWS else None)


def test_pixels_without_class_are_masked_and_nothing_else(loop):
    task = loop(*SEGMENTATION, *SMALL).task
    batch = next(task.epoch(Seeds(1, 2)))
    outputs = {"class_logits": torch.zeros(8, 4, 48, 48)}
    pair = task.pairs(outputs, batch)["class_logits"]
    assert (pair.prediction is outputs["class_logits"], pair.target is batch.target) == (True, True)
    assert torch.equal(pair.mask, batch.target != 255)
    assert not pair.mask.all()
    task.has_void = False
    assert task.pairs(outputs, batch)["class_logits"].mask is None


def test_a_study_is_reported_with_the_pictures_that_its_runs_kept(cli):
    small = [f"base.{x}" for x in (*SMALL, "trainer.epochs=1", "model=fcn_micro")]
    done = cli("harness", "study=segmentation", "axes.loss=[cross_entropy,dice]", "axes.model=[fcn_micro]",
               "axes.seed=[1,2]", "name=masks", "tracking.enabled=false", *small)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mean IoU against cross-entropy" in " ".join(done.stdout.split())
    report = cli.results / "masks" / "report"
    page = (report / "index.html").read_text()
    assert "the most frequent class everywhere" in page  # the control that tells whether anything was learnt
    assert (report / "figures" / "examples-scenes-fcn_micro.svg").exists()
    kept = next(cli.results.glob("runs/*/examples.npz"))
    found = records.examples(kept.parent.name, cli.results)
    assert {name: x.shape for name, x in found.items()} == {
        "images": (4, 3, 48, 48), "truth": (4, 48, 48), "prediction": (4, 48, 48),
    }  # fmt: skip
    kept.write_bytes(kept.read_bytes()[:100])
    assert records.examples(kept.parent.name, cli.results) is None  # damaged: the report goes on without
    assert records.examples("no such run", cli.results) is None


def test_equal_seeds_mean_equal_batches_for_every_loss(loop):
    def first(loss):
        run = loop(*SEGMENTATION, *SMALL, f"loss={loss}")
        return next(run.task.epoch(Seeds(1, 2))), run.model.state_dict()

    (batch_a, weights_a), (batch_b, weights_b) = first("cross_entropy"), first("dice")
    assert torch.equal(batch_a.inputs[0], batch_b.inputs[0])
    assert torch.equal(batch_a.target, batch_b.target)
    assert all(torch.equal(weights_a[name], weights_b[name]) for name in weights_a)


@pytest.mark.parametrize("name", compose.options("loss"))
def test_every_loss_of_class_logits_takes_a_step_and_all_others_are_refused(name, loop):
    given = (*SEGMENTATION, *SMALL, f"loss={name}")
    about = entries.build(name).about
    if about.kinds != ("class_logits",) or about.untrainable:
        with pytest.raises(UsageError, match=r"compares|cannot be trained|trains"):
            loop(*given)
        return
    run = loop(*given)
    run.step(next(run.task.epoch(Seeds(1, 2))))
    epoch = run.meter.close()
    assert epoch.bad_step is None
    assert epoch.norm["model"] > 0


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["task=segmentation", "dataset=digits"], "the data set digits has a class for every image, not every pixel"),
        (["dataset=scenes"], "the data set scenes has a class for every pixel"),
        (
            ["task=segmentation", "model=cnn_micro"],
            "the model cnn classifies images, but this task is about every pixel",
        ),
        (["model=unet_micro"], "the model unet classifies every pixel, but this task is about images"),
        ([*SEGMENTATION, "loss=arcface"], "compares features, but this task offers only class_logits"),
        ([*SEGMENTATION, "dataset.size=[50,50]"], "does not divide images of 50x50"),
        (["task=segmentation_windows"], r"task.crop is \[64, 64\]; it must be .* at most 48 and 48"),
    ],
)
def test_wrong_combinations_are_one_sentence(loop, overrides, sentence):
    with pytest.raises((UsageError, ValueError), match=sentence):
        loop(*overrides)
