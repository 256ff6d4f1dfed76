"""The machine itself, and the tests of the suite that want a GPU."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from harness.paths import ROOT
from scripts.gpu.finding import Finding, Place

NEEDS_GPU = "cuda.is_available()"
"""How the condition of a test reads that is skipped for want of a GPU."""
SHOWN_FAILURES = 20


def device(place: Place) -> Iterator[Finding]:
    """Yield what machine and software this is, how PyTorch is set, and what the device can do at best."""
    import torch

    from harness import hardware
    from harness.training import build

    if place.device == "cuda":
        about = torch.cuda.get_device_properties(0)
        yield Finding("card", about.name)
        yield Finding("compute capability", f"{about.major}.{about.minor}")
        yield Finding("memory of the card", about.total_memory / 2**30, "GiB")
        yield Finding("CUDA, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}")
        yield Finding("bf16", "yes" if torch.cuda.is_bf16_supported() else "no")
    yield Finding("processor", f"{hardware.cpu_name()}, {hardware.cores()} cores")
    for name, version in build.versions().items():
        yield Finding(name, str(version))
    yield Finding("commit", str(hardware.commit()[0]))
    settings = {
        "TF32 in products": torch.backends.cuda.matmul.allow_tf32,
        "TF32 in convolutions": torch.backends.cudnn.allow_tf32,
        "cuDNN deterministic": torch.backends.cudnn.deterministic,
        "cuDNN benchmark": torch.backends.cudnn.benchmark,
    }
    for name, value in settings.items():
        yield Finding(name, "yes" if value else "no")
    yield from _speeds(place)


def _speeds(place: Place) -> Iterator[Finding]:
    """Yield how fast the device multiplies matrices and copies memory."""
    import torch

    from scripts.bench_losses import timer

    side = place.size(8192, 128)
    one, other = torch.randn(2, side, side, device=place.device, dtype=torch.bfloat16)
    data = torch.empty(place.size(2**30, 2**20), dtype=torch.uint8, device=place.device)
    target = torch.empty_like(data)
    for step in (lambda: one @ other, lambda: target.copy_(data)):
        timer(place.device, step, 2)
    flops = 2 * side**3 / timer(place.device, lambda: one @ other, 10)
    yield Finding("product of bf16 matrices", flops / 1e12, "TFLOP/s")
    moved = 2 * data.numel() / timer(place.device, lambda: target.copy_(data), 10)
    yield Finding("copy in memory, read and written", moved / 1e9, "GB/s")


def wanting_a_gpu(root: Path = ROOT) -> list[str]:
    """Return the tests that are skipped where there is no GPU, as pytest calls them."""
    found = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        text = path.read_text()
        if NEEDS_GPU not in text:
            continue
        tree, name = ast.parse(text), path.relative_to(root).as_posix()
        marks = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign) and NEEDS_GPU in ast.unparse(node.value)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        if "pytestmark" in marks:
            found.append(name)
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                decorators = [ast.unparse(each) for each in node.decorator_list]
                if any(NEEDS_GPU in each or each in marks for each in decorators):
                    found.append(f"{name}::{node.name}")
    return found


def tests(place: Place) -> Iterator[Finding]:
    """Carry out the tests that are skipped without a GPU; yield how many pass, and which do not."""
    report = place.folder / "tests.xml"
    nodes = wanting_a_gpu()
    chosen = place.size(nodes, nodes[-1:])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *chosen]
    ended = subprocess.run(command, cwd=ROOT, check=False)
    if not report.exists():
        raise RuntimeError(f"pytest ended with exit code {ended.returncode} before it had a result")
    tree = ElementTree.parse(report)
    suite = next(tree.iter("testsuite"))
    suite.attrib.pop("hostname", None)  # nobody's business where it is published
    tree.write(report)
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    bad = counts["failures"] + counts["errors"]
    passed = counts["tests"] - bad - counts["skipped"]
    yield Finding("tests that pass", passed, "", place.size(">= 1", ""))
    yield Finding("tests that fail", bad, "", "<= 0")
    yield Finding("tests that are skipped", counts["skipped"], "", place.size("<= 0", ""))
    failures = (case for case in suite.iter("testcase") if {part.tag for part in case} & {"failure", "error"})
    for case in itertools.islice(failures, SHOWN_FAILURES):
        yield Finding(f"{case.attrib['classname']}::{case.attrib['name']}", str(case[0].attrib.get("message"))[:200])
