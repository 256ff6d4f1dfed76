"""Losses of generators and of the critics that they play against.

Critics give scores (N,...) before any sigmoid; targets are 1 for real items and 0 for generated ones, of which losses
of generators, which see generated items alone, read nothing. A conditional critic sees the condition beside the image;
its losses are these.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from losses.checks import check_float, check_pair
from losses.loss import Reduction, about
from losses.shared import safe_sqrt


@about(
    name="GAN, discriminator",
    family="generative",
    kind="critic_scores",
    link="sigmoid",
    paper="Goodfellow et al., NeurIPS 2014, arXiv 1406.2661, eq. 1",
    evidence="H",
    aliases=("adversarial", "conditional_adversarial", "cgan"),
)
def gan_discriminator(scores: Tensor, target: Tensor, *, reduction: Reduction = "none") -> Tensor:
    """Binary cross-entropy of a critic's scores: real items 1, generated items 0.

    L = ln(1 + exp(-z)) for real, ln(1 + exp(z)) for generated items: binary cross-entropy. Both of one shape, which is
    returned, or the mean.

    >>> gan_discriminator(torch.tensor([1.0, -0.5]), torch.tensor([1.0, 0.0])).sum()
    tensor(0.7873)
    """
    check_pair(scores, target)
    return torch.nn.functional.binary_cross_entropy_with_logits(scores, target, reduction=reduction)


@about(
    name="GAN, generator, minimax",
    family="generative",
    kind="critic_scores",
    link=None,
    paper="Goodfellow et al., NeurIPS 2014, arXiv 1406.2661, eq. 1",
    evidence="H",
    aliases=("gan_saturating",),
)
def gan_minimax(scores: Tensor, target: Tensor) -> Tensor:
    """Log-probability that generated items are recognised as such; its gradient vanishes where the critic is certain.

    L = -ln(1 + exp(z)). Both of one shape, which is returned; the target is not read. Unbounded below.

    >>> gan_minimax(torch.tensor([-0.5]), torch.zeros(1))
    tensor([-0.4741])
    """
    check_pair(scores, target)
    return -torch.nn.functional.softplus(scores)


@about(
    name="GAN, generator, non-saturating",
    family="generative",
    kind="critic_scores",
    link=None,
    paper="Goodfellow et al., NeurIPS 2014, arXiv 1406.2661, sec. 3",
    evidence="H",
    aliases=("gan",),
)
def gan_nonsaturating(scores: Tensor, target: Tensor) -> Tensor:
    """Negative log-probability that generated items are real; its gradient is largest where the critic rejects them.

    L = ln(1 + exp(-z)). Both of one shape, which is returned; the target is not read.

    >>> gan_nonsaturating(torch.tensor([-0.5]), torch.zeros(1))
    tensor([0.9741])
    """
    check_pair(scores, target)
    return torch.nn.functional.softplus(-scores)


@about(
    name="Least-squares GAN, discriminator",
    family="generative",
    kind="critic_scores",
    link=None,
    paper="Mao et al., ICCV 2017, arXiv 1611.04076, eq. 9",
    evidence="H",
)
def lsgan_discriminator(scores: Tensor, target: Tensor) -> Tensor:
    """Half the squared error of a critic's scores: real items 1, generated items 0.

    L = (z - t)^2 / 2. Both of one shape, which is returned.

    >>> lsgan_discriminator(torch.tensor([1.0, -0.5]), torch.tensor([1.0, 0.0])).sum()
    tensor(0.1250)
    """
    check_pair(scores, target)
    return (scores - target).square() / 2


@about(
    name="Least-squares GAN, generator",
    family="generative",
    kind="critic_scores",
    link=None,
    paper="Mao et al., ICCV 2017, arXiv 1611.04076, eq. 9",
    evidence="H",
)
def lsgan_generator(scores: Tensor, target: Tensor) -> Tensor:
    """Half the squared error of the scores of generated items from 1.

    L = (z - 1)^2 / 2. Both of one shape, which is returned; the target is not read.

    >>> lsgan_generator(torch.tensor([-0.5]), torch.zeros(1))
    tensor([1.1250])
    """
    check_pair(scores, target)
    return (scores - 1).square() / 2


@about(
    name="Hinge GAN, discriminator",
    family="generative",
    kind="critic_scores",
    link=None,
    paper="Lim and Ye, Geometric GAN, arXiv 1705.02894; Miyato et al., arXiv 1802.05957",
    evidence="H",
    aliases=("gan_hinge",),
)
def hinge_discriminator(scores: Tensor, target: Tensor) -> Tensor:
    """Hinge on a critic's scores: real items above 1, generated items below -1.

    L = max(1 - z, 0) for real, max(1 + z, 0) for generated items. Both of one shape, which is returned.

    >>> hinge_discriminator(torch.tensor([1.0, -0.5]), torch.tensor([1.0, 0.0])).sum()
    tensor(0.5000)
    """
    check_pair(scores, target)
    return (1 - (2 * target - 1) * scores).relu()


@about(
    name="Wasserstein GAN, critic",
    family="generative",
    kind="critic_scores",
    link=None,
    paper="Arjovsky et al., ICML 2017, arXiv 1701.07875, eq. 3",
    evidence="H",
    aliases=("wgan",),
)
def wgan_critic(scores: Tensor, target: Tensor) -> Tensor:
    """Negated score of real items and score of generated ones; unbounded unless the critic is Lipschitz.

    L = -z for real, z for generated items; clip the weights, or penalise the gradient (arXiv 1704.00028). Both of one
    shape, which is returned.

    >>> wgan_critic(torch.tensor([1.0, -0.5]), torch.tensor([1.0, 0.0])).sum()
    tensor(-1.5000)
    """
    check_pair(scores, target)
    return (1 - 2 * target) * scores


@about(
    name="Wasserstein or hinge GAN, generator",
    family="generative",
    kind="critic_scores",
    link=None,
    paper="Arjovsky et al., ICML 2017, arXiv 1701.07875",
    evidence="H",
)
def wgan_generator(scores: Tensor, target: Tensor) -> Tensor:
    """Negated score of generated items.

    L = -z. Both of one shape, which is returned; the target is not read.

    >>> wgan_generator(torch.tensor([-0.5]), torch.zeros(1))
    tensor([0.5000])
    """
    check_pair(scores, target)
    return -scores


@about(
    name="Cycle consistency",
    family="generative",
    kind="images",
    link=None,
    paper="Zhu et al., CycleGAN, ICCV 2017, arXiv 1703.10593, eq. 2",
    evidence="H",
)
def cycle(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of an image and its reconstruction after a round trip to another domain.

    L = mean |F(G(x)) - x| over the image; the paper weighs it by 10, and an identity term by 5. Both (N,...); returns
    (N,).

    >>> cycle(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    tensor([1.])
    """
    check_pair(prediction, target)
    return (prediction - target).abs().flatten(1).mean(1)


@about(
    name="Diffusion, noise prediction",
    family="generative",
    kind="noise",
    link=None,
    paper="Ho et al., NeurIPS 2020, arXiv 2006.11239, eq. 14",
    evidence="H",
    aliases=("noise_prediction",),
)
def ddpm_eps(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error of the predicted noise in a diffusion model.

    L = mean (eps - eps_theta)^2 over the image. Both (N,...); returns (N,).

    >>> ddpm_eps(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    tensor([1.])
    """
    check_pair(prediction, target)
    return (prediction - target).square().flatten(1).mean(1)


@about(
    name="Diffusion, image prediction",
    family="generative",
    kind="images",
    link=None,
    paper="Ho et al., NeurIPS 2020, arXiv 2006.11239, sec. 3.2",
    evidence="H",
    aliases=("diffusion",),
)
def ddpm_x0(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error of the predicted clean image in a diffusion model.

    L = mean (x_0 - x_theta)^2 over the image: noise prediction weighed by (1 - abar)/abar, abar the share of signal
    left. Both (N,...); returns (N,).

    >>> ddpm_x0(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    tensor([1.])
    """
    return ddpm_eps(prediction, target)


@about(
    name="Feature matching",
    family="generative",
    kind="feature_maps",
    link=None,
    paper="Wang et al., pix2pixHD, CVPR 2018, arXiv 1711.11585, eq. 4",
    evidence="H",
)
def feature_matching(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute difference of a critic's features of generated and of real items.

    L = mean |D_i(real) - D_i(generated)| of one layer, real features without gradient; sum over layers, weight 10. Both
    (N,C,...); returns (N,).

    >>> feature_matching(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    tensor([1.])
    """
    return cycle(prediction, target.detach())


@about(
    name="Gradient penalty",
    family="generative",
    kind="critic_slopes",
    link=None,
    paper="Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017, arXiv 1704.00028, eq. 3",
    evidence="H",
    aliases=("wgan_gp",),
)
def gradient_penalty(slopes: Tensor, target: Tensor) -> Tensor:
    """Squared difference of the norm of a critic's gradient and its target: 1 in the paper, weighted by 10.

    L = (|g| - t)^2. slopes: g (N,...), what `critic_slopes` returns; target: t (N,); returns (N,). The slope of |g| at
    0 is 0.

    >>> gradient_penalty(torch.tensor([[3.0, 4.0]]), torch.ones(1))
    tensor([16.])
    """
    if target.shape != slopes.shape[:1]:
        raise ValueError(
            f"target: shape {tuple(target.shape)}, allowed is {tuple(slopes.shape[:1])}, a length per item"
        )
    check_float("slopes", slopes)
    return (safe_sqrt(slopes.flatten(1).square().sum(1)) - target).square()


def critic_slopes(critic: Callable[[Tensor], Tensor], real: Tensor, generated: Tensor, share: Tensor) -> Tensor:
    """Return the gradient of a critic between real and generated items, through which gradients flow to its weights.

    critic: f(items) -> scores (N,), each of its own item only; share: of the real item in the mixture, (N,), drawn from
    0 to 1. Returns the shape of the items, (N,...).

    >>> critic_slopes(lambda x: x.square().sum(1), torch.ones(1, 2), torch.zeros(1, 2), torch.tensor([0.5])).detach()
    tensor([[1., 1.]])
    """
    share = share.view(-1, *[1] * (real.ndim - 1))
    between = torch.lerp(generated.to(real.dtype), real, share).detach().requires_grad_()
    return torch.autograd.grad(critic(between).sum(), between, create_graph=True)[0]


@about(
    name="Divergence of latents",
    family="generative",
    kind="latents",
    link=None,
    paper="Kingma and Welling, Auto-encoding variational Bayes, arXiv 1312.6114, app. B",
    evidence="H",
    aliases=("gaussian_kl",),
)
def latent_divergence(latents: Tensor, target: Tensor) -> Tensor:
    """KL divergence of diagonal normal posteriors from the standard normal: the regulariser of a VAE.

    L = 1/2 sum_j (m_j^2 + exp(v_j) - v_j - 1), v in the exponential at most 80, above which only the last v has a
    slope. latents: (N,2,F), means m and log-variances v, as the features that a model returns; target: (N,...), not
    read; returns (N,), in nats.

    >>> latent_divergence(torch.tensor([[[0.5], [-1.0]]]), torch.zeros(1))
    tensor([0.3089])
    """
    if latents.ndim < 3 or latents.shape[1] != 2 or len(target) != len(latents):
        raise ValueError(f"latents: shape {tuple(latents.shape)}, allowed is ({len(target)}, 2, F)")
    check_float("latents", latents)
    mean, log_variance = latents.unbind(1)
    # near v = 0 this keeps more digits than e^v - v - 1
    return (mean.square() + log_variance.clamp_max(80).expm1() - log_variance).flatten(1).sum(1) / 2
