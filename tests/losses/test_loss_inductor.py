"""A loss or two of every family under Inductor; `python -m scripts.check_inductor` does the same for all."""

import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from loss_registry import build

from scripts.check_inductor import SAMPLE, TOLERANCE, wrong
from tests.conftest import lacks

COMPILER = shutil.which("g++") or shutil.which("clang++")
HEADER = Path(sysconfig.get_paths()["include"]) / "Python.h"
pytestmark = pytest.mark.filterwarnings("ignore")  # compilers warn of themselves


@pytest.fixture
def compiler():
    if not (COMPILER and HEADER.exists()):
        lacks(f"Inductor needs a C++ compiler and {HEADER.name}")


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_inductor_gives_the_values_and_gradients_of_float64(dtype):
    assert wrong(SAMPLE, dtype) == {}


def test_the_sample_has_every_family_of_losses():
    families = {build(name).about.family for name in SAMPLE}
    assert len(families) == 9
    assert torch.float32 in TOLERANCE
    assert torch.bfloat16 in TOLERANCE
