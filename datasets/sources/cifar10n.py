"""CIFAR-10N: the images of CIFAR-10 with training labels as people gave them, wrong ones included."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from datasets.files import official, reads
from datasets.sources.cifar10 import SOURCE, cifar10
from datasets.splits import MissingData, Splits, SplitSettings

LABELS = ("worse", "aggre", "random1", "random2", "random3")
FILES = ("CIFAR-10_human.pt", "cifar10n_labels.npz")


@official
@reads(
    ("cifar10/cifar-10-batches-py/data_batch_[1-5]", "cifar-10-batches-py/data_batch_[1-5]"),
    ("cifar10/cifar-10-batches-py/test_batch", "cifar-10-batches-py/test_batch"),
    ("cifar10/cifar-10-batches-py/batches.meta", "cifar-10-batches-py/batches.meta"),
    ("cifar10/CIFAR-10_human.pt", "cifar10/cifar10n_labels.npz", "CIFAR-10_human.pt", "cifar10n_labels.npz"),
)
def cifar10n(root: Path, *, labels: str, download: bool = False, **common: Unpack[SplitSettings]) -> Splits:
    """The same splits as ``cifar10``, where training labels are what people answered; validation and test are clean.

    Args:
        root: Folder of all data sets; beside the files of CIFAR-10, `root/cifar10` holds the official
            `CIFAR-10_human.pt`, or the same arrays by the same names in `cifar10n_labels.npz`.
        labels: `worse` (a wrong answer among three where there is one: 40 % wrong), `aggre` (the majority of
            three: 9 %) or one answer, `random1`, `random2` or `random3` (17 to 18 %).
        download: Whether to fetch the images where they are absent; the labels are not fetched.
        common: Settings as in `splits.SplitSettings`.

    Raises:
        MissingData: The files are absent or damaged, or could not be downloaded.
        ValueError: A size cannot be had, or there are no such labels.

    Source:
        Wei et al., Learning with Noisy Labels Revisited, ICLR 2022.
    """
    if labels not in LABELS:
        raise ValueError(f"dataset.labels is {labels}; CIFAR-10N has {', '.join(LABELS)}.")
    path, answers = _answers(SOURCE.home(root))
    clean = cifar10(root, download=download, **common)
    place = clean.train.index
    if len(answers["clean"]) <= int(place.max()) or not torch.equal(answers["clean"][place], clean.train.labels):
        raise MissingData(f"{path.resolve()} belongs to other images than these of CIFAR-10; fetch both again.")
    return replace(clean, train=replace(clean.train, targets=answers[labels][place]))


def _answers(home: Path) -> tuple[Path, dict[str, Tensor]]:
    """Return the file and its labels, int64 (50,000,) each, in the order of the five official files of CIFAR-10."""
    path = next((home / file for file in FILES if (home / file).is_file()), None)
    if path is None:
        raise MissingData(
            f"The labels of CIFAR-10N are absent in {home.resolve()}: put {FILES[0]} there, "
            "which the authors offer in the folder data of UCSC-REAL/cifar-10-100n on GitHub."
        )
    try:
        arrays = _arrays(path)
        names = {name: f"random_label{name[-1]}" if name[:-1] == "random" else f"{name}_label" for name in LABELS}
        names["clean"] = "clean_label"
        return path, {ours: torch.from_numpy(np.asarray(arrays[name]).astype(np.int64)) for ours, name in names.items()}
    except Exception as error:  # a damaged archive raises whatever its reader was doing
        told = " ".join(str(error).split())[:120]
        raise MissingData(f"{path.resolve()} cannot be read ({told}); fetch it again.") from error


def _arrays(path: Path) -> Any:
    if path.suffix == ".npz":
        return np.load(path)
    # The file holds arrays of numpy in a pickle. Only what builds an array may run, also by the name before numpy 2.
    build: Any = np.zeros(0).__reduce__()[0]
    harmless = [np.ndarray, np.dtype, type(np.dtype(np.int64)), type(np.dtype(np.uint8)), build]
    with torch.serialization.safe_globals([*harmless, (build, "numpy.core.multiarray._reconstruct")]):
        return torch.load(path, weights_only=True)
