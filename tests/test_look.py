"""What a folder or a table of one's own is understood to be; projects of one's own."""

import base64
import io
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from datasets.boxes import BoxSplits
from datasets.splits import Images
from harness import choose, paths, project
from harness.errors import UsageError
from harness.look.__main__ import main
from harness.look.pictures import colour, drawn
from harness.look.understood import understand, with_data


def pictures(folder, count, size=(8, 10)):
    folder.mkdir(parents=True)
    stream = np.random.default_rng(count)
    for number in range(count):
        Image.fromarray(stream.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / f"{number}.png")


def with_masks(folder):
    pictures(folder / "images", 20, (16, 16))
    (folder / "masks").mkdir()
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[:4, :4] = 255
    for number in range(20):
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")


def decoded(picture):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.source.partition(",")[2]))).convert("RGB"))


def test_a_folder_per_class(tmp_path, capsys):
    pictures(tmp_path / "cat", 12)
    pictures(tmp_path / "dog", 100)
    assert main([f"data={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "112 images" in said
    assert "times as frequent as cat: judge by G-mean" in said
    command = shlex.split(said.strip().splitlines()[-1])
    assert command[:3] == ["python", "-m", "harness.run"]
    assert {"task=classification", "dataset=images", f"dataset.path={tmp_path}"} <= set(command)
    race = shlex.split(said.strip().splitlines()[-2])
    assert race == ["python", "-m", "harness", "choose", *command[3:], "budget=1h"]


def test_boxes_end_with_a_race_in_one_of_their_roles_and_name_masks_beside_them(tmp_path, capsys):
    with_masks(tmp_path)
    box = "<object><name>{}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
    for picture in (tmp_path / "images").iterdir():
        kind = "cat" if int(picture.stem) % 2 else "dog"
        size = "<size><width>16</width><height>16</height><depth>3</depth></size>"
        text = f"<annotation><filename>{picture.name}</filename>{size}{box.format(kind)}</annotation>"
        (tmp_path / "images" / f"{picture.stem}.xml").write_text(text)
    assert main([f"data={tmp_path}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "There are masks, too: task=segmentation reads these." in lines
    once, race = shlex.split(lines[-1]), shlex.split(lines[-2])
    assert race == [
        "python",
        "-m",
        "harness",
        "choose",
        *once[3:],
        "losses.boxes=[giou,ciou,nwd,smooth_l1]",
        "budget=1h",
    ]
    assert choose.read(race[4:]).study.axes["loss.boxes"] == ["giou", "ciou", "nwd", "smooth_l1"]
    assert main([f"data={tmp_path}", "task=segmentation"]) == 0
    assert "There are masks" not in capsys.readouterr().out


def test_classes_are_counted_by_part(tmp_path, capsys):
    pictures(tmp_path / "cat", 20)
    pictures(tmp_path / "a long name", 40)
    assert main([f"data={tmp_path}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = lines.index("class        training  validation  test")
    counts = {line[:11].strip(): sum(map(int, line[11:].split())) for line in lines[head + 1 : head + 3]}
    assert counts == {"a long name": 40, "cat": 20}


def test_images_with_several_labels_are_for_a_task_of_their_own(tmp_path):
    pictures(tmp_path / "pictures", 60)
    labels = [";".join(["cat"] * (n % 2) + ["dog"] * (n % 3 == 0)) for n in range(60)]
    rows = [f"{n}.png,{kinds}" for n, kinds in enumerate(labels)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,labels", *rows]))
    found = understand(tmp_path)
    assert found.task == found.overrides["task"] == "multilabel"
    assert understand(tmp_path, "multilabel") == found
    assert [name for name, *_ in found.classes] == ["cat", "dog"]


def test_images_and_masks(tmp_path):
    with_masks(tmp_path)
    found = understand(tmp_path)
    assert found.task == "segmentation"
    assert found.overrides["dataset.binary"] is True
    assert any("15 times as frequent" in warning for warning in found.warnings)


def test_tables_of_numbers_and_of_classes(tmp_path):
    rows = [f"{i / 4},{'ab'[i % 2]},{1000 if i == 7 else i % 9 + 0.5}" for i in range(60)]
    (tmp_path / "homes.csv").write_text("\n".join(["size,kind,price", *rows]))
    numbers = understand(tmp_path / "homes.csv")
    classes = understand(tmp_path / "homes.csv", None, {"dataset.target": "kind"})
    assert (numbers.task, classes.task) == ("regression", "table_classification")
    assert any("huber" in warning for warning in numbers.warnings)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data=nowhere"], "there is nothing at nowhere"),
        (["data=."], "holds nothing that is understood"),
        (["data=.", "task=segmentatoin"], "did you mean segmentation"),
        (["data=.", "loss=focal"], "loss is nothing to look at"),
        (["task=segmentation"], "give data=PATH"),
    ],
)
def test_what_is_not_understood_gets_one_sentence(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    found = capsys.readouterr().err
    assert said in found
    assert len(found.splitlines()) == 1


def test_configs_of_ones_own_are_found_by_flag_folder_and_variable(tmp_path):
    made = project.make(tmp_path / "mine")
    own = (tmp_path / "mine" / "conf").resolve()
    given = ["study=mine", "--config-dir", "mine", "plan_only=true"]
    assert paths.config_dir(given, tmp_path, None) == own
    assert given == ["study=mine", "plan_only=true"]
    assert paths.config_dir([f"--config-dir={own}"], paths.ROOT, None) == own
    assert paths.config_dir([], tmp_path / "mine", None) == paths.config_dir([], tmp_path, str(own)) == own
    assert paths.config_dir([], paths.ROOT, None) is paths.config_dir([], tmp_path, None) is None
    with pytest.raises(UsageError, match="is there already"):
        project.make(tmp_path / "mine")
    assert len(made) == 4


def test_a_project_runs_from_its_folder_and_keeps_its_results(tmp_path):
    project.make(tmp_path / "mine")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LOSSBENCH_")} | {
        "PYTHONPATH": str(paths.ROOT)
    }
    command = [
        sys.executable,
        "-m",
        "harness.run",
        "loss=my_loss",
        "model=mlp",
        "trainer.epochs=1",
        "dataset.train_size=100",
    ]
    done = subprocess.run(command, cwd=tmp_path / "mine", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "my_loss, mlp, digits" in done.stdout
    assert list((tmp_path / "mine" / "results" / "runs").glob("*/record.json"))


def test_pictures_show_masks_in_the_colours_of_their_classes(tmp_path):
    with_masks(tmp_path)
    splits = with_data(tmp_path)[1]
    shown, bare = drawn(splits, 3)[0], splits.in_memory().train.images[0].numpy()
    found = decoded(shown)
    factor = 160 // bare.shape[1]
    assert found.shape == (160, 160, 3)
    assert np.array_equal(found[20 * factor, 20 * factor], bare[:, 20, 20])
    assert not np.array_equal(found[0, 0], bare[:, 0, 0])
    assert shown.words == "background 94 %, object 6 %"


def test_pictures_show_boxes_where_they_are():
    image = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    boxes = torch.tensor([[[4.0, 4, 12, 12, 1, 0], [0, 0, 2, 2, 0, 1], [0, 0, 0, 0, -1, 0]]])
    part = Images(image, boxes, torch.arange(1))
    (shown,) = drawn(BoxSplits(part, part, part, ("cat", "dog")))
    found = decoded(shown)
    assert tuple(found[40, 40]) == tuple(found[119, 119]) == colour(1)
    assert tuple(found[0, 0]) == colour(0)
    assert not found[60:100, 60:100].any()
    assert shown.words == "2 boxes: dog, cat; 1 not trained on"


def test_pictures_are_of_every_class_in_turn(tmp_path):
    pictures(tmp_path / "cat", 40)
    pictures(tmp_path / "dog", 12)
    splits = with_data(tmp_path)[1]
    assert [each.words for each in drawn(splits, 6)] == ["cat"] * 3 + ["dog"] * 3
    assert len(drawn(splits, 1000)) == len(splits.train)


def test_sizes_of_objects_are_told(tmp_path):
    with_masks(tmp_path)
    said = " ".join(understand(tmp_path).facts)
    assert "a side (the root of their area) of 8 pixels in the median" in said
    assert "100 % are small" in said


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_accessible_and_shows_what_was_said(width, tmp_path, browser, capsys):
    with_masks(tmp_path)
    file = tmp_path / "look.html"
    assert main([f"data={tmp_path}", f"page={file}"]) == 0
    said = capsys.readouterr().out.splitlines()
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(file.as_uri())
    shown = page.inner_text("body")
    assert all(line in shown for line in (said[1], said[2], said[-2]))
    assert page.locator(".sheet img").count() == len(with_data(tmp_path)[1].train)
    assert not page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert not Axe().run(page).response["violations"]
    page.close()


@pytest.mark.parametrize(("name", "said"), [("look.txt", "ends in .html"), ("none/look.html", "there is no folder")])
def test_a_page_that_cannot_be_written_is_refused_first(name, said, tmp_path, capsys):
    assert main([f"data={tmp_path}", f"page={tmp_path / name}"]) == 2
    assert said in capsys.readouterr().err
