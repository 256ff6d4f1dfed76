"""CIFAR-10N in small: the official files of CIFAR-10 with two files of labels that people gave."""

import pickle
import re

import numpy as np
import pytest
import torch

from datasets.sources.cifar10n import FILES, LABELS, cifar10n
from datasets.splits import MissingData
from tests.datasets.conftest import TRAIN, cifar, targets

SIZES = {"train_size": 50, "valid_size": 10, "test_size": 30, "split_seed": 0}
NAMES = {"worse": "worse_label", "aggre": "aggre_label", **{f"random{n}": f"random_label{n}" for n in (1, 2, 3)}}


def answers():
    """Labels that differ from the clean ones in another way for each name."""
    clean = targets(TRAIN).astype(np.int64)
    return {"clean_label": clean} | {
        name: np.where(np.arange(TRAIN) % (step + 2) == 0, (clean + step) % 10, clean)
        for step, name in enumerate(NAMES.values(), 1)
    }


def write(home, arrays, file):
    if file.endswith(".npz"):
        np.savez(home / file, **{name: values.astype(np.uint8) for name, values in arrays.items()})
    else:
        torch.save(arrays, home / file)


@pytest.fixture
def home(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    train, test = (random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8) for count in (TRAIN, 40))
    made = cifar("cifar10", train, test, monkeypatch)
    return made, made.write(tmp_path / "cifar10")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("labels", LABELS)
def test_training_labels_are_the_answers_and_the_rest_is_cifar10(home, tmp_path, file, labels):
    made, folder = home
    write(folder, answers(), file)
    human, clean = cifar10n(tmp_path, labels=labels, **SIZES), made.load(tmp_path)
    np.testing.assert_array_equal(human.train.targets, answers()[NAMES[labels]][human.train.index])
    assert not torch.equal(human.train.targets, clean.train.targets)
    assert torch.equal(human.train.images, clean.train.images)
    assert torch.equal(human.valid.targets, clean.valid.targets)
    assert torch.equal(human.test.targets, clean.test.targets)
    assert human.checksum != clean.checksum


def test_a_file_saved_before_numpy_2_is_read(home, tmp_path):
    write(home[1], answers(), FILES[0])
    import zipfile

    path = home[1] / FILES[0]
    with zipfile.ZipFile(path) as packed:
        content = {name: packed.read(name) for name in packed.namelist()}
    pickled = next(name for name in content if name.endswith("data.pkl"))
    assert b"numpy._core.multiarray" in content[pickled]
    content[pickled] = content[pickled].replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    with zipfile.ZipFile(path, "w") as packed:
        for name, data in content.items():
            packed.writestr(name, data)
    assert len(cifar10n(tmp_path, labels="worse", **SIZES).train) == 50


def test_a_file_that_would_run_a_program_is_refused(home, tmp_path):
    class Harm:
        def __reduce__(self):
            return print, ("harm",)

    torch.save(Harm(), home[1] / FILES[0], pickle_module=pickle)
    with pytest.raises(MissingData, match="cannot be read"):
        cifar10n(tmp_path, labels="worse", **SIZES)


@pytest.mark.parametrize("fault", ["absent", "damaged", "a name is missing", "other images", "too short"])
def test_faults_are_named_with_the_file(home, tmp_path, fault):
    arrays = answers()
    if fault == "a name is missing":
        del arrays["random_label3"]
    if fault == "other images":
        arrays["clean_label"] = (arrays["clean_label"] + 1) % 10
    if fault == "too short":
        arrays = {name: values[:9] for name, values in arrays.items()}
    if fault == "damaged":
        (home[1] / FILES[0]).write_bytes(b"damaged")
    elif fault != "absent":
        write(home[1], arrays, FILES[0])
    told = {"absent": "are absent in", "other images": "other images", "too short": "other images"}
    with pytest.raises(MissingData, match=re.escape(told.get(fault, "cannot be read"))) as caught:
        cifar10n(tmp_path, labels="worse", **SIZES)
    assert str(home[1]) in str(caught.value)


def test_unknown_labels_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"dataset.labels is best; CIFAR-10N has worse, aggre"):
        cifar10n(tmp_path, labels="best", **SIZES)
