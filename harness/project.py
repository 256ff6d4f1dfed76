"""python -m harness.project DIR

Make a small project of your own: a loss, and a study that compares it with others. It runs at
once in the environment of `make env`:

  cd DIR && python -m harness study=mine

Exit code: 0 made; 2 there is something already.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.errors import UsageError

FILES = {
    "my_losses.py": '''"""Losses of my own."""

import torch
from torch import Tensor

from losses.loss import about


@about(name="My loss", family="probability", kind="class_logits", link="softmax", paper="my own", evidence="H")
def my_loss(logits: Tensor, target: Tensor, *, power: float = 0.5) -> Tensor:
    """Cross-entropy that trusts what is likely already: L = -(p_t)^power ln p_t.

    Args:
        logits: (N, C).
        target: int64 (N,), the class of each item.
        power: at least 0; 0 gives cross-entropy.

    Returns:
        One value per item, (N,).
    """
    log_p = logits.log_softmax(1).gather(1, target[:, None])[:, 0]
    return -torch.exp(power * log_p).detach() * log_p
''',
    "conf/loss/my_loss.yaml": """_target_: my_losses.my_loss
_partial_: true
power: 0.5
""",
    "conf/study/mine.yaml": """question: Is my loss better than cross-entropy on digits?
axes:
  loss: [cross_entropy, focal, my_loss]
  model: [mlp]
  seed: [1, 2, 3]
base: {trainer.epochs: 5}
""",
    "README.md": """# My losses

    python -m harness study=mine                                # compare; the report is in results/mine/report
    python -m harness.run loss=my_loss model=mlp                # one run
    python -m harness.look data=PATH                            # what a table or a folder of images is understood to be

From another folder add `--config-dir` and the path of this one. Every file of `conf/GROUP/` is an option of that group:
losses, models, data sets (`_target_` names a function or class in a module beside `conf/`), and studies.
""",
}
"""Content by path."""


def make(folder: Path) -> list[Path]:
    """Write the project into a folder and return its files.

    Raises:
        UsageError: one of them is there already.
    """
    files = {folder / name: content for name, content in FILES.items()}
    if there := next((path for path in files if path.exists()), None):
        raise UsageError(f"{there} is there already: give a folder for a new project.")
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}.") from error
    return list(files)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command line; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != 1 or given[0].startswith("-"):
        print(__doc__)
        return 0 if {"-h", "--help"} & set(given) else 2
    try:
        made = make(Path(given[0]).expanduser())
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(map(str, made)))
    print(f"Now: cd {given[0]} && python -m harness study=mine")
    return 0


if __name__ == "__main__":
    sys.exit(main())
