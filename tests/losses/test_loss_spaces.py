"""The spaces of conf/search, over which track ``tuned`` searches."""

import pytest
import torch
from loss_registry import NAMES, batch, build, config

from harness import compose, paths

SPACES = compose.options("search")


def ends(given):
    return given["choices"] if "choices" in given else [given["low"], given["high"]]


@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_of_a_loss_and_its_settings_and_holds_their_defaults(name):
    assert name in NAMES
    described = compose.option("loss", name)
    for path, given in compose.option("search", name).items():
        default = compose.value_at(described, path)
        assert all(type(value) is type(default) for value in ends(given)), path
        if "choices" in given:
            assert default in given["choices"]
            assert len(set(map(str, given["choices"]))) == len(given["choices"]) > 1
        else:
            assert given["low"] <= default <= given["high"]
            assert given["low"] < given["high"]
            assert [float(f"{end:.3g}") for end in ends(given)] == ends(given), "rounding would leave the space"


@pytest.mark.parametrize("name", SPACES)
def test_a_loss_can_be_built_and_trained_at_every_end_of_its_space(name):
    for path, given in compose.option("search", name).items():
        for value in ends(given):
            changed = compose.with_value(config(name), path, value)
            if "terms" in changed:
                loss = build(name, terms=changed["terms"])
            else:
                top = path.partition(".")[0]
                loss = build(name, **{top: changed[top]})
            pairs = batch(loss)
            value_of_loss = loss(pairs)
            value_of_loss.backward()
            gradients = [pair.prediction.grad for pair in pairs.values() if pair.prediction.grad is not None]
            assert gradients, path
            assert torch.isfinite(value_of_loss), (path, value)
            assert all(torch.isfinite(gradient).all() for gradient in gradients), (path, value)


def test_spaces_say_where_they_come_from():
    for name in SPACES:
        assert (paths.CONF / "search" / f"{name}.yaml").read_text().startswith("# ")
