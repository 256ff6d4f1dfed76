"""python -m scripts.architectures

Build every architecture that the tables of *A Comprehensive Review* name, as far as one can be built by name here, and
write the table of docs/models.md: how, with how many parameters, or why not. Nothing is downloaded.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass

import torch

from harness import compose
from harness.models import heads
from harness.paths import PUBLISHED, ROOT

PAGE = ROOT / "docs" / "models.md"
MARK = "<!-- python -m scripts.architectures writes what follows -->\n"
Key = tuple[str, str]
"""Method and reference, as results/published/review_methods.csv has them."""
IMAGES, OF_INCEPTION, SMALL, TABLE = (3, 224, 224), (3, 299, 299), (3, 32, 32), (30,)


@dataclass(frozen=True)
class Built:
    """How an architecture is built here.

    Attributes:
        command: overrides, as on the command line.
        inputs: shape of one input.
        classes: how many numbers its head gives.
        remark: in what it differs from the architecture named.
        whole: False where only a part or another form of it is built.
    """

    command: str
    inputs: tuple[int, ...] = IMAGES
    classes: int = 1000
    remark: str = ""
    whole: bool = True


BUILT: dict[Key, Built] = {
    ("VGG", "27"): Built("model=timm model.name=vgg16"),
    ("Inceptionv3", "28"): Built("model=timm model.name=inception_v3", OF_INCEPTION),
    ("WideResNet", "29"): Built("model=wide_resnet28_10", SMALL, 10),
    ("FCN", "69"): Built(
        "model=torchvision_segmentation model.name=fcn_resnet50", classes=21, remark="on ResNet-50 in place of VGG"
    ),
    ("UNet", "70"): Built("model=unet_small", classes=21, remark="half the widths; padded, with batch normalisation"),
    ("DeepLab", "72"): Built("model=smp model.arch=deeplabv3 model.encoder=resnet101", classes=21),
    ("PSPNet", "73"): Built("model=smp model.arch=pspnet model.encoder=resnet50", classes=21),
    ("HRNet", "76"): Built(
        "model=smp model.arch=fpn model.encoder=tu-hrnet_w18", classes=21, remark="as the encoder of an FPN"
    ),
    ("SegFormer", "80"): Built("model=smp model.arch=segformer model.encoder=mit_b0", classes=21),
    ("Segmenter", "79"): Built("model=vit_seg_micro", (3, 64, 64), 21, "its linear decoder, on a small ViT"),
    ("Swin Transformer", "81"): Built(
        "model=smp model.arch=upernet model.encoder=tu-swin_tiny_patch4_window7_224 'model.arguments={img_size: 224}'",
        classes=21,
    ),
    ("DPT", "82"): Built("model=smp model.arch=dpt model.encoder=tu-vit_base_patch16_224.augreg_in21k", classes=21),
    ("FasterR-CNN", "47"): Built(
        "task=two_stage_detection model=torchvision_faster_rcnn",
        classes=80,
        remark="on the pyramid of a ResNet-50; one box for each region, not one for each class",
    ),
    ("RetinaNet", "58"): Built(
        "task=anchor_detection model=torchvision_anchors", classes=80, remark="on the pyramid of a ResNet-50"
    ),
    ("SSD", "48"): Built(
        "task=anchor_detection model=torchvision_anchors model.name=ssd300_vgg16 task.unlike=0.5 task.negatives=3",
        (3, 300, 300),
        80,
    ),
    ("EfficentDet", "57"): Built(
        "task=detection model=timm_detector model.name=efficientnet_b0",
        classes=80,
        remark="its backbone under a plain feature pyramid",
        whole=False,
    ),
    ("DNN", "148"): Built("model=mlp", TABLE, 1, "two hidden layers of 256"),
    ("MViT", "62"): Built(
        "model=timm model.name=mvitv2_tiny",
        remark="for images, second version; no task has video",
        whole=False,
    ),
    ("Wang et al.", "59"): Built(
        "model=timm model.name=resnet50 'model.arguments={block_args: {attn_layer: nl}}'",
        remark="non-local blocks in a ResNet for images; no task has video",
        whole=False,
    ),
    ("CLIP", "105"): Built(
        "model=timm model.name=vit_base_patch16_clip_224", remark="its encoder of images alone", whole=False
    ),
}
METHODS: dict[Key, str] = {
    ("TrojViT", "31"): "an attack on ViT, DeiT and Swin, of which `model=timm` has all",
    ("RepQViT", "32"): "a quantisation of ViT, DeiT and Swin, of which `model=timm` has all",
    ("Yang et al.", "55"): "a loss: `gwd`",
    ("Wang et al.", "56"): "a loss: `nwd`",
    ("Wang et al.", "44,45"): "losses: `focal`, `eiou`",
}
"""What the tables list that is no architecture."""
REASONS: dict[Key, str] = {
    ("FastR-CNN", "46"): "its regions come from outside the model; Faster R-CNN, which proposes its own, is there",
    ("Video-Swin-Tr", "64"): "torchvision has it; no task has video",
    ("Attention-Unet", "78"): "none of the three libraries has its attention gates",
    ("XGBoost", "149"): "trees, which no gradient of a loss of ours trains",
    ("CatBoost", "153"): "trees, which no gradient of a loss of ours trains",
    ("LightGBM", "154"): "trees, which no gradient of a loss of ours trains",
    ("AutoGluon-Tabular", "152"): "an ensemble of other methods",
}
BY_TASK = {
    "action recognition": "no task has video",
    "motion detection": "no task has video",
    "object tracking": "no task has video",
    "text-to-image generation": "no task has texts",
    "audio-to-image generation": "no task has sound",
    "image-to-image generation": "no task turns images into images by such a network",
    "image inpainting": "no task turns images into images by such a network",
    "image dehazing": "no task turns images into images by such a network",
    "time series forecasting": "no task forecasts",
}
NO_LIBRARY = "none of the three libraries has it"


def main() -> None:
    """Write the table below its mark in docs/models.md and print what it counts."""
    told = PAGE.read_text().partition(MARK)[0]
    found = table()
    PAGE.write_text(told + MARK + found)
    print(found.partition("\n\n")[0])


def table() -> str:
    """Return a sentence that counts, and the table in Markdown, a row per method of the review."""
    with (PUBLISHED / "review_methods.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["document"] == "A Comprehensive Review"]
    methods: dict[Key, list[dict[str, str]]] = {}
    for line in lines:
        methods.setdefault((line["method"], line["reference"]), []).append(line)
    if stray := {*BUILT, *METHODS, *REASONS} - methods.keys():
        raise KeyError(f"the review names none of {stray}")
    whole = sum(each.whole for each in BUILT.values())
    rows = ["| table | task | method | built here | parameters |", "|--|--|--|--|--|"]
    for key, same in methods.items():
        how, size = _told(key, same[0]["task"])
        tasks = ", ".join(dict.fromkeys(line["task"] for line in same))
        rows.append(f"| {same[0]['place'].removeprefix('table ')} | {tasks} | {key[0]} [{key[1]}] | {how} | {size} |")
    counted = (
        f"Of the {len(methods)} methods that tables 2, 4, 7 and 8 of the review list, {whole} can be built by name "
        f"and {len(BUILT) - whole} more in part or in another form; {len(METHODS)} are no architectures."
    )
    return f"{counted}\n\n" + "\n".join(rows) + "\n"


def _told(key: Key, task: str) -> tuple[str, str]:
    """Return how a method is built, or why it is not, and its number of parameters in millions."""
    if key in BUILT:
        each = BUILT[key]
        part = "" if each.whole else "in part: "
        return f"{part}`{each.command}`" + f" ({each.remark})" * bool(each.remark), f"{parameters(each) / 1e6:.2f} M"
    if key in METHODS:
        return f"no architecture: {METHODS[key]}", ""
    return REASONS.get(key) or BY_TASK.get(task, NO_LIBRARY), ""


def parameters(built: Built) -> int:
    """Build an architecture with random weights and return how many parameters it has, its head included."""
    import shlex

    config = compose.compose_run(shlex.split(built.command)).config["model"]
    torch.manual_seed(0)
    numbers = {"objects": built.classes, "sides": 4}
    shifts = {"objects": built.classes, "shifts": 4}
    by_task = {"task=detection": numbers, "task=two_stage_detection": shifts, "task=anchor_detection": shifts}
    outputs = by_task.get(built.command.split()[0], {"class_logits": built.classes})
    model = heads.build(config, built.inputs, outputs)
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    main()
