"""How many classes the task of a search has."""

from __future__ import annotations

from harness.evolution.asked import Asked


def classes_of(asked: Asked) -> int:
    """Return the number of classes; the data are read.

    Raises:
        UsageError: the task compares no classes, or its data are missing.
    """
    import torch

    from datasets.splits import MissingData
    from harness.errors import UsageError
    from harness.training import build

    spec = asked.setting("cross_entropy").spec
    try:
        task = build.task(spec, asked.options["data"], asked.options["feed"], torch.device("cpu"), asked.seeds[0])
    except MissingData as error:
        raise UsageError(str(error)) from error
    if "class_logits" not in task.spec.outputs:
        raise UsageError(f"task={asked.base.choices['task']} compares no classes, and a formula is about classes.")
    return task.spec.outputs["class_logits"]
