"""Every yaml names one loss and every loss has a yaml; what the yaml says is what the function does."""

import doctest
import importlib
import inspect
import pkgutil
import typing

import pytest
from loss_registry import NAMES, build, config, target_of

import losses
from losses import compound, euclidean, generative, hybrid, kinds, loss, probability, symbolic
from losses.adapters import on_probabilities, one_vs_rest

REGION = ("dice", "jaccard", "tversky", "focal_tversky", "log_cosh_dice", "generalized_dice")
MODULES = [f"losses.{module.name}" for module in pkgutil.iter_modules(losses.__path__)]
GIVEN = {"num_classes", "num_features", "mask", "reduction"}  # by the harness or by the data, not by the yaml
BESIDE = {("weighted_cross_entropy", "smoothing"), *((name, "mode") for name in REGION)}
"""Settings for use without the harness, which no yaml lists, so that keys of runs from before them stay."""


def nodes(name):
    """The yaml itself, and the base inside it if it is an adapter."""
    composed = config(name)
    return [composed, composed["base"]] if "base" in composed else [composed]


def defaults(function):
    parameters = inspect.signature(function).parameters.values()
    return {
        one.name: one.default
        for one in parameters
        if one.kind is one.KEYWORD_ONLY
        and one.name not in GIVEN
        and (getattr(function, "__name__", ""), one.name) not in BESIDE
    }


@pytest.mark.parametrize("name", NAMES)
def test_settings_in_yaml_are_the_defaults_of_the_function(name):
    composed = config(name)
    if composed["_target_"] == "losses.compound.Sum":
        assert set(composed) - {"parts"} == {"_target_", "_partial_", "terms"}
        assert set(composed.get("parts", {})) <= set(composed["terms"])
        assert set(composed["terms"]) <= set(NAMES) - {name}
        return
    for node in nodes(name):
        assert node["_partial_"] is True
        function, settings = target_of(node)
        expected = defaults(function)
        if function in (one_vs_rest, on_probabilities):
            assert settings.pop("base")
            assert expected.pop("base") is inspect.Parameter.empty
        if function is hybrid.hybrid:  # one function, 27 experiments
            assert set(settings) == set(expected)
        else:
            assert settings == {
                key: list(value) if isinstance(value, tuple) else value for key, value in expected.items()
            }


def declared():
    """Everything in the package that says what is known about it, except through inheritance."""
    return {
        member
        for name in MODULES
        for member in vars(importlib.import_module(name)).values()
        if getattr(member, "__module__", None) == name and "about" in getattr(member, "__dict__", {})
    }


def test_every_loss_has_a_yaml_and_every_yaml_a_loss():
    named = {target_of(node)[0] for name in NAMES for node in nodes(name)}
    assert named - {compound.Sum} == declared()


def test_every_public_function_that_compares_with_a_target_is_declared():
    families = [
        name
        for name in MODULES
        if name.rpartition(".")[2] not in ("adapters", "checks", "compound", "formulas", "kinds", "loss", "shared")
    ]
    public = {
        member
        for name in families
        for key, member in vars(importlib.import_module(name)).items()
        if inspect.isfunction(member) and member.__module__ == name and not key.startswith("_")
    }
    helpers = {
        hybrid.number,
        hybrid.added,
        generative.critic_slopes,
        probability.entropy_of_classes,
        symbolic.program,
        euclidean.class_pairs,
        euclidean.check_batch,
        euclidean.squared_distances,
    }
    assert public - helpers <= declared()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_known_is_well_formed(name):
    known = build(name).about
    assert known.family in typing.get_args(loss.Family)
    assert set(known.kinds) <= set(kinds.KINDS)
    assert known.link in (None, "softmax", "sigmoid")
    assert known.evidence in typing.get_args(loss.Evidence)
    assert known.name
    assert known.paper


def test_names_are_unambiguous():
    abouts = {name: build(name).about for name in NAMES}
    titles = [known.name for known in abouts.values()]
    aliases = [alias for known in abouts.values() for alias in known.aliases]
    assert len(set(titles)) == len(titles)
    assert len(set(aliases)) == len(aliases)
    assert not set(aliases) & set(NAMES)


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings(module):
    assert not doctest.testmod(importlib.import_module(module)).failed


def test_the_package_itself_needs_no_torch():
    assert "import" not in inspect.getsource(losses)
    assert isinstance(losses.NUMERICS, int)
