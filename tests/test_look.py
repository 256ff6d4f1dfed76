"""What a folder or a table of one's own is understood to be; projects of one's own."""

import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from harness import paths, project
from harness.errors import UsageError
from harness.look.__main__ import main
from harness.look.understood import understand


def pictures(folder, count, size=(8, 10)):
    folder.mkdir(parents=True)
    stream = np.random.default_rng(count)
    for number in range(count):
        Image.fromarray(stream.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / f"{number}.png")


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
    pictures(tmp_path / "images", 20, (16, 16))
    (tmp_path / "masks").mkdir()
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[:4, :4] = 255
    for number in range(20):
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
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
