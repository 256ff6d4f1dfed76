"""What this machine offers, found out without importing torch."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
from pathlib import Path

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
    # importing torch takes seconds, so only where there is a driver at all
    has_driver = shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists()
    usable = has_driver and _torch_sees_cuda()
    if wanted == "cuda" and not usable:
        raise UsageError("device=cuda, but torch finds no usable GPU on this machine: use device=cpu or device=auto.")
    return "cuda" if usable else "cpu"


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
    """Return ``wanted`` if it pays on this hardware, else ``fp32``: bf16 needs a GPU or a CPU with AMX."""
    if wanted == "bf16" and device == "cpu" and "amx_bf16" not in cpu_flags():
        return "fp32"
    return wanted


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
    """Return the ids of the GPUs this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return [line.strip() for line in listed.stdout.splitlines() if line.strip()] or ["0"]
