"""Generation: metrics on known cases, and adversarial, autoencoding and diffusion tasks in the training loop."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from harness import compose, fingerprints
from harness.analysis import controls
from harness.analysis.stats import mean_interval
from harness.errors import UsageError
from harness.metrics.generation import (
    RandomFeatures,
    Reconstruction,
    authenticity,
    coverage,
    frechet,
    mmd,
    separability,
)
from harness.report.sections import examples
from harness.tasks import Lazy, Seeds
from harness.tasks.diffusion import signal_left
from harness.training.job import Stopped, check
from losses.kinds import Pair
from tests.conftest import carried_out

SMALL = ("task.samples=100", "task.passes=1")
PAIRS = [
    ("gan_discriminator", "gan_nonsaturating"),
    ("gan_discriminator", "gan_minimax"),
    ("gan_discriminator", "feature_matching"),
    ("lsgan_discriminator", "lsgan_generator"),
    ("hinge_discriminator", "wgan_generator"),
    ("wgan_critic", "wgan_generator"),
]
TASKS = {
    "adversarial": ("task=adversarial", "task.weights.penalty=10", "task.weights.matching=1", "task.critic_steps=2"),
    "autoencoding": ("task=autoencoding", "task.weights.features=1"),
    "diffusion": ("task=diffusion", "task.steps=5"),
}


def normal(count, size=4, seed=0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------------- metrics


def test_equal_sets_have_no_frechet_distance():
    features = normal(50)
    assert frechet(features, features).item() == pytest.approx(0, abs=1e-9)
    constant = torch.ones(50, 4, dtype=torch.float64)
    assert frechet(constant, constant).item() == 0


def test_frechet_distance_is_that_of_normal_distributions():
    first = normal(60)
    assert frechet(first, first + 0.5).item() == pytest.approx(4 * 0.25), "a shift adds its squared length"
    spread = first.std(0).square().sum().item()
    centred = first - first.mean(0)
    assert frechet(centred, 3 * centred).item() == pytest.approx(4 * spread), "(3 - 1)^2 times the variance"
    second = normal(80, seed=1) @ normal(4, seed=2)
    one, two = (np.cov(x.numpy().T) for x in (first, second))
    apart = (first.mean(0) - second.mean(0)).square().sum().item()
    expected = apart + np.trace(one + two - 2 * sqrtm(one @ two).real)
    assert frechet(first, second).item() == pytest.approx(expected)


def test_kernel_distance_is_that_of_two_points_and_has_no_bias():
    real, found = (torch.tensor([[0.0], [2.0]], dtype=torch.float64) + shift for shift in (0, 10))
    k = {gap: math.exp(-(gap**2) / (2 * 2**2)) for gap in (2, 8, 10, 12)}  # the median distance of real items is 2
    assert mmd(found, real).item() == pytest.approx(2 * k[2] - (2 * k[10] + k[8] + k[12]) / 2)
    drawn = [mmd(normal(40, seed=seed), normal(40, seed=100 + seed)).item() for seed in range(40)]
    assert abs(np.mean(drawn)) < 2 * np.std(drawn) / 40**0.5
    assert min(drawn) < 0 < max(drawn)


def test_coverage_counts_real_items_with_a_generated_one_near():
    real = torch.cat([normal(50), normal(50, seed=1) + 100])
    assert coverage(real, real).item() == 1
    assert coverage(real[:50], real).item() == 0.5, "half of the modes"
    assert coverage(real + 1000, real).item() == 0


def test_separability_is_nothing_for_one_distribution_and_all_for_two():
    assert separability(normal(400), normal(400, seed=1)).item() < 0.15
    assert separability(normal(50) + 100, normal(50)).item() == 1
    copies = normal(50)
    assert separability(copies, copies).item() == 1, "the nearest item is always the copy in the other set"


def test_authenticity_counts_what_is_no_copy():
    train = normal(200)
    assert authenticity(train, train).item() == 0
    assert authenticity(train + 1e-3, train).item() == 0
    assert authenticity(train + 100, train).item() == 1
    assert 0.3 < authenticity(normal(200, seed=1), train).item() < 0.8


def test_features_are_the_same_for_every_run_and_in_units_of_their_spread():
    images = torch.rand(80, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    features = RandomFeatures(images)
    torch.manual_seed(2)
    found = RandomFeatures(images)(images)
    torch.testing.assert_close(found, features(images))
    assert found.shape == (80, 32)
    assert found.mean(0).abs().max() < 1e-6
    assert found.var(0).sum().item() == pytest.approx(1)


def test_reconstructions_are_evaluated_batch_by_batch_as_at_once():
    images = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found, labels = (images + 0.1).clamp(0, 1), torch.arange(10)
    features = normal(10)
    whole, parts, perfect = (Reconstruction(features, labels) for _ in range(3))
    whole.add(found, images, features, labels)
    for rows in torch.arange(10).split(3):
        parts.add(found[rows], images[rows], features[rows], labels[rows])
    assert parts.scores() == pytest.approx(whole.scores())
    assert whole.scores()["pixel_error"] == pytest.approx((found - images).square().mean().sqrt().item())
    assert whole.scores()["recognised"] == 1
    perfect.add(images, images, features.roll(1, 0), labels)
    assert perfect.scores() == {"pixel_error": 0, "similarity": pytest.approx(1), "recognised": 0}


# ---------------------------------------------------------------------- the seam


def test_lazy_pairs_compute_what_is_asked_for_once():
    made = []
    pair = Pair(torch.zeros(1), torch.zeros(1))
    pairs = Lazy({kind: lambda kind=kind: made.append(kind) or pair for kind in ("images", "values")})
    assert set(pairs) == {"images", "values"}
    assert "images" in pairs
    assert not made
    assert pairs["values"] is pairs["values"]
    assert made == ["values"]


def test_slopes_are_computed_only_for_a_penalty(loop, monkeypatch):
    asked = []

    def slopes(critic, real, fake, share):
        asked.append(len(real))
        return torch.autograd.grad(critic(real.requires_grad_()).sum(), real, create_graph=True)[0]

    monkeypatch.setattr("harness.tasks.adversarial.critic_slopes", slopes)
    loop("task=adversarial", *SMALL).try_out()
    assert not asked
    loop("task=adversarial", *SMALL, "task.weights.penalty=10").try_out()
    assert asked


# ---------------------------------------------------------------------- training


def weights_after_a_step(loop):
    before = {name: value.clone() for name, value in loop.model.state_dict().items()}
    loop.step(next(loop.task.epoch(Seeds(0, 0))))
    measured = loop.meter.close()
    assert all(math.isfinite(value) for value in (*measured.loss.values(), *measured.norm.values()))
    return {name for name, value in loop.model.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize(("critic", "generator"), PAIRS)
@pytest.mark.parametrize("penalty", [0, 10])
def test_a_step_moves_both_players(loop, critic, generator, penalty):
    losses = (f"loss.critic={critic}", f"loss.generator={generator}", f"task.weights.penalty={penalty}")
    moved = weights_after_a_step(loop("task=adversarial", *SMALL, *losses))
    assert {name.partition(".")[0] for name in moved} == {"critic", "generator"}


@pytest.mark.parametrize(
    "losses",
    [
        ("reconstruction",),
        ("mae",),
        ("binary_cross_entropy",),
        ("ssim", "loss.reconstruction.window=7"),
        ("perceptual",),
        ("mse", "task.weights.latent=0"),
        *(("mse", f"loss.features={name}", "task.weights.features=1") for name in ("style", "content", "context")),
    ],
)
def test_a_step_moves_encoder_and_decoder(loop, losses):
    name, *more = losses
    moved = weights_after_a_step(loop("task=autoencoding", *SMALL, f"loss.reconstruction={name}", *more))
    assert {name.partition(".")[0] for name in moved} == {"encoder", "decoder"}


@pytest.mark.parametrize("loss", ["ddpm_eps", "ddpm_x0", "mae", "huber"])
@pytest.mark.parametrize("predicts", ["noise", "image"])
def test_a_step_moves_the_denoiser(loop, loss, predicts):
    assert weights_after_a_step(loop("task=diffusion", *SMALL, f"loss={loss}", f"task.predicts={predicts}"))


@pytest.mark.parametrize("task", TASKS)
def test_models_learn_in_seconds(loop, tmp_path, task):
    more = ("task.steps=20",) if task == "diffusion" else ()
    trained = loop(f"task={task}", "trainer.epochs=2", "task.passes=6", "task.samples=300", *more)
    before = trained.evaluate("test")
    record = carried_out(trained, tmp_path)
    assert record["status"] == "done"
    assert record["test"]["frechet"] < before["frechet"] / 2
    assert record["test"]["coverage"] > before["coverage"]
    assert record["data"]["floor"]["frechet"] < record["test"]["frechet"]
    if task == "autoencoding":
        assert record["test"]["pixel_error"] < before["pixel_error"] / 2
        assert record["test"]["recognised"] > before["recognised"] + 0.3


@pytest.mark.parametrize("task", TASKS)
def test_a_run_resumes_in_mid_epoch_bit_for_bit(loop, tmp_path, task):
    overrides = (*TASKS[task], "task.passes=2", "task.samples=50", "trainer.epochs=2", "trainer.batch_size=200")
    straight = loop(*overrides)
    record = carried_out(straight, tmp_path / "straight")
    stopped = loop(*overrides)
    steps = stopped.task.steps_per_epoch
    with pytest.raises(Stopped):
        carried_out(stopped, tmp_path / "stopped", lambda: stopped.state.step == steps + steps // 2)
    resumed = loop(*overrides)
    again = carried_out(resumed, tmp_path / "stopped")
    assert again["test"] == record["test"]
    assert again["valid"] == record["valid"]
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_an_epoch_begins_anywhere(loop):
    task = loop("task=adversarial", "task.passes=3", "task.samples=50", "task.critic_steps=4").task
    whole = list(task.epoch(Seeds(5, 6)))
    assert len(whole) == task.steps_per_epoch == 3 * 18 // 4
    assert {images.shape for batch in whole for images in batch.inputs} == {(64, 1, 8, 8)}
    assert {len(batch.inputs) for batch in whole} == {4}
    for first in (1, 5, len(whole) - 1):
        rest = list(task.epoch(Seeds(5, 6), first))
        assert len(rest) == len(whole) - first
        assert all(
            torch.equal(a, b) for x, y in zip(rest, whole[first:], strict=True) for a, b in zip(x[0], y[0], strict=True)
        )
    assert all(images.min() >= 0 and images.max() <= 1 for batch in whole for images in batch.inputs)


@pytest.mark.parametrize("task", TASKS)
def test_examples_are_images(loop, task):
    ready = loop(*TASKS[task], *SMALL)
    found = ready._examples()
    assert found["images"].shape == found["generated"].shape == (8, 1, 8, 8)
    assert all(values.dtype == np.uint8 for values in found.values())
    assert ("reconstructed" in found) == (task == "autoencoding")


def test_equal_noise_for_every_seed_of_a_run(loop):
    one, two = (loop("task=autoencoding", *SMALL, seed=seed) for seed in (1, 2))
    two.model.load_state_dict(one.model.state_dict())
    assert one.evaluate("test") == two.evaluate("test")
    assert one.evaluate("test")["frechet"] != one.evaluate("valid")["frechet"]


# ---------------------------------------------------------------------- diffusion


def test_a_perfect_denoiser_gives_the_image_back(loop):
    task = loop("task=diffusion", "task.samples=50", "task.steps=10").task
    image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def predict(noisy, times):
        signal = task.signal[(times[0] * task.steps).round().long()]
        return {"denoised": (noisy - signal.sqrt() * (2 * image - 1)) / (1 - signal).sqrt()}

    generator = torch.Generator().manual_seed(0)
    found = task.sample(predict, task.noise(4, generator), generator)
    torch.testing.assert_close(found, image.expand(4, -1, -1, -1), atol=1e-4, rtol=0)


def test_noise_and_image_follow_from_each_other(loop):
    tasks = [loop("task=diffusion", "task.samples=50", f"task.predicts={name}").task for name in ("noise", "image")]
    noise, image = normal(3, 64).view(3, 1, 8, 8), normal(3, 64, seed=1).view(3, 1, 8, 8)
    signal = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64).view(-1, 1, 1, 1)
    noisy = signal.sqrt() * image + (1 - signal).sqrt() * noise
    for task, answer in zip(tasks, (noise, image), strict=True):
        parts = task.parted(answer, noisy, signal)
        torch.testing.assert_close(parts, (noise, image))


def test_signal_falls_from_all_to_almost_nothing():
    signal = signal_left(50)
    assert signal[0] == 1
    assert (signal.diff() < 0).all()
    assert 0 < signal[-1] < 1e-4


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("task=adversarial", "loss.critic=cross_entropy"), "but loss.critic may compare only critic_scores"),
        (
            ("task=adversarial", "loss.critic=feature_matching"),
            "compares feature_maps, but loss.critic may compare only critic_scores",
        ),
        (("task=adversarial", "model=vae_micro"), "needs a model with critic and generator: choose model=gan_micro"),
        (("task=adversarial", "model=gan_micro", "model.latent=65"), "model.latent is 65"),
        (("task=adversarial", "model=gan_small", "model.critic=[8,8,8,8,8]"), "8x8 pixels cannot be"),
        (
            ("task=autoencoding", "loss.reconstruction=ddpm_eps"),
            "compares noise, but loss.reconstruction may compare only binary_logits and",
        ),
        (("task=autoencoding", "model=gan_micro"), "needs a model with encoder and decoder: choose model=vae_micro"),
        (("task=diffusion", "loss=giou"), "compares boxes, but this task offers only"),
        (("task=diffusion", "dataset=scenes"), "class for every pixel"),
        (("task=diffusion", "dataset=diabetes"), "use task=regression"),
        (("model=gan_micro",), "the model dense_gan is made for another kind of task"),
        (("task=diffusion", "shift=[noise]"), "this task makes its images from noise: leave it out"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(spec, job, overrides, sentence):
    problem = check(job(spec(*overrides)))
    assert problem
    assert sentence in problem
    assert "\n" not in problem


def test_several_roles_are_called_by_those_that_have_a_weight():
    assert compose.compose_run(["task=adversarial"]).choices["loss"] == "gan_discriminator + gan_nonsaturating"
    with_penalty = compose.compose_run(["task=adversarial", "task.weights.penalty=10", "loss.critic=wgan_critic"])
    assert with_penalty.choices["loss"] == "wgan_critic + gradient_penalty + gan_nonsaturating"
    assert with_penalty.config["optimizer"]["betas"] == [0.5, 0.999], "the task overrides the optimizer"
    with pytest.raises(UsageError, match="wgan_critic"):
        compose.swapped(with_penalty, {"loss.critic": "wgan_critik"})


# ---------------------------------------------------------------------- around it


def test_a_model_with_parts_that_outputs_do_not_show_has_no_fingerprint():
    known = {name: compose.option("model", name) for name in ("gan_micro", "vae_micro", "denoiser_micro", "cnn_micro")}
    found = {name: fingerprints.of("model", config, {}) for name, config in known.items()}
    assert [name for name, numbers in found.items() if numbers is not None] == ["cnn_micro"]


def test_made_images_are_drawn_beside_real_ones():
    draw = np.random.default_rng(0)
    images, made, others = (draw.integers(0, 256, (3, 1, 8, 8), np.uint8) for _ in range(3))
    kept = {"a": {"images": images, "generated": made}, "b": {"images": images, "generated": others}}
    mosaic = examples.draw_images(kept, "generated").axes[0].images[0].get_array()
    assert mosaic.shape == (3 * 9, 3 * 9, 3), "a white pixel between pictures of 8"
    for column, pictures in enumerate((images, made, others)):
        for row in range(3):
            shown = mosaic[9 * row : 9 * row + 8, 9 * column : 9 * column + 8]
            assert (shown == pictures[row, 0][..., None]).all()


def test_a_distance_below_that_of_noise_is_better_than_chance():
    below = mean_interval(np.array([-0.1, -0.12, -0.11]))
    assert controls._beats(below, 0.001, up=False)[0] == "passed"
    assert controls._beats(below, 0.2, up=False)[0] == "undecided"
    assert controls._beats(below, 0.999, up=True)[0] == "failed"


def test_a_study_of_roles_goes_from_plan_to_report(cli, recorded):
    small = ("base.trainer.epochs=1", "base.task.passes=1", "base.task.samples=50", "axes.seed=[1]", "name=small")
    axes = ("axes.loss.generator=[gan_nonsaturating,feature_matching]", "tracking.enabled=false")
    done = cli("harness", "study=gan", *small, *axes)
    assert done.returncode == 0, done.stderr
    records = recorded(cli.results)
    assert len(records) == 5 + 2, "five pairs and two controls"
    assert {metric["key"] for record in records.values() for metric in record["metrics"]} >= {"frechet", "coverage"}
    page = (cli.results / "small/report/index.html").read_text()
    assert "critic=wgan_critic, generator=wgan_generator" in page
    assert "Fréchet distance" in page
    assert "Images generated" in page
