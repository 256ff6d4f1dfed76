"""Classification on mixtures: what MixUp and CutMix make of a batch, by which seeds, and which losses may learn it."""

import pytest
import torch

from harness.errors import UsageError
from harness.tasks import Seeds

BASE = ("task=mixed_classification", "model=mlp", "dataset.train_size=64", "trainer.batch_size=16")


@pytest.fixture
def task(loop):
    """Return a function from settings to a task on a few digits."""
    return lambda *settings: loop(*BASE, *settings).task


def parts(task):
    """Return images of a batch, what they are mixed with, their labels, and the mixtures by four seeds."""
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(16) % 5
    return images, images.roll(1, 0), labels, [task.mixed(images, labels, seed) for seed in range(4)]


def own_share(shares, labels):
    """Return the share of an image in its mixture: that of its label, wherever the other image has another."""
    other = labels.roll(1, 0) != labels
    own = shares.gather(1, labels.unsqueeze(1)).squeeze(1)[other]
    torch.testing.assert_close(own, own[:1].expand_as(own))
    torch.testing.assert_close(shares.sum(1), torch.ones(len(labels)))
    return own[0]


def test_mixup_adds_two_images_pixel_by_pixel_in_the_shares_of_their_classes(task):
    images, others, labels, mixtures = parts(task("task.cutmix=0"))
    for mixed, shares in mixtures:
        own = own_share(shares, labels)
        torch.testing.assert_close(mixed, own * images + (1 - own) * others)
    assert len({float(own_share(shares, labels)) for _, shares in mixtures}) == 4


def test_cutmix_puts_a_rectangle_into_an_image_in_the_shares_of_their_classes(task):
    images, others, labels, mixtures = parts(task("task.mixup=0"))
    found = set()
    for mixed, shares in mixtures:
        replaced = (mixed == others)[0, 0]
        assert torch.equal(torch.where(replaced, others, images), mixed)
        assert torch.equal(replaced, replaced.any(1, keepdim=True) & replaced.any(0))  # a rectangle
        own = own_share(shares, labels)
        assert own == pytest.approx(1 - float(replaced.float().mean()))
        found.add(float(own))
    assert len(found) > 1


def test_both_ways_are_used_and_a_batch_depends_on_its_seed_and_number_alone(task):
    made = task()
    state = torch.get_rng_state()
    batches = list(made.epoch(Seeds(1, 2)))
    assert torch.equal(torch.get_rng_state(), state)
    for batch, again in zip(batches[2:], made.epoch(Seeds(1, 2), 2), strict=True):
        assert torch.equal(batch.inputs[0], again.inputs[0])
        assert torch.equal(batch.target, again.target)
    other = next(made.epoch(Seeds(1, 3)))
    assert not torch.equal(batches[0].target, other.target)
    names = set()
    for way in made.ways:
        way.register_forward_hook(lambda module, *_: names.add(type(module).__name__))
    for seed in range(20):
        next(made.epoch(Seeds(1, seed)))
    assert names == {"MixUp", "CutMix"}


@pytest.mark.parametrize("name", ["soft_target_cross_entropy", "cross_entropy", "brier", "negative_control_worse"])
def test_losses_of_shares_learn_from_mixtures(loop, name):
    made = loop(*BASE, f"loss={name}", "trainer.epochs=2")
    before = [weight.detach().clone() for weight in made.model.parameters()]
    for batch in made.task.epoch(Seeds(0, 0)):
        made.step(batch)
    assert all((weight != old).any() for weight, old in zip(made.model.parameters(), before, strict=True))
    assert 0 <= made.evaluate("valid")["top1"] <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("loss=focal",), "the loss Focal takes one class for every image, and not the shares of several"),
        (("loss=arcface",), "compares features, but this task offers only class_logits and class_probabilities"),
        (("task.mixup=0", "task.cutmix=0"), "nothing is mixed: use task=classification"),
    ],
)
def test_what_cannot_learn_from_mixtures_is_refused_in_a_sentence(loop, settings, message):
    with pytest.raises(UsageError, match=message):
        loop(*BASE, *settings)
