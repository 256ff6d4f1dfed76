"""Tables that list images with their labels: CSV, JSON lines and parquet, and what their columns mean."""

import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from datasets.listings import NONE, Entry, Listing, checked, files, folders, ordered, part_named
from datasets.pixels import SUFFIXES, is_image, some
from datasets.splits import MissingData

TEXT = (".csv", ".tsv", ".txt")
SUFFIXES_OF_TABLES = (*TEXT, ".jsonl", ".parquet")
FIRST = ("labels", "metadata")
"""Names, without suffix, of tables that come before folders of classes."""
SEPARATORS = (",", ";", "\t", "|")
BETWEEN_LABELS = (";", "|", ",")
FILES = ("file", "file_name", "filename", "image", "image_path", "img", "path", "filepath", "image_id", "id", "name")
LABELS = ("label", "labels", "class", "target", "category", "tags", "diagnosis", "dx", "species", "breed", "y")
SPLITS = ("split", "set", "subset", "part", "partition")
"""Names that columns of files, labels and parts usually have, in lower case, the best first."""
LOOKED_AT = 200
"""Rows by which a column of files is recognised."""


@dataclass
class Table:
    """A table as texts.

    Attributes:
        path: of its file.
        columns: values of each row, by column; an empty text where there is none; lists where the file has lists.
        part: that all rows belong to, `NONE` if the table does not say.
        packed: of parquet, for each column of images, what returns the bytes of each row.
        names: of columns of numbered classes, the name of each number.
        named: of columns of packed images, the names of their files.
    """

    path: Path
    columns: dict[str, list[Any]]
    part: str = NONE
    packed: dict[str, list[Callable[[], bytes]]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    named: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter({**self.columns, **self.packed}.values()), []))


@dataclass(frozen=True)
class Columns:
    """Which column means what: of files, of labels (several: one for each class), and of parts."""

    file: str
    labels: tuple[str, ...]
    split: str | None


def find(home: Path, table: str | None) -> list[Table]:
    """Return the tables that list the images of a folder, none if folders do.

    A table that is named; `labels` or `metadata` with any suffix, the latter also in folders of parts; parquet with
    packed images; and, where there are no folders of classes, tables named after parts, or the only one that there is.

    Raises:
        MissingData: the named table is missing, or one cannot be read.
    """
    if table is not None:
        if not (home / table).is_file():
            raise MissingData(f"dataset.table={table}: there is no such file in {home}.")
        return [read(home / table)]
    here = [home, *(folder for folder in folders(home) if part_named(folder.name))]
    first = [path for folder in here for path in _tables(folder) if path.stem.lower() in FIRST]
    if first:
        return [read(path, part_named(path.parent.name) or NONE if path.parent != home else NONE) for path in first]
    return _shards(home)


def beside(home: Path) -> list[Table]:
    """Return the tables of a folder without folders of classes: one for each part, or one for all; else none."""
    found = _tables(home)
    of_parts = [(path, part) for path in found if (part := _part_of_file(path))]
    if "train" in {part for _, part in of_parts}:
        return [read(path, part) for path, part in of_parts]
    return [read(found[0])] if len(found) == 1 else []


def _tables(folder: Path) -> list[Path]:
    kept = (".csv", ".tsv", ".jsonl", ".parquet")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in kept and not path.name.startswith("."))


def _part_of_file(path: Path) -> str | None:
    """Return the part that the name of a file begins with: `train-00000-of-00001.parquet`."""
    return part_named(re.split(r"[-_.]", path.name, maxsplit=1)[0])


def _shards(home: Path) -> list[Table]:
    """Return parquet files with packed images, as the Hugging Face hub stores them."""
    paths = [home / file for file in files(home) if file.suffix.lower() == ".parquet"]
    found = [table for path in paths if (table := read(path, _part_of_file(path) or _part_above(path))).packed]
    if len(homes := {table.path.parent for table in found if not part_named(table.path.parent.name)}) > 1:
        raise MissingData(
            f"{home} holds several data sets of parquet files ({some(sorted(p.name for p in homes))}): name one of "
            "these folders in dataset.path."
        )
    return found


def _part_above(path: Path) -> str:
    return part_named(path.parent.name) or NONE


def read(path: Path, part: str = NONE) -> Table:
    """Return a table, all columns of a parquet file with images included.

    Raises:
        MissingData: it cannot be read, or has no row.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            table = _parquet(path)
        elif suffix == ".jsonl":
            table = Table(path, _json_lines(path))
        else:
            table = Table(path, _text(path))
    except (OSError, ValueError, csv.Error) as error:
        raise MissingData(
            f"{path} cannot be read as a table ({error}); mend it, or name another in dataset.table."
        ) from None
    if not len(table):
        raise MissingData(f"{path} has no row; there must be one for each image, below a line of column names.")
    table.part = part
    return table


def _text(path: Path) -> dict[str, list[Any]]:
    """Return the columns of a file of text, in the encoding and with the separator that it has."""
    content = path.read_bytes()
    for encoding in ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "latin-1"):
        try:
            text = content.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    else:
        raise ValueError("it is no text in UTF-8, UTF-16 or Latin 1")
    head = text.split("\n", 1)[0]
    rows = list(csv.reader(text.splitlines(), delimiter=max(SEPARATORS, key=head.count)))
    names, rows = ([name.strip() for name in rows[0]], rows[1:]) if rows else ([], [])
    rows = [(number, row) for number, row in enumerate(rows, 2) if any(row)]
    for number, row in rows:
        if len(row) != len(names):
            raise ValueError(f"line {number} has {len(row)} values, but there are {len(names)} column names")
    return {name: [row[place].strip() for _, row in rows] for place, name in enumerate(names)}


def _json_lines(path: Path) -> dict[str, list[Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("each line must be a JSON object")
    return {name: [_plain(row.get(name)) for row in rows] for name in dict.fromkeys(key for row in rows for key in row)}


def _plain(value: Any) -> Any:
    """Return a value of JSON or parquet as text, or a list of texts."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bool):
        return str(int(value))
    return "" if value is None else str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _parquet(path: Path) -> Table:
    """Return a parquet file; columns of bytes, or of bytes with a path beside, are packed images."""
    import pyarrow as pa
    from pyarrow import parquet

    read_in = parquet.read_table(path)
    features = (
        json.loads((read_in.schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    )
    table = Table(path, {})
    for column in read_in.schema:
        name, values, kind = column.name, read_in[column.name], column.type
        if pa.types.is_struct(kind) and "bytes" in [kind.field(place).name for place in range(kind.num_fields)]:
            flat = values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
            table.packed[name] = [partial(_bytes, flat.field("bytes"), row) for row in range(len(flat))]
            paths = flat.field("path").to_pylist() if kind.get_field_index("path") >= 0 else [None] * len(flat)
            table.named[name] = [found or f"{path.stem}-{row:06}" for row, found in enumerate(paths)]
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            table.packed[name] = [partial(_bytes, values, row) for row in range(len(values))]
            table.named[name] = [f"{path.stem}-{row:06}" for row in range(len(values))]
        elif not pa.types.is_struct(kind):
            table.columns[name] = [_plain(value) for value in values.to_pylist()]
            about = features.get(name, {})
            about = about.get("feature", about) if isinstance(about, dict) else {}
            if isinstance(about, dict) and about.get("names"):
                table.names[name] = [str(each) for each in about["names"]]
    return table


def _bytes(values: Any, row: int) -> bytes:
    return values[row].as_py() or b""


def listing(
    home: Path, tables: Sequence[Table], file: str | None, label: str | Sequence[str] | None, skip: bool = False
) -> Listing:
    """Return the images that tables list.

    Args:
        home: folder of the images.
        tables: with the same columns.
        file: column of the names of files, or of packed images; None recognises it.
        label: column of labels, or the columns of 0 and 1 of each class; None recognises them.
        skip: whether to leave rows out whose file is missing.

    Raises:
        MissingData: a column cannot be recognised, a row is wrong, or a file is missing.
    """
    at_hand = _Files(home, {table.path.parent for table in tables})
    columns = _columns(tables[0], at_hand, file, label)
    labels, classes, several, read_as = _labels(tables, columns)
    rows = [(table, row) for table in tables for row in range(len(table))]
    found = [_entry(*each, columns, named, at_hand) for each, named in zip(rows, labels, strict=True)]
    missing = [each for each, entry in zip(rows, found, strict=True) if entry is None]
    missed = _missing(missing, columns, home, len(rows), skip)
    spare = [name for name in tables[0].columns if name not in (columns.file, *columns.labels, columns.split)]
    kept = [each for each, entry in zip(rows, found, strict=True) if entry is not None]
    others = {name: [_flat(table.columns[name][row]) for table, row in kept] for name in spare}
    where = ", ".join(table.path.name for table in tables[:3]) + (", ..." if len(tables) > 3 else "")
    split = f", parts in '{columns.split}'" if columns.split else ""
    note = f"read from {where}: images in the column '{columns.file}', {read_as}{split}."
    chosen = columns.labels[0] if len(columns.labels) == 1 else list(columns.labels)
    settings = (("file", columns.file), ("label", chosen))
    entries = tuple(entry for entry in found if entry is not None)
    return checked(Listing(entries, classes, several, (note, *missed), others, settings))


def _missing(missing: Sequence[tuple[Table, int]], columns: Columns, home: Path, count: int, skip: bool) -> list[str]:
    """Return what is to be said of rows whose file is missing.

    Raises:
        MissingData: there are such rows, and they are not to be skipped.
    """
    if not missing:
        return []
    names = some(f"line {row + 2}, '{table.columns[columns.file][row]}'" for table, row in missing)
    of_all = f"{len(missing)} of {count} rows of {missing[0][0].path.name}"
    which = f"{of_all} name no image of {home}, or one of several: {names}"
    if skip:
        return [f"{which}; they were left out."]
    raise MissingData(f"{which}. Mend the table, or leave such rows out with dataset.damaged=skip.")


def _flat(value: Any) -> str:
    return ";".join(value) if isinstance(value, list) else value


class _Files:
    """The images of a folder, found by path, by name, or by name without suffix where that is clear."""

    def __init__(self, home: Path, tables: Iterable[Path]) -> None:
        self.home, self.tables = home, sorted(tables)
        self._known: dict[str, list[Path]] | None = None

    @property
    def known(self) -> dict[str, list[Path]]:
        """Files by name, with and without suffix."""
        if self._known is None:
            self._known = {}
            for file in files(self.home):
                if is_image(file):
                    for name in (file.name, file.stem):
                        self._known.setdefault(name, []).append(self.home / file)
        return self._known

    def find(self, name: str) -> Path | None:
        """Return the file of a name, None if there is none, or more than one."""
        name = name.replace("\\", "/")
        if not name:
            return None
        for folder in self.tables if Path(name).suffix.lower() in SUFFIXES else ():
            path = Path(os.path.normpath(folder / name))
            if path.is_relative_to(self.home) and path.is_file():  # what lies elsewhere has no part in a run's key
                return path
        found = self.known.get(name.rsplit("/", 1)[-1], [])
        ends = [
            path for path in found if f"/{path.with_suffix('')}".endswith(f"/{name}") or f"/{path}".endswith(f"/{name}")
        ]
        chosen = ends or (found if "/" not in name else [])
        return chosen[0] if len(chosen) == 1 else None


def _columns(table: Table, at_hand: _Files, file: str | None, label: str | Sequence[str] | None) -> Columns:
    known = {**table.columns, **table.packed}
    wanted = [label] if isinstance(label, str) else list(label or [])
    for setting, name in (("file", file), *(("label", each) for each in wanted)):
        if name is not None and name not in known:
            raise MissingData(f"dataset.{setting}={name}: {table.path} has the columns {', '.join(known)}.")
    chosen = file or next(iter(table.packed), None) or _file_column(table, at_hand)
    left = [name for name in table.columns if name != chosen and name not in wanted]
    split = next((name for name in left if name.lower() in SPLITS and _is_split(table.columns[name])), None)
    return Columns(chosen, tuple(wanted) or _label_columns(table, chosen, split), split)


def _is_split(values: list[Any]) -> bool:
    return sum(bool(part_named(value)) for value in values if isinstance(value, str)) * 2 >= len(values)


def _file_column(table: Table, at_hand: _Files) -> str:
    shares = {}
    for name, values in table.columns.items():
        some_values = [value for value in values[:LOOKED_AT] if isinstance(value, str)]
        usual = FILES.index(name.lower()) if name.lower() in FILES else len(FILES)
        shares[name] = (sum(at_hand.find(value) is not None for value in some_values), -usual)
    best = max(shares, key=lambda name: shares[name])
    if not shares[best][0] and best.lower() not in FILES:
        raise MissingData(
            f"no column of {table.path} names images of {at_hand.home} (it has {', '.join(table.columns)}): name the "
            "column in dataset.file, and the folder that holds the images in dataset.path."
        )
    return best


def _label_columns(table: Table, file: str, split: str | None) -> tuple[str, ...]:
    left = [name for name in table.columns if name not in (file, split)]
    usual = sorted((name for name in left if name.lower() in LABELS), key=lambda name: LABELS.index(name.lower()))
    marks = [name for name in left if set(map(str, table.columns[name])) <= {"0", "1", "0.0", "1.0"}]
    if usual:
        return (usual[0],)
    if len(marks) > 1:
        return tuple(marks)
    if len(left) == 1:
        return (left[0],)
    raise MissingData(
        f"{table.path} does not say which of its columns holds the labels: name one of {', '.join(left) or 'them'} in "
        "dataset.label, or in a list the columns of 0 and 1 of all classes."
    )


def _labels(tables: Sequence[Table], columns: Columns) -> tuple[list[tuple[str, ...]], tuple[str, ...], bool, str]:
    """Return the labels of every row, the classes in order, whether a row may have several, and how they were read."""
    if len(columns.labels) > 1:
        rows = [_marked(table, row, columns.labels) for table in tables for row in range(len(table))]
        several = any(len(row) != 1 for row in rows)
        how = "any number in" if several else "one for each image, marked in"
        return rows, columns.labels, several, f"labels, {how} {len(columns.labels)} columns of 0 and 1"
    name = columns.labels[0]
    values = [(table, row, table.columns[name][row]) for table in tables for row in range(len(table))]
    names = next((table.names[name] for table in tables if name in table.names), [])
    separator = None if names else _between([value for _, _, value in values if isinstance(value, str)])
    several = separator is not None or any(isinstance(value, list) for _, _, value in values)
    rows = []
    for table, row, value in values:
        parts = value if isinstance(value, list) else value.split(separator) if separator else [value]
        parts = [_named(part.strip(), names) for part in parts if part.strip()]
        if not parts and not several:
            raise MissingData(f"{table.path}, line {row + 2}, needs a label in the column '{name}'.")
        rows.append(tuple(dict.fromkeys(parts)))
    found = {label for row in rows for label in row}
    classes = tuple(label for label in names if label in found) or ordered(found)
    how = f"any number in '{name}'" + (f", between '{separator}'" if separator else "") if several else f"in '{name}'"
    return rows, classes, several, f"labels, {how}" if several else f"labels {how}"


def _named(label: str, names: list[str]) -> str:
    return names[int(label)] if names and label.isdigit() and int(label) < len(names) else label


def _between(values: list[str]) -> str | None:
    """Return what stands between several labels of an image: what makes fewer names out of more texts."""
    texts = set(values)
    for separator in BETWEEN_LABELS:
        pieces = {piece.strip() for text in texts for piece in text.split(separator)} - {""}
        if any(separator in text for text in texts) and len(pieces) < len(texts):
            return separator
    return None


def _marked(table: Table, row: int, columns: tuple[str, ...]) -> tuple[str, ...]:
    values = {name: str(table.columns[name][row]) for name in columns}
    if wrong := [name for name, value in values.items() if value not in ("0", "1", "0.0", "1.0")]:
        raise MissingData(
            f"{table.path}, line {row + 2}, has '{values[wrong[0]]}' in the column '{wrong[0]}'; where each class has "
            "a column, it must be 0 or 1."
        )
    return tuple(name for name, value in values.items() if float(value))


def _entry(table: Table, row: int, columns: Columns, labels: tuple[str, ...], at_hand: _Files) -> Entry | None:
    """Return an image of a table, None if its file is missing."""
    where, part = f"{table.path}, line {row + 2},", table.part
    if columns.split is not None and (value := str(table.columns[columns.split][row])):
        part = part_named(value) or ""
        if not part:
            raise MissingData(
                f"{where} has '{value}' in the column '{columns.split}'; it must be train, valid or test."
            )
    elif columns.split is not None:
        part = "train"
    if columns.file in table.packed:
        name = table.named[columns.file][row]
        return Entry(table.path / Path(name).name, labels, part, None, table.packed[columns.file][row])
    path = at_hand.find(str(table.columns[columns.file][row]))
    return None if path is None else Entry(path, labels, part)
