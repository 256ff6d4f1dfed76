"""What the pixels of masks mean: class numbers, or values and colours that a table names; and what masks hold."""

import itertools
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from datasets.pixels import opened
from datasets.splits import VOID, MissingData

Colour = tuple[int, int, int]
Colours = Mapping[str, int | Sequence[int]]
VOID_NAME = "void"
"""Of the colour, in a table, whose pixels belong to no class."""
LOSSY = (".jpg", ".jpeg", ".webp")
"""Suffixes of files whose compression blurs the values of a mask."""
APART = 60.0
"""How far values of blurred masks are apart, if they are two: the Euclidean distance of colours."""
RARE = 0.002
"""Share of all pixels that a value of blurred masks has at least; a rarer one is the blur."""
MOST = 60
"""Colours at most that unblurred masks hold; of more, those that are not rare are proposed."""
LOOKED_AT, GLANCED_AT = 400, 100
"""Masks that are looked at to learn what all of them hold, evenly spaced: to train, and to propose settings."""


class Table(NamedTuple):
    """Colours of classes, float32 (K, 3), and the number of the class of each, uint8 (K,)."""

    colours: np.ndarray
    numbers: np.ndarray

    @property
    def is_grey(self) -> bool:
        """Whether all are grey: then they are also the values of a mask without colours, or of an index."""
        return bool((self.colours == self.colours[:, :1]).all())

    @property
    def reach(self) -> float:
        """How far a blurred pixel may be from its colour: half of the least distance between two."""
        pairs = itertools.combinations(self.colours, 2)
        return min(float(np.linalg.norm(one - other)) for one, other in pairs) / 2


def table_of(colours: Colours) -> tuple[tuple[str, ...], Table]:
    """Return the names of the classes, in their order and without void, and their colours.

    Raises:
        ValueError: a colour is none, or two classes share one.
    """
    names = tuple(name for name in colours if name != VOID_NAME)
    values: dict[Colour, str] = {}
    for name, value in colours.items():
        colour = (value, value, value) if isinstance(value, int) else tuple(value)
        if len(colour) != 3 or not all(0 <= channel <= VOID for channel in colour):
            raise ValueError(
                f"dataset.colours.{name} is {value}; it must be a grey value, or red, green and blue, from 0 to 255."
            )
        if colour in values:
            raise ValueError(f"dataset.colours gives {name} and {values[colour]} the same colour {list(colour)}.")
        values[colour] = name
    if len(names) < 2:
        raise ValueError(f"dataset.colours names {len(names)} classes; it must name two or more.")
    numbers = [VOID if name == VOID_NAME else names.index(name) for name in values.values()]
    return names, Table(np.array(list(values), dtype=np.float32), np.array(numbers, dtype=np.uint8))


def is_blurred(path: Path) -> bool:
    """Return whether the values of a mask in this file are blurred by compression, as its suffix says."""
    return path.suffix.lower() in LOSSY


def pixels(mask: Image.Image) -> np.ndarray:
    """Return the values of a mask: int64 (H, W) of numbers, or uint8 (H, W, 3) of colours that are not all grey.

    A palette is not looked up, as its indices are class numbers; but one that is grey throughout is, as it holds values
    that were packed (which GIF does). What is transparent is 0, or black.

    Raises:
        ValueError: values are not whole numbers.
    """
    if mask.mode == "P":
        values, palette = np.asarray(mask).astype(np.int64), palette_of(mask)
        used = palette[np.unique(values).clip(0, len(palette) - 1)]
        packed = (palette == palette[:, :1]).all() and len(np.unique(used[:, 0])) == len(used)
        return palette[values.clip(0, len(palette) - 1), 0] if packed else values
    if mask.mode in ("1", "L", "I", "I;16", "I;16B", "I;16L"):
        return np.asarray(mask).astype(np.int64)
    if mask.mode == "F":
        values = np.asarray(mask)
        if not (values == np.round(values)).all():
            raise ValueError("holds fractions, but a mask holds whole numbers")
        return values.astype(np.int64)
    seen = coloured(mask)
    return seen[..., 0].astype(np.int64) if (seen == seen[..., :1]).all() else seen


def palette_of(mask: Image.Image) -> np.ndarray:
    """Return the colours of a palette, int64 (256 at most, 3)."""
    return np.array(mask.getpalette("RGB") or [0, 0, 0], dtype=np.int64).reshape(-1, 3)


def coloured(mask: Image.Image) -> np.ndarray:
    """Return red, green and blue of a mask in any mode, uint8 (H, W, 3); black where it is transparent."""
    if mask.mode in ("LA", "RGBA", "PA") or "transparency" in mask.info:
        values = np.asarray(mask.convert("RGBA"))
        return values[..., :3] * (values[..., 3:] > 0)
    if mask.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        mask = Image.fromarray(np.asarray(mask).clip(0, VOID).astype(np.uint8))
    return np.asarray(mask.convert("RGB"))


def numbered(mask: Image.Image, table: Table, reach: float) -> tuple[np.ndarray, Colour | None]:
    """Return the class of each pixel by its nearest colour, uint8 (H, W), and one that is further off than ``reach``.

    Pixels further off are void.
    """
    seen = pixels(mask) if table.is_grey else coloured(mask)
    seen = np.stack([seen.clip(0, VOID)] * 3, 2) if seen.ndim == 2 else seen
    packed = seen.astype(np.int64) @ np.array([65536, 256, 1])
    values, place = np.unique(packed, return_inverse=True)
    found = _unpacked(values).astype(np.float32)
    distance = np.linalg.norm(found[:, None] - table.colours[None], axis=2)
    nearest, far = distance.argmin(1), distance.min(1) > reach
    numbers = np.where(far, VOID, table.numbers[nearest]).astype(np.uint8)
    stray = _colour(found[far.argmax()]) if far.any() else None
    return numbers[place].reshape(packed.shape), stray


def _unpacked(values: np.ndarray) -> np.ndarray:
    return np.stack([values // 65536, values // 256 % 256, values % 256], 1)


def _colour(values: Iterable[Any]) -> Colour:
    red, green, blue = (int(value) for value in values)
    return red, green, blue


# ---------------------------------------------------------------- what masks hold


@dataclass
class Contents:
    """What masks hold.

    Attributes:
        numbers: pixels by value, of masks without colours.
        colours: pixels by colour, of the others.
        blurred: whether compression blurred a mask.
        files: how many were looked at.
    """

    numbers: Counter[int] = field(default_factory=Counter)
    colours: Counter[Colour] = field(default_factory=Counter)
    blurred: bool = False
    files: int = 0


def contents(files: Sequence[Path], most: int = LOOKED_AT) -> Contents:
    """Return what evenly spaced masks hold; one that cannot be read is passed over, for the reader to complain of.

    Masks with palettes hold the colours of these where an index means one colour here and another there.
    """
    rows = np.unique(np.linspace(0, len(files) - 1, min(len(files), most)).round().astype(int))
    chosen = [files[row] for row in rows]
    found = _contents(chosen, pixels)
    return _contents(chosen, coloured) if found is None else found


def _contents(files: Sequence[Path], read: Callable[[Image.Image], np.ndarray]) -> Contents | None:
    """Return what masks hold, None where indices of their palettes are no numbers of classes."""
    found, meaning = Contents(), {}
    for file in files:
        try:
            mask = opened(file)
            values = read(mask)
        except (MissingData, ValueError):
            continue
        found.files += 1
        found.blurred |= is_blurred(file)
        if values.ndim == 3:
            packed, counts = np.unique(values.astype(np.int64) @ np.array([65536, 256, 1]), return_counts=True)
            found.colours.update(dict(zip(map(_colour, _unpacked(packed)), counts.tolist(), strict=True)))
            continue
        numbers, counts = np.unique(values, return_counts=True)
        found.numbers.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
        if mask.mode == "P" and len(palette := palette_of(mask)) > numbers[-1]:
            colours = {number: _colour(palette[number]) for number in numbers.tolist()}
            if any(meaning.setdefault(number, colour) != colour for number, colour in colours.items()):
                return None
    if found.colours:  # grey masks among coloured ones
        found.colours.update({(value, value, value): count for value, count in found.numbers.items()})
        found.numbers.clear()
    return found


def understood(found: Contents, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `dataset=folder` that masks ask for: `classes`, `binary`, `colours`.

    Args:
        found: what they hold.
        known: what `described` returns.

    Raises:
        ValueError: they hold one value alone, or more than can be classes.
    """
    if not found.numbers and not found.colours:
        raise ValueError("no mask can be read.")
    if found.colours or found.blurred:
        return _by_table(found, known)
    names, values = known.get("classes", ()), sorted(found.numbers)
    if len(values) == 1:
        raise ValueError(f"all {found.files} masks hold the value {values[0]} alone; they must show two classes.")
    if len(values) == 2 and values[0] == 0:
        return {"classes": _names(names, 2), **({"binary": True} if values[1] > 1 else {})}
    classes = values if values[-1] != VOID or values[-2] > MOST else values[:-1]
    if classes == list(range(len(classes))) and len(classes) <= VOID:
        return {"classes": _names(names, len(classes))}
    if len(values) > MOST:
        raise ValueError(
            f"masks hold {len(values)} values, from {values[0]} to {values[-1]}, too many to be classes; if every "
            "value but 0 is one class, set dataset.binary=true."
        )
    table = {names[value] if value < len(names) else f"class_{value}": value for value in classes}
    return {"colours": table | ({VOID_NAME: VOID} if classes != values else {})}


def _by_table(found: Contents, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings for coloured or blurred masks."""
    colours = Counter(found.colours or {(value, value, value): count for value, count in found.numbers.items()})
    if found.blurred or len(colours) > MOST:
        colours = _peaks(colours)
    if len(colours) == 1:
        raise ValueError(f"all masks hold the colour {list(next(iter(colours)))} alone; they must show two classes.")
    ordered, black = sorted(colours), (0, 0, 0)
    named = {tuple(colour): name for name, colour in known.get("colours", {}).items()}
    if named:
        return {"colours": {named.get(colour, _colour_name(colour)): list(colour) for colour in ordered}}
    grey = all(len(set(colour)) == 1 for colour in colours)
    if len(ordered) == 2 and ordered[0] == black:
        if grey:
            return {"classes": _names(known.get("classes", ()), 2), "binary": True}
        return {"colours": {"background": [0, 0, 0], "object": list(ordered[1])}}
    return {"colours": {_colour_name(colour): colour[0] if grey else list(colour) for colour in ordered}}


def _peaks(colours: Counter[Colour]) -> Counter[Colour]:
    """Return the most frequent colours of blurred masks that lie apart, and are not rare."""
    least = RARE * sum(colours.values())
    shares: Counter[Colour] = Counter()
    centres = np.zeros((0, 3))
    for colour, count in colours.most_common():
        if count < least / 20 and shares:  # what follows is rarer still
            break
        distances = np.linalg.norm(centres - np.array(colour), axis=1)
        if len(distances) and distances.min() < APART:
            shares[_colour(centres[distances.argmin()])] += count
        else:
            centres = np.concatenate([centres, [colour]])
            shares[colour] += count
    return Counter({colour: count for colour, count in shares.items() if count >= least})


def _names(names: Sequence[str], count: int) -> list[str]:
    if len(names) == count:
        return list(names)
    return ["background", "object"] if count == 2 else [f"class_{number}" for number in range(count)]


def _colour_name(colour: Colour) -> str:
    if colour == (0, 0, 0):
        return "background"
    return f"grey_{colour[0]}" if len(set(colour)) == 1 else "colour_" + "_".join(map(str, colour))


def overrides(settings: Mapping[str, Any]) -> str:
    """Return settings of the data set as they are given on a command line, in quotes where a shell needs them.

    >>> overrides({"binary": True, "colours": {"road": [128, 64, 128]}})
    "dataset.binary=true 'dataset.colours={road: [128, 64, 128]}'"
    """
    return " ".join(shlex.quote(f"dataset.{name}={_written(value)}") for name, value in settings.items())


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_written(name)}: {_written(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    if isinstance(value, str):
        return value if re.fullmatch(r"[A-Za-z_]\w*", value) else '"' + value.replace('"', "") + '"'
    return str(value).lower()


# ---------------------------------------------------------------- what files beside them say


NAMES = ("classes.txt", "labels.txt", "codes.txt", "class_names.txt")
"""Files with the name of a class in each line, from 0 on."""
TABLES = ("class_dict.csv", "labelmap.txt", "label_colors.txt", "class_colors.csv")
"""Files with a name and a colour in each line, in any order and with any sign between them."""


def described(home: Path) -> dict[str, Any]:
    """Return the names of `classes`, and their `colours`, as files in a folder give them: both, one or none."""
    found: dict[str, Any] = {}
    for file in (home / name for name in TABLES if (home / name).is_file()):
        rows = [_row(line) for line in file.read_text(encoding="utf-8-sig").splitlines()]
        if colours := dict(filter(None, rows)):
            found["colours"] = colours
            break
    for file in (home / name for name in NAMES if (home / name).is_file()):
        found["classes"] = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        break
    return found


def _row(line: str) -> tuple[str, list[int]] | None:
    """Return the name and the colour that a line gives, None if it gives none."""
    numbers = re.search(r"(?<!\d)(\d{1,3})[\s,:;]+(\d{1,3})[\s,:;]+(\d{1,3})(?!\d)", line)
    if numbers is None or line.startswith("#"):
        return None
    name = (line[: numbers.start()] + line[numbers.end() :]).strip(" \t,:;")
    return (name, [int(number) for number in numbers.groups()]) if name else None
