"""What was understood, as one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from harness.errors import UsageError
from harness.look.pictures import Picture, colour
from harness.look.shown import MOST_CLASSES, commands
from harness.look.understood import Understood

HERE = Path(__file__).parent
STYLE = HERE.parent / "report" / "templates" / "page.css"
"""The style of reports, which this page shares."""


def checked(file: Path) -> Path:
    """Return the file, where a page can be written.

    Raises:
        UsageError: it is no .html file, or its folder does not exist.
    """
    if file.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"page={file} is no page: give a file that ends in .html.")
    if not file.expanduser().parent.is_dir():
        raise UsageError(f"page={file}: there is no folder {file.parent}; make it first.")
    return file.expanduser()


def write(file: Path, understood: Understood, pictures: Sequence[Picture]) -> None:
    """Write the page.

    Args:
        file: where.
        understood: what it says.
        pictures: the sheet of images; none for tables.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        file.write_text(text(understood, pictures), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"page={file} cannot be written: {error.strerror or error}.") from error


def text(understood: Understood, pictures: Sequence[Picture]) -> str:
    """Return the page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return environment.get_template("page.html.j2").render(
        understood=understood,
        path=Path(understood.overrides["dataset.path"]).name,
        pictures=pictures,
        shown=understood.classes[:MOST_CLASSES],
        left=len(understood.classes) - MOST_CLASSES,
        coloured=bool(pictures) and understood.heads[0] != "training",
        colour=lambda number: "#{:02x}{:02x}{:02x}".format(*colour(number)),
        commands=commands(understood),
        style=Markup(STYLE.read_text() + (HERE / "page.css").read_text()),
    )
