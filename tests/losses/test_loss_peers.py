"""Value and gradient of every loss that other libraries have too, over random shapes, against those libraries."""

import pytest
import torch
from loss_registry import build, pair_of

from losses.kinds import Pair
from scripts.peers import PEERS

CASES = [pytest.param(peer, seed, id=f"{peer.loss}-{peer.library}-{seed}") for peer in PEERS for seed in range(3)]
SIDES = {"ms_ssim": 176, "ssim": 24}


def drawn(peer, loss, seed):
    """A prediction and a target of random size.

    Dense losses get images in which every class occurs, as some peers leave out the rest.
    """
    draw = torch.Generator().manual_seed(seed)
    if loss.about.kinds == ("images",):
        side = SIDES[peer.loss]
        first, noise = torch.rand(2, 2, 3, side, side, generator=draw, dtype=torch.float64)
        return first.requires_grad_(), (0.7 * first.detach() + 0.3 * noise)
    if peer.loss in (
        "triplet",
        "supervised_contrastive",
        "multi_similarity",
    ):  # the peer leaves out items that are alone with their class, which count 0 in ours
        return pair_of(loss, count=10, seed=seed)[0], torch.arange(10) % 5
    height, width = (int(n) for n in torch.randint(4, 9, (2,), generator=draw))
    count = int(torch.randint(5, 20, (), generator=draw))
    prediction, target = pair_of(loss, count=count, seed=seed, shape=(height, width) if peer.dense else ())
    if peer.dense and target.dtype == torch.int64:
        target[:, 0, :4], target[:, 1, 0] = torch.arange(4), 4
    if peer.dense and target.dtype != torch.int64:
        prediction, target = (data.detach().view(-1, 1, 1, 1) for data in (prediction, target))
    return prediction.requires_grad_(), target


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("peer", "seed"), CASES)
def test_agrees_with(peer, seed):
    settings = {"window": 11} if peer.loss == "ms_ssim" else {}
    loss = build(peer.loss, **settings, **peer.settings)
    data, target = drawn(peer, loss, seed)
    (kind,) = loss.about.kinds
    value = peer.factor(data.shape) * loss({kind: Pair(data, target)})
    theirs = peer.build(loss)
    expected = theirs(data, target)
    # several compute in float32, whatever they are given
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6, check_dtype=False)
    gradient, other = (torch.autograd.grad(scalar, data)[0] for scalar in (value, expected))
    torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-6 * gradient.abs().max().item() + 1e-9)
