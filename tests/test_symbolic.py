"""A loss given as a formula: it equals the losses that it spells out, and no text makes it do anything else."""

import math
import pickle

import pytest
import torch

from losses import formulas, probability
from losses.formulas import height, latex, nodes, parse
from losses.loss import Loss
from losses.symbolic import EPS, LARGEST, Symbolic

NGL = "exp(2.4092 - p * (1 + y)) - cos(cos(sin(p)))"
SPELT_OUT = [
    (Symbolic(formula=NGL, over_classes="mean"), probability.ngl),
    (Symbolic(), probability.cross_entropy),
    (Symbolic(formula="-log(pt) / C"), probability.cross_entropy),
    (Symbolic(formula="-mean(y * log(p))"), probability.cross_entropy),
    (Symbolic(formula="-(1 - p) ** 2 * y * log(p)"), probability.focal),
    (Symbolic(formula="(1 - y) * p"), probability.wasserstein),
    (Symbolic(formula="log(sum(exp(z))) / C - y * z"), probability.cross_entropy),
]


@pytest.fixture
def batch():
    draw = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(40, 7, 2, generator=draw, dtype=torch.float64)
    return logits, torch.randint(7, (40, 2), generator=draw)


def value_and_gradient(loss, logits, target):
    leaf = logits.clone().requires_grad_()
    values = loss(leaf, target)
    return values.detach(), torch.autograd.grad(values.sum(), leaf)[0]


@pytest.mark.parametrize(("written", "named"), SPELT_OUT)
def test_a_formula_equals_the_loss_that_it_spells_out(written, named, batch):
    found, expected = value_and_gradient(written, *batch), value_and_gradient(named, *batch)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    logits, target = batch
    single = value_and_gradient(written, logits.float(), target)
    torch.testing.assert_close(single, value_and_gradient(named, logits.float(), target), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_the_logarithm_of_a_probability_is_exact_where_it_rounds_to_zero(size):
    logits, target = torch.tensor([[size, 0.0, -size]]), torch.tensor([2])
    found = value_and_gradient(Symbolic(), logits, target)
    torch.testing.assert_close(found, (torch.tensor([2 * size]), torch.tensor([[1.0, 0.0, -1.0]])))


def of_scores(formula, scores):
    """Values and slopes of a formula of z at these scores of the true class; the target has no other part in it."""
    logits = torch.tensor([[score, 0.0] for score in scores], dtype=torch.float64)
    loss = Symbolic(formula=f"({formula}) * y")
    values, slopes = value_and_gradient(loss, logits, torch.zeros(len(scores), dtype=torch.int64))
    return values.tolist(), slopes[:, 0].tolist()


def test_operators_are_protected_at_their_edges():
    assert of_scores("1 / z", [0.0, EPS / 2, -EPS / 2, 2.0]) == ([1 / EPS, 1 / EPS, -1 / EPS, 0.5], [0, 0, 0, -0.25])
    values, slopes = of_scores("log(z)", [0.0, -1.0, math.e])
    assert values == pytest.approx([math.log(EPS), 0.0, 1.0])
    assert slopes == pytest.approx([0.0, -1.0, 1 / math.e])
    values, slopes = of_scores("exp(z)", [-1e4, 0.0, LARGEST + 1, 1e4])
    assert values == pytest.approx([0.0, 1.0, math.exp(LARGEST), math.exp(LARGEST)])
    assert slopes == pytest.approx([0.0, 1.0, 0.0, 0.0])
    assert of_scores("sqrt(z)", [0.0])[0] == pytest.approx([EPS**0.5])
    assert of_scores("z ** -2", [0.0, 2.0])[0] == pytest.approx([1 / EPS, 0.25])
    assert of_scores("z ** 0.5", [-4.0, 0.0])[0] == pytest.approx([2.0, EPS**0.5])
    assert of_scores("min(z, 1) + max(0, z)", [-2.0, 3.0])[0] == pytest.approx([-2.0, 4.0])
    assert of_scores("1 / 0 + log(0) * 0 + z", [0.0])[0] == pytest.approx([1 / EPS])


@pytest.mark.parametrize("formula", ["-y * log(p)", NGL, "y * max(z, 0) / abs(p)", "y * tanh(sqrt(z)) + sigmoid(p)"])
def test_what_is_not_a_number_stays_so_in_its_own_item(formula):
    logits = torch.tensor([[0.0, 1.0], [math.nan, 1.0]])
    found = Symbolic(formula=formula)(logits, torch.tensor([0, 0]))
    assert found.isfinite().tolist() == [True, False]


def test_half_precision_is_widened_by_the_module_and_refused_by_the_function():
    logits, target = torch.tensor([[60000.0, 0.0]], dtype=torch.float16), torch.tensor([1])
    assert Loss(Symbolic())(logits, target).item() == 60000.0
    with pytest.raises(ValueError, match="float16"):
        Symbolic()(logits, target)


def test_a_loss_is_read_once_and_travels():
    loss = pickle.loads(pickle.dumps(Loss(Symbolic, formula=NGL, over_classes="mean")))
    assert NGL in repr(loss)
    logits, target = torch.zeros(1, 2), torch.tensor([1])
    torch.testing.assert_close(loss(logits, target), probability.ngl(logits, target)[0])
    # cos(cos(sin(p))) and p each once, though p is written three times
    assert [step.op for step in loss.function.steps].count("p") == 1


WRONG = [
    ("", "character 1: it is empty"),
    ("p +", "character 4: it cannot be read on"),
    ("  y * foo", "character 7: foo is not known"),
    ("y * pow(p, 2)", "character 5: pow is no function"),
    ("p * __import__(p)", "character 5: __import__ is no function"),
    ("p.real * y", "character 1: this has no meaning"),
    ("p.__class__.__base__()", "character 1: this has no meaning"),
    ("(lambda: p)()", "character 8: ':' has no meaning"),
    ("exec('import os')", 'character 6: "\'" has no meaning'),
    ("[p for y in z]", "character 1: '\\[' has no meaning"),
    ("p if y else p", "character 1: this has no meaning"),
    ("p and y", "character 1: this has no meaning"),
    ("p, y", "character 1: this has no meaning"),
    ("True * p", "character 1: this has no meaning"),
    ("1j * p", "character 1: this has no meaning"),
    ("exp(*p)", "character 5: this has no meaning"),
    ("p\N{SUPERSCRIPT TWO}", "character 2: '.xb2' has no meaning"),
    ("y\x00", "character 2: '.x00' has no meaning"),
    ("exp(p, y)", "character 1: exp has 1, not 2 arguments"),
    ("p ** 1000", "character 6: an exponent is a number from -10 to 10"),
    ("p ** 10 ** 10", "character 6: an exponent is a number"),
    ("p ** y", "character 6: an exponent is a number"),
    ("1e999 * p", "character 1: a number is too large"),
    ("9" * 900, "character 1: a number is too large"),
    ("9" * 10_000, "10,000 characters, allowed are 1,000"),
    ("(" * 10_000 + "p" + ")" * 10_000, "20,001 characters, allowed are 1,000"),
    ("(" * 400 + "p" + ")" * 400, "character 61: parentheses are nested more than 60 deep"),
    ("-" * 900 + "p", "character 61: it is nested more than 60 deep"),
    ("+".join(["p"] * 400), "it is nested more than 60 deep"),
    ("2 * y", "has no prediction"),
    ("log(p)", "has no target"),
    ("sum(2) * p * y", "sum of numbers alone"),
]


@pytest.mark.parametrize(("text", "why"), WRONG)
def test_a_wrong_formula_is_refused_in_a_sentence(text, why):
    with pytest.raises(ValueError, match=why) as refused:
        Symbolic(formula=text)
    assert "\n" not in str(refused.value)
    assert "allowed are" in str(refused.value) or "give it" in str(refused.value)


def random_tree(draw, depth):
    """A tree of any nodes that a formula can have."""

    def pick(among):
        return among[int(torch.randint(len(among), (), generator=draw))]

    if not depth or pick([False, False, True]):
        value = round(float(torch.randn((), generator=draw)) * 10.0 ** pick([-9, 0, 9]), 12)
        return pick([formulas.number(value), *map(formulas.Node, formulas.LEAVES)])
    op = pick(["+", "-", "*", "/", "**", "neg", *formulas.FUNCTIONS])
    first = random_tree(draw, depth - 1)
    if op == "neg" and first.op == "number":
        return first
    count = formulas.FUNCTIONS.get(op, 1 if op == "neg" else 2)
    second = formulas.number(pick([-2.0, 0.5, 3.0])) if op == "**" else random_tree(draw, depth - 1)
    return formulas.Node(op, (first, second)[:count])


@pytest.mark.parametrize("seed", range(200))
def test_a_tree_written_and_read_is_the_same_tree(seed):
    tree = random_tree(torch.Generator().manual_seed(seed), depth=5)
    assert parse(str(tree)) == tree
    assert height(tree) <= 5
    assert latex(tree).count("{") == latex(tree).count("}")
    assert {node.op for node in nodes(tree)} == {node.op for node in nodes(parse(str(tree)))}


def test_tex_is_what_matplotlib_sets():
    from matplotlib.mathtext import MathTextParser

    every = (
        "sum(p*y)/mean(z) + min(p,pt) - max(2e-9,C)**0.5*sigmoid(p)*tanh(-p)*sqrt(y)*abs(p)*log(p)*exp(-p)*cos(sin(p))"
    )
    assert latex(parse(NGL)) == (r"\exp(2.4092 - p_c \, (1 + y_c)) - \cos(\cos(\sin p_c))")
    assert MathTextParser("path").parse(f"${latex(parse(every))}$").width > 0
