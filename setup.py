"""Builds the losses as a package that can be installed beside anything: `losses` becomes `lossbench_losses`.

In the checkout they are `losses`, which configs and recorded runs name; as a top-level package that name might belong
to somebody else. So the build copies them under a name of their own and rewrites the imports among them, nothing else.
"""

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

NAME = "lossbench_losses"
# an import of `losses` or of one of its modules, also in an example of a docstring; and its modules named in the text
IMPORT = re.compile(r"^(\s*(?:>>> )?(?:from|import) )losses(?=[. ])", re.MULTILINE)
NAMED = re.compile(r"(?<=`)losses\.")


class Build(build_py):
    """Copies the modules, each with its imports under the installed name."""

    def run(self) -> None:
        """Rewrite what was copied."""
        super().run()
        for path in Path(self.build_lib, NAME).rglob("*.py"):
            text = IMPORT.sub(rf"\1{NAME}", path.read_text(encoding="utf-8"))
            path.write_text(NAMED.sub(f"{NAME}.", text), encoding="utf-8")


setup(packages=[NAME], package_dir={NAME: "losses"}, package_data={NAME: ["py.typed"]}, cmdclass={"build_py": Build})
