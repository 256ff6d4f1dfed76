import inspect
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from hydra.utils import get_method
from omegaconf import OmegaConf

from datasets import augment, joint

OF_MANY = {"images", "named"}  # each reads several data sets
FOLDER = Path(__file__).resolve().parents[2] / "conf" / "dataset"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_yaml_fits_its_function_and_every_augmentation_is_known(path):
    config = OmegaConf.to_container(OmegaConf.load(path))
    wanted = config.pop("augment")
    assert config.pop("split") == "fixed"
    function = get_method(config.pop("_target_"))
    assert function.__name__ == path.stem or function.__name__ in OF_MANY
    parameters = inspect.signature(function).parameters.values()
    shared = {p.name for p in parameters if p.kind is p.VAR_KEYWORD}
    known = {p.name for p in parameters} - shared
    for name in shared:
        (settings,) = get_args(get_type_hints(function)[name])  # of Unpack
        known |= set(settings.__annotations__)
    assert known == {"root", "download", *config}
    known = joint if set(wanted) <= set(joint.ALLOWED) else augment
    drawn = known.draw(3, wanted, torch.Generator())
    if known is augment:
        assert (drawn.shift is not None, drawn.flip is not None) == (
            bool(wanted.get("shift")),
            bool(wanted.get("flip")),
        )
    else:
        assert (drawn is not None) == any(wanted.values())


def test_every_data_set_has_a_yaml():
    modules = {path.stem for path in (FOLDER.parents[1] / "datasets" / "sources").glob("*.py")}
    targets = {OmegaConf.load(path)._target_.rpartition(".")[2] for path in FOLDER.glob("*.yaml")}
    assert targets == modules - {"__init__"}
