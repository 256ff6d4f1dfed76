"""python -m scripts.verify [--root DIR]: checks that need what the test suite does not ask for: real data sets, a GPU.

Data sets that are not there, and the GPU part on a machine without one, are named and passed over. Exit code 1 if a
check fails.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness import compose, hardware, plan, records
from harness.address import Addresses, spec_of
from harness.plan import Study
from harness.studies import sweep
from scripts.bench_harness import ALONE, loop_of

# the published mean and standard deviation per channel of all official training images
MOMENTS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
}


def check_data(name: str, root: Path) -> str:
    """Load a data set whole and hold its pixels against the published moments."""
    from hydra.utils import get_method

    settings = {k: v for k, v in compose.option("dataset", name).items() if k not in ("_target_", "augment", "split")}
    splits = get_method(compose.option("dataset", name)["_target_"])(root, download=False, **settings)
    for found, published in zip((splits.mean, splits.std), MOMENTS[name], strict=True):
        worst = max(abs(a - b) for a, b in zip(found, published, strict=True))
        assert worst < 2e-3, f"{name}: moments {found} differ from the published {published}"
    train, valid, test = (set(part.index.tolist()) for part in (splits.train, splits.valid, splits.test))
    assert not train & valid, f"{name}: training and validation share images"
    means = ", ".join(f"{mean:.4f}" for mean in splits.mean)
    return f"{len(train)} + {len(valid)} + {len(test)} images, mean {means}, checksum {splits.checksum}"


def check_steps_do_not_wait() -> str:
    """Take steps with every loss while PyTorch forbids the host to wait for the device."""
    import torch

    from harness.catalogue.entries import for_task
    from harness.tasks import Seeds

    checked = for_task("classification")
    for name in checked:
        loop = loop_of(spec_of(compose.compose_run([f"loss={name}", "device=cuda"]).config))
        batches = loop.task.epoch(Seeds(0, 0))
        for batch in [next(batches) for _ in range(3)]:
            loop.step(batch)
            torch.cuda.set_sync_debug_mode("error")  # from the second step on: the first sets up
        torch.cuda.set_sync_debug_mode("default")
    return f"{len(checked)} losses take steps without waiting for the device"


def check_workers_share_a_device() -> str:
    """Sweep with two workers on one GPU and with one; accuracies agree closely."""
    axes = {"loss": ["cross_entropy", "ngl"], "seed": [1, 2]}
    study = Study("verify", "?", axes, base={"device": "cuda"}, controls=ALONE)
    scores = []
    for per_device in (1, 2):
        options = compose.compose_run(["device=cuda", f"engine.per_device={per_device}"]).config
        with tempfile.TemporaryDirectory() as folder:
            outcome = sweep.sweep(study, options, results=Path(folder))
            assert not outcome.failed, outcome.failed
            runs = plan.runs(plan.settings(study), study, Addresses(Path(options["data"]["root"])))
            found = [records.read(run.key, Path(folder)) for run in runs]
        scores.append([record["test"]["top1"] for record in found if record])
    worst = max(abs(a - b) for a, b in zip(*scores, strict=True))
    assert worst < 0.02, f"two workers on one device change accuracies by up to {worst:.3f}"
    return f"two workers on one device: accuracies within {worst:.4f} of one worker's"


def main() -> int:
    """Run all checks; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.verify", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(os.environ.get("LOSSBENCH_DATA", "data")))
    root = parser.parse_args().root
    checks: dict[str, Callable[[], str]] = {name: lambda name=name: check_data(name, root) for name in MOMENTS}
    if hardware.device_type("auto") == "cuda":
        checks |= {"steps": check_steps_do_not_wait, "workers": check_workers_share_a_device}
    else:
        print("GPU: none here, its checks are passed over")
    failed = 0
    for name, check in checks.items():
        try:
            print(f"{name}: {check()}", flush=True)
        except FileNotFoundError as error:
            print(f"{name}: passed over: {error}")
        except AssertionError as error:
            failed += 1
            print(f"{name}: FAILED: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
