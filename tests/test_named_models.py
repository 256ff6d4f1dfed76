"""Models of timm, torchvision and segmentation-models-pytorch by name."""

import pytest
import torch
import torchvision
from torch import nn

from harness import address, compose, fingerprints
from harness.errors import UsageError
from harness.models import heads, named, named_maps, weights
from harness.models.libraries import patch_for

TIMM, VISION = "harness.models.named.timm_model", "harness.models.named.torchvision_model"
SMP, MAPS = "harness.models.named_maps.smp_model", "harness.models.named_maps.torchvision_map"


def build(target, inputs=(3, 32, 32), classes=10, seed=0, **settings):
    torch.manual_seed(seed)
    of_images = {"stem": "auto"} if target in (TIMM, VISION) else {}
    config = {"_target_": target, "pretrained": False, "arguments": {}, **of_images, **settings}
    return heads.build(config, inputs, {"class_logits": classes})


CLASSIFIERS = [
    (TIMM, "resnet10t", (1, 8, 8)),
    (TIMM, "vit_tiny_patch16_224", (1, 28, 28)),
    (TIMM, "vit_tiny_patch16_224", (3, 48, 32)),
    (TIMM, "mobilenetv3_small_050", (3, 32, 32)),  # its head makes more features than it says
    (TIMM, "swin_tiny_patch4_window7_224", (3, 32, 32)),
    (TIMM, "densenet121", (3, 32, 32)),
    (TIMM, "inception_v3", (3, 75, 75)),
    (TIMM, "vgg11", (3, 32, 32)),
    (TIMM, "deit_tiny_distilled_patch16_224", (3, 32, 32)),  # two outputs, with a classifier
    (TIMM, "mvitv2_tiny", (3, 64, 64)),
    (VISION, "resnet18", (1, 28, 28)),
    (VISION, "squeezenet1_1", (3, 32, 32)),  # its classifier is a convolution
    (VISION, "googlenet", (3, 32, 32)),  # with auxiliary classifiers
    (VISION, "vit_b_16", (3, 32, 32)),
]


@pytest.mark.parametrize(("target", "name", "inputs"), CLASSIFIERS)
def test_classifiers_by_name_take_the_images_they_are_given(target, name, inputs):
    with torch.device("meta"):
        model = build(target, inputs, name=name)
        outputs = model.train()(torch.empty(2, *inputs))
    assert outputs["features"].shape == (2, model.num_features)
    assert outputs["class_logits"].shape == (2, 10)


MAPS_BY_NAME = [
    (SMP, {"arch": "unet", "encoder": "resnet18"}),
    (SMP, {"arch": "segformer", "encoder": "mit_b0"}),
    (SMP, {"arch": "fpn", "encoder": "tu-mobilenetv3_small_050"}),
    (MAPS, {"name": "lraspp_mobilenet_v3_large"}),
]


@pytest.mark.parametrize(("target", "settings"), MAPS_BY_NAME)
def test_segmentation_models_by_name_answer_for_every_pixel(target, settings):
    model = build(
        target, (1, 32, 64), classes=3, **settings
    )  # smp reads numbers while it builds, so not without storage
    with torch.no_grad():
        outputs = model.eval()(torch.zeros(2, 1, 32, 64))
    assert model.dense
    assert outputs["class_logits"].shape == (2, 3, 32, 64)


def test_small_images_get_a_stem_that_suits_them():
    """The stem of He et al. for CIFAR leaves 4x4 features of 32x32, that for ImageNet one."""
    for target in (TIMM, VISION):
        small = build(target, name="resnet18")
        assert small.body.net.conv1.stride == (1, 1)
        assert small.body.net.conv1.kernel_size == (3, 3)
        assert small.body.notes == (f"resnet18: {named.STEM_NOTE}",)
        large = build(target, name="resnet18", stem="original")
        assert large.body.net.conv1.stride == (2, 2)
        assert large.body.notes == (
            "resnet18: images of 32x32 go through a stem made for 224x224: they are left with 1x1 features",
        )
    with torch.device("meta"):
        assert build(TIMM, (3, 64, 64), name="resnet18").body.net.conv1.stride == (2, 2)
        swin = build(TIMM, name="swin_tiny_patch4_window7_224").body.net
        vit = build(TIMM, name="vit_tiny_patch16_224").body.net
    assert swin.patch_embed.patch_size == (2, 2)
    assert vit.patch_embed.grid_size == (8, 8)


@pytest.mark.parametrize(
    ("size", "patch"), [((224, 224), 16), ((32, 32), 4), ((64, 64), 8), ((28, 28), 4), ((8, 8), 1), ((96, 64), 8)]
)
def test_patches_divide_images_and_leave_a_grid(size, patch):
    assert patch_for(size, 16) == patch


REFUSED = [
    (TIMM, {"name": "resnet5o"}, 32, "unknown timm model 'resnet5o': did you mean resnet50"),
    (TIMM, {"name": "resnet50.a9"}, 32, "unknown timm model 'resnet50.a9': did you mean resnet50."),
    (TIMM, {"name": "inception_v3"}, 32, "inception_v3 cannot take images of 32x32 pixels: it needs 75x75 at least"),
    (TIMM, {"name": "levit_128s"}, 31, "levit_128s cannot"),
    (TIMM, {"name": "vit_tiny_patch16_224"}, 31, "no patch of 2 to 16 pixels divides images of 31x31"),
    (TIMM, {"name": "resnet10t", "arguments": {"colour": 1}}, 32, "timm cannot build resnet10t: "),
    (TIMM, {"name": "mobilenetv3_small_050", "stem": "small"}, 32, "no stem for small images is known for mobilenetv3"),
    (TIMM, {"name": "resnet10t", "pretrained": "no.pth"}, 32, "model.pretrained=no.pth: there is no such file"),
    (VISION, {"name": "resnet81"}, 32, "unknown torchvision model 'resnet81': did you mean resnet18"),
    (VISION, {"name": "squeezenet1_1"}, 8, "squeezenet1_1 cannot take images of 8x8 pixels: it needs 17x17 at least"),
    (SMP, {"arch": "unett", "encoder": "resnet18"}, 32, "unknown smp architecture 'unett': did you mean unet"),
    (SMP, {"arch": "unet", "encoder": "resnet81"}, 32, "unknown smp encoder 'resnet81': did you mean resnet18"),
    (SMP, {"arch": "unet", "encoder": "resnet18"}, 30, "unet with resnet18 halves its input until it is 32 times"),
    (
        MAPS,
        {"name": "fcn_resnet5"},
        32,
        "unknown torchvision segmentation model 'fcn_resnet5': did you mean fcn_resnet",
    ),
]


@pytest.mark.parametrize(("target", "settings", "side", "sentence"), REFUSED)
def test_what_cannot_be_built_is_said_in_one_sentence(target, settings, side, sentence):
    with torch.device("meta"), pytest.raises(UsageError) as caught:
        build(target, (3, side, side), **settings)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize(
    ("target", "settings", "head"),
    [
        (TIMM, {"name": "resnet10t"}, "fc"),
        (VISION, {"name": "squeezenet1_1"}, "classifier"),
        (SMP, {"arch": "linknet", "encoder": "resnet18"}, "segmentation_head"),
        (MAPS, {"name": "lraspp_mobilenet_v3_large"}, "classifier.high_classifier"),
    ],
)
def test_weights_from_a_file_fill_all_but_the_head(target, settings, head, tmp_path):
    """As another program saved them: for colours, 1000 classes, and the library's own stem."""
    torch.manual_seed(1)
    whole = _whole(target, settings)
    torch.save({"state_dict": whole.state_dict()}, tmp_path / "w.pth")
    model = build(target, pretrained=str(tmp_path / "w.pth"), **settings)
    given = whole.state_dict()
    loaded = {key: value for key, value in model.body.net.state_dict().items() if key in given and value.ndim > 1}
    assert len(loaded) > 10
    same = [key for key, value in loaded.items() if torch.equal(value, given[key])]
    assert set(loaded) - set(same) <= {key for key in loaded if "low_classifier" in key or "high_classifier" in key}
    assert f"{head} was left out: the head" in model.body.notes[0]
    grey = build(target, (1, 32, 32), pretrained=str(tmp_path / "w.pth"), **settings) if target != SMP else model
    assert isinstance(grey, nn.Module)


def _whole(target, settings):
    import segmentation_models_pytorch as smp
    import timm

    name = settings.get("name")
    if target == TIMM:
        return timm.create_model(name)
    if target == VISION:
        return torchvision.models.get_model(name, weights=None)
    if target == SMP:
        return smp.create_model(settings["arch"], settings["encoder"], encoder_weights=None, classes=4)
    return torchvision.models.get_model(name, weights=None, weights_backbone=None)


def test_weights_of_another_model_are_refused(tmp_path):
    path = str(tmp_path / "w.pth")
    torch.save(torchvision.models.squeezenet1_1().state_dict(), path)
    with pytest.raises(UsageError, match=r"w.pth does not fit resnet10t: of its \d+ weights \d+ are missing"):
        build(TIMM, name="resnet10t", pretrained=path)
    (tmp_path / "w.pth").write_bytes(b"no weights at all")
    with pytest.raises(UsageError, match="cannot be read as weights"):
        build(TIMM, name="resnet10t", pretrained=path)


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        (TIMM, {"name": "resnet10t"}),
        (VISION, {"name": "resnet18"}),
        (SMP, {"arch": "unet", "encoder": "resnet18"}),
        (SMP, {"arch": "unet", "encoder": "tu-resnet10t"}),
        (MAPS, {"name": "fcn_resnet50"}),
    ],
)
def test_without_a_connection_one_sentence_says_what_to_do(target, settings, monkeypatch):
    def unreachable(*_):
        raise OSError("no route")

    monkeypatch.setattr(weights, "reachable", unreachable)
    monkeypatch.setattr(weights, "torchvision_weights", unreachable)
    with (
        torch.device("meta"),
        pytest.raises(UsageError, match=r"could not be fetched \(OSError\): connect to the internet"),
    ):
        build(target, pretrained=True, **settings)


# ---------------------------------------------------------------- what a run is


def part(tmp_path, **settings):
    spec = address.spec_of(compose.compose_run(["model=timm", *(f"model.{k}={v}" for k, v in settings.items())]).config)
    parts = address.Addresses(tmp_path, tmp_path / "results").parts(spec)
    return next(each for each in parts if each.component == "model")


def test_the_key_knows_name_library_and_bytes_of_weights(tmp_path, monkeypatch):
    plain, other = part(tmp_path), part(tmp_path, name="resnet34")
    assert plain.spec != other.spec
    path = tmp_path / "w.pth"
    path.write_bytes(b"one")
    one = part(tmp_path, pretrained=path)
    path.write_bytes(b"another")
    assert len({plain.tree, one.tree, part(tmp_path, pretrained=path).tree}) == 3
    with pytest.raises(UsageError, match="there is no such file"):
        part(tmp_path, pretrained=tmp_path / "none")
    monkeypatch.setattr(address.importlib.metadata, "version", lambda name: "9.9")
    assert part(tmp_path).tree != plain.tree


def test_models_by_name_have_a_fingerprint():
    config = {"_target_": TIMM, "name": "resnet10t", "pretrained": False, "stem": "auto", "arguments": {}}
    found = fingerprints.of("model", config, {})
    assert found
    assert found["inputs"] == "(1, 8, 8)"


# ---------------------------------------------------------------- a builder of one's own


def own(*, in_channels: int, image_size: list[int], width: int):
    body = nn.Conv2d(in_channels, width, 1)
    body.num_features, body.dense = width, True
    return body


def test_a_builder_of_ones_own_brings_its_settings():
    chosen = ["model=own", f"model._target_={__name__}.own"]
    found = compose.compose_run([*chosen, "+model.width=4"]).config["model"]
    model = heads.build(found, (3, 8, 8), {"class_logits": 2})
    assert model(torch.zeros(1, 3, 8, 8))["class_logits"].shape == (1, 2, 8, 8)
    for overrides, sentence in (
        ([*chosen, "+model.width=wide"], "model.width=wide: use a whole number from 1 on."),
        ([*chosen, "+model.with=4"], "unknown setting 'model.with'"),
        (["model=own"], "model=own needs a builder: model._target_=MODULE.FUNCTION."),
    ):
        with pytest.raises(UsageError) as caught:
            compose.compose_run(overrides)
        assert str(caught.value).startswith(sentence)


def test_every_segmentation_builder_is_reached_by_its_option():
    assert compose.option("model", "smp")["_target_"].endswith(named_maps.smp_model.__name__)
    assert compose.option("model", "torchvision_segmentation")["_target_"].endswith(named_maps.torchvision_map.__name__)


# ---------------------------------------------------------------------- the networks of Next Generation Loss

DEEP = "harness.models.deep_head.timm_with_deep_head"


def deep(**changes):
    torch.manual_seed(0)
    config = {"name": "resnet10t", "enlarge": 2, "hidden": [16, 8], "dropout": 0.5, "pretrained": False, **changes}
    return heads.build({"_target_": DEEP, **config}, (3, 32, 32), {"class_logits": 10})


def test_the_head_of_ngl_has_its_nine_layers_in_their_order():
    model = deep()
    flat = 512 * 2 * 2  # 64x64 pixels, made smaller thirty-two times
    layers = [type(layer).__name__ for layer in model.body.layers]
    assert layers == ["BatchNorm1d", "Linear", "ReLU", "Dropout"] * 2 + ["BatchNorm1d"]
    rest = (weight for name, weight in model.named_parameters() if "net" not in name and name.endswith("weight"))
    widths = [tuple(weight.shape) for weight in rest]
    assert widths == [(flat,), (16, flat), (16,), (8, 16), (8,), (10, 8)]
    images = torch.randn(4, 3, 32, 32)
    model.eval()
    twice = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = model.body.layers(model.body.body.net(twice).flatten(1))
    torch.testing.assert_close(model(images)["features"], expected)
    model.train()(images)["class_logits"].sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_what_has_no_map_and_numbers_out_of_range_are_refused():
    with pytest.raises(UsageError, match="cannot be used here"):
        deep(name="vit_tiny_patch16_224", enlarge=7)
    with pytest.raises(ValueError, match="use a whole number from 1 on, at least one width"):
        deep(hidden=[])
    with pytest.raises(UsageError, match="cannot take images of 64x64 pixels"):
        deep(name="inception_v3")
