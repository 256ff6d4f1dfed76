"""What a run may change in its process, and how it is put back: a worker carries out many runs, each as if it were new.

A loss is anybody's code. What it can change through a switch is switched back; what cannot be put back (a thread or
process that lives on, a function of torch that was replaced, an error of the GPU) is named, and the worker is replaced.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from harness import hardware

PATIENCE_S = 0.5
"""How long a thread may take to end after its run."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
BACKENDS = (
    (torch.backends.cudnn, ("enabled", "benchmark", "deterministic", "allow_tf32")),
    (torch.backends.cuda.matmul, ("allow_tf32",)),
    (torch.backends.mkldnn, ("enabled",)),
)
WATCHED = (torch, torch.nn.functional, torch.Tensor, torch.autograd)
"""Names in these must stay what they are; the class of tensors must get no further ones (modules load some late)."""
Switch = tuple[Callable[[], Any], Callable[[Any], object]]


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _environment(wanted: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(wanted)


def _stop_alarm(_: object) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


SWITCHES: dict[str, Switch] = {
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "default device": (torch.get_default_device, lambda _: torch.set_default_device(None)),
    "gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "threads": (torch.get_num_threads, torch.set_num_threads),
    "deterministic algorithms": (_deterministic, lambda v: torch.use_deterministic_algorithms(v[0], warn_only=v[1])),
    "precision of products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "anomaly detection": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "autocast": (lambda: torch.is_autocast_enabled("cpu"), lambda v: torch.set_autocast_enabled("cpu", v)),
    "numpy's errors": (np.geterr, lambda v: np.seterr(**v)),
    "environment": (lambda: dict(os.environ), _environment),
    "working directory": (os.getcwd, os.chdir),
    "recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit),
    "module path": (lambda: list(sys.path), lambda v: sys.path.__setitem__(slice(None), v)),
    "warnings": (lambda: list(warnings.filters), lambda v: _set_warnings(v)),
    "alarm": (lambda: signal.getitimer(signal.ITIMER_REAL), _stop_alarm),
    "standard output": (lambda: (sys.stdout, sys.stderr), lambda v: _set_output(*v)),
}


def _set_warnings(wanted: list[Any]) -> None:
    warnings.resetwarnings()
    warnings.filters[:] = wanted  # pyright: ignore[reportIndexIssue]


def _set_output(out: Any, err: Any) -> None:
    sys.stdout, sys.stderr = out, err


class Isolation:
    """The state of a process before its first run; `restore` puts it back after each."""

    def __init__(self) -> None:
        self.switches = {name: get() for name, (get, _) in SWITCHES.items()}
        self.backends = [(module, name, getattr(module, name)) for module, names in BACKENDS for name in names]
        self.handlers = {number: signal.getsignal(number) for number in SIGNALS}
        self.threads = set(threading.enumerate())
        self.watched = [(owner, dict(vars(owner))) for owner in WATCHED]
        self.process = os.getpid()

    def restore(self) -> str:
        """Put the state back, random streams included; return what lives on and cannot be put back, or nothing."""
        for name, (get, put) in SWITCHES.items():
            with contextlib.suppress(OSError, RuntimeError):
                if get() != self.switches[name]:
                    put(self.switches[name])
        for module, name, value in self.backends:
            if getattr(module, name) != value:
                setattr(module, name, value)
        for number, handler in self.handlers.items():
            if signal.getsignal(number) is not handler and threading.current_thread() is threading.main_thread():
                signal.signal(number, handler)
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        return ", ".join(self._left())

    def _left(self) -> Iterator[str]:
        deadline = time.monotonic() + PATIENCE_S
        for thread in set(threading.enumerate()) - self.threads - {threading.current_thread()}:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                yield f"the thread {thread.name}"
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
            yield "a process of its own"
        for owner, before in self.watched:
            now = vars(owner)
            further = [name for name in now if name not in before and not name.startswith("__")]
            changed = [name for name, value in before.items() if now.get(name) is not value]
            changed += further if owner is torch.Tensor else []
            if changed:
                yield f"another {owner.__name__}.{changed[0]}"
        if error := hardware.device_error():
            yield f"an error of the GPU ({error})"
        closed = [name for name in ("stdout", "stderr") if getattr(sys, name).closed]
        if closed:
            yield f"a closed {closed[0]}"
