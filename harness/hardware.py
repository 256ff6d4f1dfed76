"""What this machine offers, found out without importing torch."""

from __future__ import annotations

import functools
import itertools
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.errors import UsageError

_elsewhere = False


def runs_are_elsewhere(whether: bool) -> None:
    """From now on believe in ``device=cuda`` or not: whether runs are carried out on other machines than this."""
    global _elsewhere
    if whether != _elsewhere:
        _elsewhere = whether
        device_type.cache_clear()


@functools.cache
def device_type(wanted: str = "auto") -> str:
    """Return ``cpu`` or ``cuda``; ``auto`` prefers a GPU that torch can use."""
    if wanted not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device={wanted} is not a device: choose auto, cpu or cuda.")
    if wanted == "cpu" or (wanted == "cuda" and _elsewhere):
        return wanted
    usable = _has_driver() and _torch_sees_cuda()  # importing torch takes seconds
    if wanted == "cuda" and not usable:
        raise UsageError("device=cuda, but torch finds no usable GPU on this machine: use device=cpu or device=auto.")
    return "cuda" if usable else "cpu"


def _has_driver(root: Path = Path("/dev")) -> bool:
    """Return whether there is a driver of GPUs at all: NVIDIA's (a container may see any number, such as nvidia3), that
    of WSL, Tegra's or AMD's.
    """
    names = ("nvidia[0-9]*", "nvidiactl", "dxg", "nvmap", "kfd")
    return shutil.which("nvidia-smi") is not None or any(found for name in names for found in root.glob(name))


def _torch_sees_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Return the instruction-set flags of the CPU (empty where the system does not tell)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), []))


@functools.cache
def cpu_name() -> str:
    """Return the CPU's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def fast_precision(device: str, wanted: str) -> str:
    """Return ``wanted`` if it pays on this hardware, else ``fp32``: bf16 needs a GPU of compute capability 8.0 (Ampere)
    or later, or a CPU that multiplies in it (AMX, or AVX-512 with bf16).
    """
    if wanted != "bf16" or (computes_bf16() if device == "cuda" else {"amx_bf16", "avx512_bf16"} & cpu_flags()):
        return wanted
    return "fp32"


@functools.cache
def computes_bf16() -> bool:
    """Return whether the GPUs that this process may use compute in bf16, as those from compute capability 8.0 on do;
    older ones only emulate it. What nvidia-smi does not tell is asked of torch, which occupies memory of the device.
    """
    some = "CUDA_VISIBLE_DEVICES" in os.environ  # by numbers that need not be those of nvidia-smi
    listed = [] if some else _nvidia_smi("--query-gpu=compute_cap", "--format=csv,noheader")
    if found := [float(line) for line in listed if line.replace(".", "", 1).isdigit()]:
        return min(found) >= 8
    import torch

    return torch.cuda.is_bf16_supported(including_emulation=False)


def about_device(device: str) -> dict[str, Any]:
    """Return what a record says of the processor: its ``device_name``; of a GPU also versions and modes that decide
    numbers, as they are set now. A GPU that no longer answers has a name all the same.
    """
    if device == "cpu":
        return {"device_name": cpu_name()}
    import torch

    try:
        name = torch.cuda.get_device_name()
    except RuntimeError:
        name = "a GPU that did not answer"
    cudnn = torch.backends.cudnn
    return {
        "device_name": name,
        "cuda": torch.version.cuda or torch.version.hip,
        "cudnn": cudnn.version() if cudnn.is_available() else None,
        "tf32": torch.backends.cuda.matmul.allow_tf32 or cudnn.allow_tf32,
        "deterministic_convolutions": cudnn.deterministic,
    }


def device_error() -> str:
    """Return the error with which the GPU of this process answers everything, or nothing: after an illegal access every
    later operation of the process fails, whatever it is.
    """
    import torch

    if not torch.cuda.is_initialized():
        return ""
    try:
        torch.cuda.synchronize()
        torch.ones(1, device="cuda").item()
    except RuntimeError as error:
        return str(error).partition("\n")[0]
    return ""


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reset_peak_memory() -> float | None:
    """Start a new peak of this process's memory; return what is in use now (MB), None where Linux does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status_mb("VmRSS")


def peak_memory() -> float:
    """Return the process's greatest memory (MB) since ``reset_peak_memory``."""
    return _status_mb("VmHWM")


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


@functools.cache
def commit() -> tuple[str | None, bool | None]:
    """Return the commit of this checkout and whether tracked files differ from it (None, None without git)."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def gpus() -> list[str]:
    """Return the ids of the GPUs this process may use, as CUDA_VISIBLE_DEVICES takes them; of a GPU that is cut into
    slices (MIG), those of the slices.
    """
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in visible.split(",")]
        # CUDA, too, reads it up to the first that is none
        return list(itertools.takewhile(lambda name: name and not name.startswith("-"), names))
    return _listed(_nvidia_smi("-L")) or [str(number) for number in range(max(1, _torch_counts()))]


def _listed(lines: Iterable[str]) -> list[str]:
    """Return the ids in what ``nvidia-smi -L`` prints: a line for each GPU, and one for each of its slices."""
    found: list[str] = []
    for line in lines:
        kind, identity = line.split(maxsplit=1)[0], re.search(r"UUID: ([^)\s]+)", line)
        if identity is None:
            continue
        if kind == "MIG" and found and found[-1].startswith("GPU-"):
            found.pop()
        found.append(identity[1])
    return found


def _nvidia_smi(*arguments: str) -> list[str]:
    """Return what nvidia-smi prints, line by line, without empty ones; nothing where there is none, or it fails."""
    try:
        said = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in said.stdout.splitlines() if line.strip()]


def _torch_counts() -> int:
    import torch

    return torch.cuda.device_count()
