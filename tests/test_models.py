from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch
from omegaconf import OmegaConf
from torch import nn

from harness.models import heads, pretrained
from harness.models.resnet import WideBlock
from harness.models.vit import ConvStem

FOLDER = Path(__file__).resolve().parents[1] / "conf" / "model"
ALL = sorted(path.stem for path in FOLDER.glob("*.yaml"))
BODIES = ("cnn", "convnext", "mlp", "resnet", "vit")  # modules with models that classify whole images
BY_NAME = (
    "own",
    "smp",
    "timm",
    "timm_detector",
    "torchvision",
    "torchvision_segmentation",
)  # a name or a builder is given
TARGETS = {name: OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))["_target_"] for name in ALL}
NAMES = [name for name in ALL if name not in BY_NAME and TARGETS[name].split(".")[-2] in BODIES]
# millions of parameters with ten classes on 32x32x3: at least, at most
SIZES = {
    "cnn_grid": (0.04, 0.05),
    "cnn_micro": (0.09, 0.1),
    "convnext_micro": (0.6, 0.7),
    "convnext_tiny": (27, 28.6),
    "mlp": (0.8, 0.9),
    "resnet18": (11.1, 11.2),
    "resnet_small": (0.3, 0.32),
    "vit_micro": (0.6, 0.7),
    "vit_nano": (0.09, 0.12),
    "vit_small": (21, 22),
    "vit_tiny": (5.3, 5.7),
    "wide_resnet28_10": (36.4, 36.6),
}
# what a test on real numbers takes instead of a model for GPUs: the same code, narrower
SHRUNK = {
    "convnext_tiny": {"dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    "resnet18": {"channels": [8, 16, 24, 32]},
    "vit_small": {"dim": 48, "depth": 2},
    "vit_tiny": {"dim": 48, "depth": 2},
    "wide_resnet28_10": {"depth": 10, "widen": 1},
}
SHAPES = [(1, 8), (1, 28), (3, 32)]
TOO_SMALL = {("convnext_micro", 8)}


def config(name, **changes):
    return {**OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml")), **changes}


def build(name, in_channels=3, size=32, classes=10, seed=0, **changes):
    torch.manual_seed(seed)
    outputs = {} if classes is None else {"class_logits": classes}
    return heads.build(config(name, **changes), (in_channels, size, size), outputs)


def small(name, **more):
    return build(name, **more, **SHRUNK.get(name, {}))


def batch(channels=3, size=32, count=4):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("channels", "size"), SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_every_model_fits_every_data_set_or_says_why_not(name, channels, size):
    with torch.device("meta"):
        if (name, size) in TOO_SMALL:
            with pytest.raises(ValueError, match=f"images of {size}x{size} pixels are too small"):
                build(name, channels, size)
            return
        model = build(name, channels, size)
        outputs = model(torch.empty(2, channels, size, size))
    assert outputs["features"].shape == (2, model.num_features)
    assert outputs["class_logits"].shape == (2, 10)


@pytest.mark.parametrize("name", NAMES)
def test_size_is_what_the_yaml_promises(name):
    with torch.device("meta"):
        count = sum(p.numel() for p in build(name).parameters())
    least, most = SIZES[name]
    assert least <= count / 1e6 <= most


def test_known_sizes_of_published_models():
    """With ten classes: WideResNet-28-10 has 36.5 M (its paper, table 1), ResNet-18 for CIFAR 11,173,962."""
    with torch.device("meta"):
        counts = [sum(p.numel() for p in build(name).parameters()) for name in ("wide_resnet28_10", "resnet18")]
    assert counts == [36_479_194, 11_173_962]


@pytest.mark.parametrize("name", NAMES)
def test_what_the_trainer_reads_is_there(name):
    fields = config(name)
    assert 1e-4 <= fields["lr"] <= 1e-2
    assert fields["precision"] in ("bf16", "fp32")
    assert isinstance(fields["channels_last"], bool)
    assert fields["pretrained"] is False


@pytest.mark.parametrize("name", ALL)
def test_every_model_declares_what_network_it_is(name):
    assert config(name)["network"] in ((None,) if name in BY_NAME else ("cnn", "transformer", "mlp"))


@pytest.mark.parametrize("name", NAMES)
def test_the_body_starts_the_same_with_and_without_a_head(name):
    with_head, headless, other = small(name), small(name, classes=None), small(name, seed=1)
    assert not headless.heads
    for key, value in headless.body.state_dict().items():
        assert torch.equal(value, with_head.body.state_dict()[key])
    assert any(not torch.equal(a, b) for a, b in zip(with_head.parameters(), other.parameters(), strict=True))
    assert headless(batch()).keys() == {"features"}
    more = small(name, classes=100)
    assert all(torch.equal(a, b) for a, b in zip(more.body.parameters(), with_head.body.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_prediction_is_the_head_of_the_features(name):
    model = small(name).eval()
    outputs = model(batch())
    torch.testing.assert_close(outputs["class_logits"], model.heads["class_logits"](outputs["features"]))


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_every_parameter(name):
    """After two steps: residual branches that start at zero pass none at first."""
    model = small(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch(count=16))["class_logits"], torch.arange(16) % 10).backward()
        optimizer.step()
    silent = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("name", NAMES)
def test_bf16_and_channels_last_give_nearly_the_same(name):
    model, images = small(name).eval(), batch()
    plain = model(images)
    layout = model.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(layout["class_logits"], plain["class_logits"], rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(images)
    assert low["class_logits"].dtype == torch.bfloat16
    torch.testing.assert_close(low["class_logits"].float(), plain["class_logits"], rtol=0.1, atol=0.1)


def test_every_kind_of_output_has_a_head_of_its_own():
    """The first heads start the same however many follow; a model with no number of features is complete by itself."""
    model = heads.build(config("mlp"), (6,), {"numbers": 1, "class_logits": 3}).eval()
    outputs = model(torch.randn(5, 6))
    assert {name: tuple(x.shape[1:]) for name, x in outputs.items()} == {
        "features": (256,), "numbers": (1,), "class_logits": (3,),
    }  # fmt: skip
    torch.manual_seed(0)
    one = heads.build(config("mlp"), (6,), {"numbers": 1})
    torch.manual_seed(0)
    two = heads.build(config("mlp"), (6,), {"numbers": 1, "class_logits": 3})
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    whole = heads.build({"_target_": "tests.test_models.complete", "lr": 0.1, "network": "mlp"}, (6,), {})
    assert isinstance(whole, nn.Linear)
    assert whole.in_features == 6


def complete(*, inputs):
    return nn.Linear(*inputs, 2)


def test_a_wide_block_without_its_branch_is_its_shortcut():
    block = WideBlock(4, 4, 1)
    nn.init.zeros_(block.conv2.weight)
    images = batch(channels=4, size=6)
    assert torch.equal(block(images), images)
    assert WideBlock(4, 8, 2)(images).shape == (4, 8, 3, 3)


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_a_convolutional_stem_makes_one_token_per_patch(patch_size):
    stem = ConvStem(img_size=8, patch_size=patch_size, in_chans=3, embed_dim=16)
    assert stem(batch(size=8)).shape == (4, stem.num_patches, 16)
    assert stem.num_patches == (8 // patch_size) ** 2


@pytest.mark.parametrize(
    ("name", "size", "changes", "sentence"),
    [
        (
            "vit_micro",
            30,
            {},
            "Patches of 4x4 pixels do not divide images of 30x30; choose model.patch_size among 1, 2, 3,",
        ),
        ("vit_nano", 9, {"patch_size": 3}, "A convolutional stem halves the image, so model.patch_size=3 must be"),
        ("vit_micro", 32, {"heads": 5}, "model.heads=5 does not divide model.dim=96"),
        ("vit_micro", 32, {"pool": "max"}, "model.pool is max; it must be avg or token."),
        ("convnext_micro", 8, {}, "convnext shrinks its input 16 times, so images of 8x8 pixels are too small"),
        ("convnext_micro", 33, {}, "Patches of 2x2 pixels do not divide images of 33x33"),
        ("convnext_micro", 32, {"reduction": 4}, "model.reduction is 4; it must be 8, 16 or 32."),
        ("cnn_micro", 3, {}, "cnn shrinks its input 4 times, so images of 3x3 pixels are too small"),
        ("wide_resnet28_10", 32, {"depth": 30}, "model.depth is 30; a wide ResNet has 6n + 4 layers"),
        ("mlp", 32, {"pretrained": True}, "timm has no pretrained weights for this model; set model.pretrained=false."),
        (
            "resnet18",
            32,
            {"pretrained": True},
            "timm's weights resnet18.a1_in1k do not fit this model (they differ at conv1",
        ),
    ],
)
def test_what_cannot_be_built_is_said_in_one_sentence(name, size, changes, sentence):
    with torch.device("meta"), pytest.raises(ValueError, match=r"\w") as caught:
        build(name, 3, size, **changes)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


PRETRAINED = [
    ("vit_tiny", {}),
    ("resnet18", {"imagenet_stem": True}),
    ("convnext_tiny", {"patch_size": 4, "reduction": 32}),
]


@pytest.fixture
def hub(monkeypatch):
    """timm's hub, in which every weight is 0.5; `hub.reachable = False` takes it away."""

    class Hub:
        reachable = True

        def model_info(self, repository, timeout):
            if not self.reachable:
                raise URLError("no route")

    def create_model(name, pretrained=False, **settings):
        model = original(name, **settings)
        if pretrained:
            for value in model.state_dict().values():
                value.fill_(0.5)
        return model

    original, hub = timm.create_model, Hub()
    monkeypatch.setattr(timm, "create_model", create_model)
    monkeypatch.setattr(pretrained, "HfApi", lambda: hub)
    monkeypatch.setattr(pretrained, "try_to_load_from_cache", lambda repository, file: None)
    return hub


@pytest.mark.parametrize(("name", "changes"), PRETRAINED)
def test_pretrained_weights_fill_the_whole_body(name, changes, hub):
    model = build(name, 1, 32, pretrained=True, **changes)
    assert all((value.float() == value.new_tensor(0.5).float()).all() for value in model.body.parameters())
    assert model.heads["class_logits"].weight.std() > 0


@pytest.mark.parametrize(("name", "changes"), PRETRAINED)
def test_without_a_connection_pretrained_weights_fail_clearly(name, changes, hub):
    hub.reachable = False
    with pytest.raises(ValueError, match=r"could not be fetched \(URLError\); connect to the internet once, or set"):
        build(name, 1, 32, pretrained=True, **changes)
