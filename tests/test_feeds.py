"""The same data, resident or streamed from files: the same batches, statistics and runs, bit for bit."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from datasets.decoded import Decoded, batches
from datasets.sources.digits import digits
from datasets.sources.scenes import scenes
from datasets.splits import MissingData
from harness.engines.local import LocalEngine
from harness.errors import UsageError
from harness.feeds.resident import Resident
from harness.feeds.streaming import Streaming
from harness.tasks import Seeds
from harness.training import build
from harness.training.job import Stopped, carry_out, check
from harness.training.loop import Loop

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
FEEDS = {
    "resident": {"_target_": "harness.feeds.resident.Resident"},
    "streaming": {"_target_": "harness.feeds.streaming.Streaming", "workers": 2, "prefetch": 3},
}
SHORT = ("trainer.epochs=2", "trainer.batch_size=16", "trainer.eval_batch_size=32")
KINDS = {
    "classification": (
        "dataset=images", "dataset.path=digits", "dataset.channels=1", "dataset.train_size=150",
        "dataset.augment={shift: 1, flip: true, cutout: 2}",
    ),
    "segmentation": ("task=segmentation_windows", "task.crop=[24,24]", "model=fcn_micro"),
    "localisation": ("task=localisation",),
}  # fmt: skip
MASKED = (
    "dataset=folder", "dataset.path=scenes", "dataset.classes=[background,zero,one]", "dataset.size=[32,32]",
    "dataset.valid_size=20", "dataset.test_size=25", "dataset.augment={zoom: [0.8, 1.5], flip: true, colour: 0.2}",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders of PNG files: digits, a folder for each class, and scenes with their masks."""
    home = tmp_path_factory.mktemp("data")
    made = digits(train_size=240, valid_size=60, test_size=60, split_seed=0)
    for name, part in made.parts.items():
        for number, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
            write(home / "digits" / name / str(int(label)) / f"{number:03}.png", image[0])
    part = scenes(size=[32, 32], digits=[0, 1], train_size=110, valid_size=1, test_size=1, split_seed=0).train
    for number, (image, mask) in enumerate(zip(part.images, part.targets, strict=True)):
        write(home / "scenes" / "images" / f"{number:03}.png", image.permute(1, 2, 0))
        write(home / "scenes" / "masks" / f"{number:03}.png", mask)
    return home


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.numpy()).save(path)


@pytest.fixture(params=KINDS)
def specs(request, spec):
    """The spec of a short run on files, for each kind of task that has images."""
    return spec(*SHORT, *KINDS[request.param], *(MASKED if request.param != "classification" else ()))


def tasks(spec, data):
    return [build.task(spec, {"root": str(data), "download": False}, feed, CPU) for feed in FEEDS.values()]


def equal(one, other):
    assert one.dtype == other.dtype
    assert one.stride() == other.stride()
    return torch.equal(one, other)


def test_batches_are_the_same_from_any_step_on(specs, data):
    resident, streamed = tasks(specs, data)
    assert resident.steps_per_epoch == streamed.steps_per_epoch > 3
    for epoch in range(2):
        for first in (0, 2):
            seeds = Seeds(10 + epoch, 20 + epoch)
            pairs = zip(resident.epoch(seeds, first), streamed.epoch(seeds, first), strict=True)
            count = 0
            for one, other in pairs:
                assert equal(one.inputs[0], other.inputs[0])
                assert equal(one.target, other.target)
                count += 1
            assert count == resident.steps_per_epoch - first


def test_splits_and_rows_are_the_same(specs, data):
    resident, streamed = (task.feed for task in tasks(specs, data))
    assert isinstance(streamed.splits.train.images, Decoded)
    for split, part in streamed.splits.parts.items():
        for one, other in zip(resident.ordered(split, 7), streamed.ordered(split, 7), strict=True):
            assert all(map(equal, one, other))
        rows = torch.tensor([3, len(part) - 1, 0])
        assert all(map(equal, resident.rows(split, rows), streamed.rows(split, rows)))


def test_statistics_and_descriptions_are_the_same(specs, data):
    resident, streamed = tasks(specs, data)
    assert resident.describe() == streamed.describe()
    assert (resident.splits.mean, resident.splits.std) == (streamed.splits.mean, streamed.splits.std)
    assert torch.equal(resident.scale, streamed.scale)
    assert resident.statistic("class_counts") == streamed.statistic("class_counts")
    assert resident.statistic("class_weights") == streamed.statistic("class_weights")
    targets = resident.feed.targets["train"]
    counts = [int((targets == label).sum()) for label in range(len(resident.splits.classes))]
    assert counts == streamed.statistic("class_counts")
    assert getattr(resident, "has_void", None) == getattr(streamed, "has_void", None)


def result(job, folder, stop=lambda: False):
    record, history, examples, _ = Loop(job).run(folder, stop, lambda *_: None)
    timed = ("cost", "env", "started", "finished")
    history = history.drop(columns=["step_ms", "peak_memory_mb"])
    return {name: value for name, value in record.items() if name not in timed}, history, examples


def test_runs_end_alike_also_where_one_was_stopped(specs, job, data, tmp_path):
    given = {"data": {"root": str(data), "download": False}}
    record, history, examples = result(job(specs, feed=FEEDS["resident"], **given), tmp_path / "resident")
    streamed, polls = job(specs, feed=FEEDS["streaming"], **given), iter([False] * 5)
    with pytest.raises(Stopped):
        result(streamed, tmp_path / "streamed", lambda: next(polls, True))
    assert not decoding()
    assert (tmp_path / "streamed").exists()
    other_record, other_history, other_examples = result(streamed, tmp_path / "streamed")
    assert record == other_record
    pd.testing.assert_frame_equal(history, other_history, check_exact=True)
    for name in examples or {}:
        np.testing.assert_array_equal(examples[name], other_examples[name])


def test_daemonic_workers_stream_too(spec, job, data, tmp_path):
    given = {"data": {"root": str(data), "download": False}}
    made = spec(*SHORT, *KINDS["classification"])
    jobs = [job(made, feed=feed, folder=str(tmp_path / name), key=name, **given) for name, feed in FEEDS.items()]
    with LocalEngine("cpu", workers=1) as engine:
        ended = [event.content for event in engine.run(jobs) if event.kind == "finished"]
    assert ended == [{"status": "done", "leftover": ""}] * 2
    one, other = (json.loads((tmp_path / name / "record.json").read_text()) for name in FEEDS)
    assert one["test"] == other["test"]


def decoding():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


def counted(count, broken=None):
    """An array of images whose reader notes what it was asked for."""
    asked = []

    def read(number):
        asked.append(number)
        if number == broken:
            raise MissingData(f"{number}.png cannot be read")
        return np.full((1, 2, 2), number, np.uint8)

    return Decoded(tuple(range(count)), read, (1, 2, 2)), asked


def test_no_more_is_decoded_than_the_next_few_batches():
    array, asked = counted(200)
    running = batches([array], torch.arange(200).split(10), workers=2, prefetch=3)
    for seen in range(1, 5):
        next(running)
        assert 10 * seen <= len(asked) <= 10 * (seen + 3)
    running.close()


def test_a_half_read_iterator_leaves_no_thread(specs, data):
    _, streamed = tasks(specs, data)
    running = streamed.epoch(Seeds(1, 1))
    next(running)
    assert decoding()
    running.close()
    assert not decoding()
    next(streamed.epoch(Seeds(1, 1)))  # dropped, not closed
    assert not decoding()


def test_an_error_ends_the_threads_and_names_the_file():
    array, asked = counted(200, broken=25)
    running = batches([array], torch.arange(200).split(10), workers=2, prefetch=3)
    with pytest.raises(MissingData, match=r"25\.png"):
        list(running)
    assert not decoding()
    assert len(asked) < 100


@pytest.mark.parametrize("change", [{"workers": 0}, {"prefetch": 0}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(UsageError, match="from 1 on"):
        Streaming(digits(train_size=20, valid_size=10, test_size=10, split_seed=0), CPU, **change)


def test_data_in_memory_can_be_streamed():
    splits = digits(train_size=100, valid_size=10, test_size=10, split_seed=0)
    order = torch.randperm(100)
    for one, other in zip(
        Resident(splits, CPU).shuffled(order, 32), Streaming(splits, CPU).shuffled(order, 32), strict=True
    ):
        assert all(map(equal, one, other))


def test_a_file_that_breaks_while_a_run_trains_fails_it_by_name(spec, job, data, tmp_path):
    files = {name: (data / "digits" / name).rglob("*.png") for name in ("train", "valid", "test")}
    for name, found in files.items():
        for file in found:
            copy = tmp_path / "digits" / name / file.parent.name / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    made = spec(*SHORT, *KINDS["classification"][:3])
    run = job(
        made, feed=FEEDS["streaming"], folder=str(tmp_path / "run"), data={"root": str(tmp_path), "download": False}
    )
    broken = tmp_path / "digits" / "train" / "7" / "003.png"
    broken = broken if broken.exists() else next((tmp_path / "digits" / "train" / "7").iterdir())
    ended = carry_out(run, lambda: False, lambda *_: broken.write_bytes(broken.read_bytes()[:60]))
    assert ended["status"] == "failed"
    assert str(broken) in ended["error"]
    assert not decoding()


LIMITED = """
import json, re, resource, sys
from dataclasses import replace
from pathlib import Path
from harness.address import RunSpec
from harness.training.job import Job, carry_out, check
given, spec, limit = map(json.loads, sys.argv[1:])
job = Job(**{**given, "spec": RunSpec(**spec)})
few = {"train_size": 16, "valid_size": 9, "test_size": 9}
small = replace(job, spec=replace(job.spec, dataset={**spec["dataset"], **few}), folder=job.folder + "_small")
assert carry_out(small, lambda: False, lambda *_: None) == {"status": "done"}  # now everything is loaded
used = 1024 * int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
resource.setrlimit(resource.RLIMIT_DATA, (used + limit, used + limit))
print(check(job) or carry_out(job, lambda: False, lambda *_: None))
"""


HEAP = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Large tensors get pages of their own, so that memory is what is held, not what small tensors between them pin."""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does it")
def test_a_folder_larger_than_the_memory_trains_streamed_and_is_refused_resident(spec, job, tmp_path):
    side, count, limit = 256, 800, 80_000_000
    for number in range(count):
        colour = Image.new("RGB", (side, side), (number % 256, 90 * (number % 3), 7 * number % 256))
        path = tmp_path / "large" / str(number % 3) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colour.save(path, compress_level=1)
    assert count * side * side * 3 > 1.9 * limit
    made = spec("dataset=images", "dataset.path=large", "dataset.duplicates=allow", "model=mlp",
                "model.widths=[2]", "trainer.batch_size=8", "trainer.eval_batch_size=8")  # fmt: skip

    def run(feed):
        given = asdict(
            job(made, feed=feed, folder=str(tmp_path / "run"), data={"root": str(tmp_path), "download": False})
        )
        given.pop("spec")
        command = [sys.executable, "-c", LIMITED, json.dumps(given), json.dumps(asdict(made)), str(limit)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
                              env=os.environ | {"PYTHONPATH": str(ROOT), **HEAP})  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run(FEEDS["streaming"]) == "{'status': 'done'}"
    sentence = run(FEEDS["resident"])
    assert "take 0.16 GB at 256x256 pixels" in sentence
    assert "use feed=streaming" in sentence
    assert "\n" not in sentence


def test_what_no_machine_holds_is_refused_before_anything_is_read(spec, job, data):
    huge = ("task=segmentation", *MASKED, "dataset.size=[3000000,3000000]")
    problem = check(job(spec(*huge), data={"root": str(data), "download": False}))
    assert problem is not None
    assert "GB at 3000000x3000000 pixels" in problem
