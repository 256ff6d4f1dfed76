"""Losses that do what no loss should: cross-entropy, but after some steps each does harm to its process.

``python -m scripts.campaign_workers`` and the tests run each between runs of an honest loss.
"""

# ruff: noqa: D103 - their names say what they do

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from losses.loss import about
from losses.probability import cross_entropy

CALM = 12
"""Calls that go well, so that nothing shows when the run is checked."""
ALL: list[str] = []
"""The names of all, in order."""
HANGING = ("hangs", "hangs_deaf", "spins")
"""Those that never return."""
_hoard: list[Tensor] = []
_calls: dict[str, int] = {}


def misbehaving(harm: Callable[[Tensor], Any]) -> Callable[..., Tensor]:
    """Return the loss that does ``harm`` with its values from its thirteenth call in a process on.

    What harm returns, unless it is None, stands for the values.
    """
    name = harm.__name__

    @functools.wraps(harm)
    def loss(logits: Tensor, target: Tensor) -> Tensor:
        values = cross_entropy(logits, target)
        _calls[name] = _calls.get(name, 0) + 1
        if _calls[name] <= CALM:
            return values
        result = harm(values)
        return values if result is None else result

    del loss.__wrapped__  # pyright: ignore[reportAttributeAccessIssue] # its signature is that of a loss
    ALL.append(name)
    return about(
        name=f"misbehaving: {name}",
        family="control",
        kind="class_logits",
        link="softmax",
        paper="made up",
        evidence="H",
    )(loss)


# ---------------------------------------------------------------- raising, leaving


@misbehaving
def raises(values: Tensor) -> None:
    raise RuntimeError("as it likes")


@misbehaving
def raises_no_exception(values: Tensor) -> None:
    raise GeneratorExit


@misbehaving
def raises_memory(values: Tensor) -> None:
    raise MemoryError


@misbehaving
def raises_an_endless_message(values: Tensor) -> None:
    raise ValueError("x" * 10_000_000)


@misbehaving
def interrupts(values: Tensor) -> None:
    raise KeyboardInterrupt


@misbehaving
def exits(values: Tensor) -> None:
    sys.exit(0)


@misbehaving
def exits_at_once(values: Tensor) -> None:
    os._exit(3)


@misbehaving
def aborts(values: Tensor) -> None:
    os.abort()


@misbehaving
def kills_itself(values: Tensor) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@misbehaving
def recurses(values: Tensor) -> None:
    recurses(values[:, None].expand(-1, 2), torch.zeros(len(values), dtype=torch.int64))


# ---------------------------------------------------------------- processes, threads, signals


@misbehaving
def forks(values: Tensor) -> None:
    os.fork()


@misbehaving
def forks_and_waits(values: Tensor) -> None:
    if os.fork() == 0:
        time.sleep(600)


@misbehaving
def starts_a_thread(values: Tensor) -> None:
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()


@misbehaving
def starts_a_thread_that_stays(values: Tensor) -> None:
    if threading.active_count() < 20:
        threading.Thread(target=time.sleep, args=(600,), name="stays").start()


@misbehaving
def ignores_signals(values: Tensor) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@misbehaving
def sets_an_alarm(values: Tensor) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 30)


@misbehaving
def stays_at_exit(values: Tensor) -> None:
    atexit.register(time.sleep, 600)


# ---------------------------------------------------------------- output


@misbehaving
def prints_without_end(values: Tensor) -> None:
    for _ in range(200):
        print("x" * 10_000)


@misbehaving
def closes_its_output(values: Tensor) -> None:
    sys.stdout.close()


@misbehaving
def closes_its_streams(values: Tensor) -> None:
    for stream in (0, 1, 2):
        with contextlib.suppress(OSError):
            os.close(stream)


# ---------------------------------------------------------------- values


@misbehaving
def is_not_a_number(values: Tensor) -> Tensor:
    return values * float("nan")


@misbehaving
def is_infinite(values: Tensor) -> Tensor:
    return values * float("inf")


@misbehaving
def has_no_gradient(values: Tensor) -> Tensor:
    return values.detach()


@misbehaving
def has_another_shape(values: Tensor) -> Tensor:
    return values[:, None, None]


@misbehaving
def is_no_tensor(values: Tensor) -> Any:
    return "a text"


@misbehaving
def keeps_memory(values: Tensor) -> None:
    _hoard.append(torch.zeros(1_000_000))
    del _hoard[:-20]


# ---------------------------------------------------------------- switches


@misbehaving
def sets_the_default_dtype(values: Tensor) -> None:
    torch.set_default_dtype(torch.float64)


@misbehaving
def sets_the_default_device(values: Tensor) -> None:
    torch.set_default_device("meta")


@misbehaving
def sets_no_gradient(values: Tensor) -> None:
    torch.set_grad_enabled(False)


@misbehaving
def sets_threads(values: Tensor) -> None:
    torch.set_num_threads(3)


@misbehaving
def sets_deterministic(values: Tensor) -> None:
    torch.use_deterministic_algorithms(True)


@misbehaving
def sets_precision(values: Tensor) -> None:
    torch.set_float32_matmul_precision("medium")
    torch.backends.mkldnn.enabled = False


@misbehaving
def sets_seeds(values: Tensor) -> None:
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)


@misbehaving
def sets_errors(values: Tensor) -> None:
    np.seterr(all="raise")
    warnings.simplefilter("error")


@misbehaving
def moves_away(values: Tensor) -> None:
    os.chdir("/")
    os.environ.clear()
    sys.path.clear()


@misbehaving
def replaces_relu(values: Tensor) -> None:
    torch.nn.functional.relu = torch.tanh


@misbehaving
def replaces_topk(values: Tensor) -> None:
    torch.Tensor.topk = lambda *_: None  # pyright: ignore[reportAttributeAccessIssue]


# ---------------------------------------------------------------- never returning


@misbehaving
def hangs(values: Tensor) -> None:
    time.sleep(3600)


@misbehaving
def hangs_deaf(values: Tensor) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


@misbehaving
def spins(values: Tensor) -> None:
    while True:
        pass
