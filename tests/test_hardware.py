"""What machines offer: GPUs, slices of them, and cards that lack something; and what becomes of one that fails."""

import subprocess

import pytest
import torch

from harness import hardware
from harness.studies import sweep
from harness.training import build, meter
from harness.training.isolation import Isolation

LISTED = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f)
  MIG 3g.20gb     Device  0: (UUID: MIG-2b9c1e7f-0a2f-5b8c-9d0e-8f0c7a1b2c3d)
  MIG 3g.20gb     Device  1: (UUID: MIG-7e3f1a2b-4c5d-5e6f-8a9b-0c1d2e3f4a5b)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-6d9a963d-e379-d4a4-2c18-116e6bf2ed4a)
"""


@pytest.fixture
def smi(monkeypatch):
    """Let nvidia-smi print something, or fail with an exception."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def says(what):
        def run(command, **_):
            assert command[0] == "nvidia-smi"
            if isinstance(what, Exception):
                raise what
            return subprocess.CompletedProcess(command, 0, stdout=what)

        monkeypatch.setattr(hardware.subprocess, "run", run)
        hardware.computes_bf16.cache_clear()

    yield says
    hardware.computes_bf16.cache_clear()


def test_slices_of_a_gpu_stand_for_it(smi):
    smi(LISTED)
    assert [name[:12] for name in hardware.gpus()] == ["MIG-2b9c1e7f", "MIG-7e3f1a2b", "GPU-6d9a963d"]


@pytest.mark.parametrize("trouble", [FileNotFoundError("nvidia-smi"), subprocess.CalledProcessError(9, "nvidia-smi")])
def test_without_nvidia_smi_torch_counts_the_gpus(smi, monkeypatch, trouble):
    smi(trouble)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert hardware.gpus() == ["0", "1"]


@pytest.mark.parametrize(
    ("visible", "expected"), [("3,GPU-a", ["3", "GPU-a"]), ("1,-1,2", ["1"]), ("", []), ("-1", [])]
)
def test_visible_gpus_are_read_as_cuda_does(monkeypatch, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert hardware.gpus() == expected


@pytest.mark.parametrize(("said", "precision"), [("8.0\n9.0\n", "bf16"), ("7.5\n", "fp32"), ("9.0\n6.1\n", "fp32")])
def test_bf16_needs_every_card_to_have_it(smi, said, precision):
    smi(said)
    assert hardware.fast_precision("cuda", "bf16") == precision
    assert hardware.fast_precision("cuda", "fp32") == "fp32"


def test_where_nvidia_smi_is_silent_torch_is_asked_for_bf16(smi, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: asked.append(how) or False)
    smi(FileNotFoundError("nvidia-smi"))
    assert hardware.fast_precision("cuda", "bf16") == "fp32"
    assert asked == [{"including_emulation": False}]


@pytest.mark.parametrize(
    ("flags", "precision"), [({"avx512_bf16"}, "bf16"), ({"amx_bf16", "amx_tile"}, "bf16"), ({"avx512f"}, "fp32")]
)
def test_bf16_needs_a_cpu_that_multiplies_in_it(monkeypatch, flags, precision):
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset(flags))
    assert hardware.fast_precision("cpu", "bf16") == precision
    assert hardware.fast_precision("cpu", "fp32") == "fp32"


@pytest.mark.parametrize("name", ["nvidia0", "nvidia7", "nvidiactl", "dxg", "nvmap", "kfd"])
def test_a_driver_is_known_by_its_device_file(tmp_path, monkeypatch, name):
    monkeypatch.setattr(hardware.shutil, "which", lambda _: None)
    assert not hardware._has_driver(tmp_path)
    (tmp_path / name).touch()
    assert hardware._has_driver(tmp_path)


def test_all_workers_of_all_gpus_are_counted(monkeypatch):
    monkeypatch.setattr(hardware, "gpus", lambda: ["GPU-a", "GPU-b"])
    options = {"threads": 1, "engine": {"workers": None, "per_device": 3}}
    assert sweep.workers_of(options, "cuda") == 6
    assert sweep.workers_of({**options, "engine": {"workers": 2, "per_device": 3}}, "cuda") == 2
    monkeypatch.setattr(hardware, "cores", lambda: 8)
    assert sweep.workers_of({**options, "threads": 2}, "cpu") == 4


@pytest.fixture
def failing(monkeypatch):
    """A process whose GPU answers everything with an error, as after an illegal access."""

    def fail(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    monkeypatch.setattr(torch.cuda, "get_device_name", fail)


def test_a_worker_whose_gpu_fails_is_replaced(failing):
    error = "an error of the GPU (CUDA error: an illegal memory access was encountered)"
    assert error in Isolation().restore()


def test_a_failure_on_a_gpu_that_fails_is_recorded(failing):
    assert hardware.about_device("cuda")["device_name"] == "a GPU that did not answer"


def test_a_process_without_a_gpu_is_not_replaced():
    assert hardware.device_error() == ""


def test_gpus_compute_in_the_precision_asked_for_and_records_say_so(monkeypatch):
    isolation = Isolation()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    assert hardware.about_device("cuda")["tf32"]
    build.compute_exactly(torch.device("cuda"))
    found = hardware.about_device("cuda")
    assert (found["device_name"], found["tf32"], found["deterministic_convolutions"]) == ("a card", False, True)
    isolation.restore()
    before = {name: value for module, name, value in isolation.backends if module is torch.backends.cudnn}
    assert torch.backends.cudnn.allow_tf32 == before["allow_tf32"]
    assert set(hardware.about_device("cpu")) == {"device_name"}


def test_memory_of_other_runs_and_of_data_does_not_count(monkeypatch):
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 500 * 2**20)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 620 * 2**20)
    with meter.peak_memory(torch.device("cuda"), lambda: 40.0) as peak:
        pass
    assert peak["mb"] == 160


def test_waiting_is_measured_by_the_device_where_there_is_one(monkeypatch):
    clock = iter([10.0, 12.5, 20.0, 21.0])

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = next(clock)

        def elapsed_time(self, end):
            return end.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    waiting = meter.Waiting(torch.device("cuda"))
    for _ in range(2):
        with waiting.for_batch():
            pass
    assert waiting.taken() == pytest.approx(3.5 / 1000)
    assert waiting.taken() == 0


def test_waiting_on_a_cpu_is_the_time_in_which_batches_are_made(monkeypatch):
    clock = iter([1.0, 1.5, 3.0, 3.25])
    monkeypatch.setattr(meter.time, "perf_counter", lambda: next(clock))
    waiting = meter.Waiting(torch.device("cpu"))
    for _ in range(2):
        with waiting.for_batch():
            pass
    assert waiting.taken() == 0.75
