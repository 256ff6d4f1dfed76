"""Which mask belongs to which image, in folders of one's own: by folders, names and lists, without opening a file."""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple

from datasets.listings import PARTS
from datasets.parts import image_files, listed
from datasets.pixels import some
from datasets.splits import MissingData

IMAGES = ("images", "image", "imgs", "img", "jpegimages", "pictures", "photos", "leftimg8bit", "input", "inputs")
MASKS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "annot", "gt", "gtfine", "groundtruth",
    "ground_truth", "segmentation", "segmentations", "segmentationclass", "seg", "targets", "target",
)  # fmt: skip
"""Names of folders that hold images, and masks, in lower case."""
COMPOUND = re.compile(rf"({'|'.join(PARTS)})[ _-]?({'|'.join(IMAGES + MASKS)})|()({'|'.join(MASKS)})[ _-]?\d*")
"""A folder whose name says the part and what lies in it: `trainannot` of CamVid, `val_masks`; or `masks_2`."""
MARK = re.compile(r"(.*?)[ _.-]+(mask|masks|label|labels|gt|groundtruth|seg|segmentation|annot|l)([ _.-]?\d*)$", re.I)
"""The end of the name of a mask that lies beside its image."""
LISTS = ("", "ImageSets/Segmentation", "ImageSets/Main", "ImageSets", "splits", "split", "lists")
"""Folders in which a list of each part may lie."""
MOST_LAYERS = 64
"""Classes at most where each has a mask file of its own: more are names of something else."""


@dataclass(frozen=True)
class Paired:
    """An image and its masks.

    Attributes:
        image: its file.
        masks: the class that a mask is of, and its file; one, of the class ``""``, where a mask holds all classes.
    """

    image: Path
    masks: tuple[tuple[str, Path], ...]


@dataclass
class Found:
    """What a folder holds.

    Attributes:
        parts: pairs by part; `train` alone where neither folders nor lists name parts.
        layers: the classes, where each has a mask file of its own; else ().
        alone: images without a mask.
        notes: sentences on what was left out.
    """

    parts: dict[str, list[Paired]]
    layers: tuple[str, ...] = ()
    alone: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def pairs(self) -> list[Paired]:
        """All pairs, whatever part they lie in."""
        return [pair for part in self.parts.values() for pair in part]


class File(NamedTuple):
    """A file, what its folders say of it (`image`, `mask` or nothing; the part), and the other folders it is in."""

    path: Path
    role: str
    part: str
    inside: tuple[str, ...]
    stem: str


def find(home: Path, images: str | None = None, masks_in: str | None = None, mask_suffix: str | None = None) -> Found:
    """Return the images below a folder and the masks that belong to them.

    Images and masks lie in folders of such names (`IMAGES`, `MASKS`), in any order with folders of parts (`PARTS`) and
    with others that both have; or side by side, with `_mask` or the like after the name of an image. The name of a mask
    is that of its image, with something before or after it, and any suffix. Where it is a class (`a_road.png`), or the
    folder of a mask is (`masks/road/a.png`), each class has a file of its own. Lists (`train.txt`, `val.txt`,
    `test.txt`) name images of parts that have no folder.

    Args:
        home: the folder.
        images: folder of the images, below `home` or below folders of parts; None: see above.
        masks_in: folder of the masks, likewise.
        mask_suffix: what the name of a mask has after that of its image, such as `_mask.png`; None: whatever it is.

    Raises:
        MissingData: there is no such folder, or no image with a mask in it, or a list names what is not there.
    """
    if not home.is_dir():
        raise MissingData(f"there is no folder {home.resolve()}; name one in dataset.path.")
    for name, inside in (("images", images), ("masks_in", masks_in)):
        if inside and not any(path.is_dir() for path in (home / inside, *home.glob(f"*/{inside}"))):
            raise MissingData(f"there is no folder {(home / inside).resolve()}; name another in dataset.{name}.")
    files = [_placed(home, path, images, masks_in) for path in image_files(home)]
    pictures, masks = _divided_by_role(files)
    if not pictures or not masks:
        what = "image" if not pictures else "mask"
        raise MissingData(
            f"{home.resolve()} has no {what} files: put images into a folder images and their masks into a folder "
            "masks, or name the folders in dataset.images and dataset.masks_in."
        )
    found = _matched(pictures, masks, mask_suffix)
    if not found.parts:
        raise MissingData(
            f"none of the {len(masks)} masks in {home.resolve()} ({some([mask.path.name for mask in masks])}) is "
            f"named after an image ({some([picture.path.name for picture in pictures])}); say what is different in "
            "dataset.mask_suffix, such as _mask.png."
        )
    _by_lists(home, found)
    if "train" not in found.parts:
        raise MissingData(f"{home.resolve()} has no training images, only those of {' and '.join(found.parts)}.")
    return found


# ---------------------------------------------------------------- folders


def _placed(home: Path, path: Path, images: str | None, masks_in: str | None) -> File:
    role, part, inside = "", "", list(path.relative_to(home).parts[:-1])
    for name, given in (("image", images), ("mask", masks_in)):
        if given and (place := _within(inside, PurePath(given).parts)) is not None:
            role, inside = name, [*inside[:place], *inside[place + len(PurePath(given).parts) :]]
            break
    others = []
    for folder in inside:
        lower = folder.lower()
        both = COMPOUND.fullmatch(lower)
        if not part and lower in PARTS:
            part = PARTS[lower]
        elif not role and not images and lower in IMAGES:
            role = "image"
        elif not role and not masks_in and lower in MASKS:
            role = "mask"
        elif not role and both:
            word = both[2] or both[4]
            role, part = "mask" if word in MASKS else "image", part or PARTS.get(both[1] or "", "")
        else:
            others.append(folder)
    return File(path, role, part, tuple(others), path.stem)


def _within(folders: Sequence[str], wanted: Sequence[str]) -> int | None:
    """Return where folders name these, one after the other; None: nowhere."""
    places = range(len(folders) - len(wanted) + 1)
    return next((place for place in places if tuple(folders[place : place + len(wanted)]) == tuple(wanted)), None)


def _divided_by_role(files: Sequence[File]) -> tuple[list[File], list[File]]:
    """Return images and masks; where no folder says which is which, the names of the files do."""
    masks = [file for file in files if file.role == "mask"]
    pictures = [file for file in files if file.role == "image"] or [file for file in files if not file.role]
    if masks:
        return pictures, masks
    stems = {(file.part, file.inside, file.stem) for file in pictures}
    photos = {(f.part, f.inside, f.stem) for f in pictures if f.path.suffix.lower() in (".jpg", ".jpeg")}

    def is_mask(file: File) -> bool:
        place, marked = (file.part, file.inside), MARK.match(file.stem)
        beside = file.path.suffix.lower() not in (".jpg", ".jpeg") and (*place, file.stem) in photos
        named_so = marked and any((*place, marked[1] + end) in stems for end in ("", "_sat", "_image", "_img"))
        return bool(beside or named_so)

    masks = [file for file in pictures if is_mask(file)]
    chosen = {file.path for file in masks}
    return [file for file in pictures if file.path not in chosen], masks


# ---------------------------------------------------------------- names


class Match(NamedTuple):
    """A mask, its image, and the class that their names or folders differ by; ``""``: none."""

    picture: File
    mask: File
    label: str


def _matched(pictures: Sequence[File], masks: Sequence[File], mask_suffix: str | None) -> Found:
    if mask_suffix is not None:
        masks = [
            mask._replace(stem=mask.path.name.removesuffix(mask_suffix))
            for mask in masks
            if mask.path.name.endswith(mask_suffix)
        ]
    if not any(mask.part for mask in masks) or not any(picture.part for picture in pictures):
        masks = [mask._replace(part="") for mask in masks]
        keyed = [picture._replace(part="") for picture in pictures]
    else:
        keyed = pictures
    matches: list[Match] = []
    for end in (None, True, False):
        if len({match.picture.path for match in matches}) == len(pictures):
            break
        found = _by_names(keyed, masks, end, exact=mask_suffix is not None)
        if len({match.picture.path for match in found}) > len({match.picture.path for match in matches}):
            matches = found
    by_picture: dict[Path, list[Match]] = defaultdict(list)
    for match in matches:
        by_picture[match.picture.path].append(match)
    layers = _layers(by_picture)
    found, alone = Found({}, layers), []
    for picture in pictures:
        if own := by_picture.get(picture.path):
            pair = Paired(picture.path, _of_picture(own, layers))
            found.parts.setdefault(picture.part or "train", []).append(pair)
        else:
            alone.append(picture)
    for name in sorted({picture.part for picture in alone} - {"", *found.parts}):  # as tests of competitions are
        secret = [picture for picture in alone if picture.part == name]
        found.notes.append(f"no image of the part {name} has a mask, so its {len(secret)} images are left out.")
        alone = [picture for picture in alone if picture.part != name]
    found.alone = [picture.path for picture in alone]
    used = {path for pair in found.pairs for _, path in pair.masks}
    if idle := [mask.path.name for mask in masks if mask.path not in used]:
        found.notes.append(
            f"{len(idle)} of {len(masks)} masks are not used, as their image is absent or has another: {some(idle)}."
        )
    return found


def _by_names(pictures: Sequence[File], masks: Sequence[File], end: bool | None, exact: bool) -> list[Match]:
    """Return which masks are named after which images.

    Args:
        pictures, masks: both with parts, or both without.
        end: whether both are compared without the end (True) or the beginning (False) that all of them have.
        exact: whether the name of a mask may not go on after that of its image.
    """
    short, short_masks = (_shortened([file.stem for file in files], end) for files in (pictures, masks))
    known = {(file.part, file.inside, short[file.stem]): file for file in pictures}
    folders = {file.inside for file in pictures}
    found = []
    for mask in masks:
        stem = short_masks[mask.stem]
        for inside, label in _insides(mask.inside, folders):
            for length in range(len(stem), len(stem) - 1 if exact else 0, -1):
                picture = known.get((mask.part, inside, stem[:length]))
                if picture is not None and _ends_there(stem, length):
                    found.append(Match(picture, mask, label or _cleaned(stem[length:])))
                    break
    return found


def _shortened(stems: Sequence[str], end: bool | None) -> dict[str, str]:
    """Return names without what all have: `12` for `12_sat`, beside `13_sat`, but not the 1 of `img_1` and `img_12`."""
    turn = -1 if end else 1
    ends = sorted(stem[::turn] for stem in stems)  # what the first and the last share, all share
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(ends[0], ends[-1], strict=False))
    shared = "" if end is None or ends[0] == ends[-1] else "".join(letter for letter, _ in alike)
    whole = re.match(r".*[ _.-]|[A-Za-z]*", shared)
    length = len(whole[0]) if whole else 0
    return {stem: stem[::turn][length:][::turn] for stem in stems}


def _insides(inside: tuple[str, ...], folders: set[tuple[str, ...]]) -> list[tuple[tuple[str, ...], str]]:
    """Return folders of images that a mask may belong to, and the folder, the class of a mask, that is one more."""
    if inside in folders:
        return [(inside, "")]
    fewer = [((*inside[:place], *inside[place + 1 :]), name) for place, name in enumerate(inside)]
    return [(rest, name) for rest, name in fewer if rest in folders][:1]


def _ends_there(stem: str, length: int) -> bool:
    """Return whether a name may end there: `7` may not, in `71_mask`."""
    if length == len(stem):
        return True
    last, following = stem[length - 1], stem[length]
    return not following.isalnum() or (last.isdigit() and not following.isdigit())


def _cleaned(ending: str) -> str:
    """Return the class in the end of the name of a mask: `road` of `_road` and of `_road_2`."""
    return re.sub(r"[ _.-]*\d*$", "", ending.strip(" _.-")).strip(" _.-")


def _layers(by_picture: Mapping[Path, Sequence[Match]]) -> tuple[str, ...]:
    """Return the classes that have mask files of their own; (): a mask holds all classes."""
    if all(len(own) == 1 or any(not match.label for match in own) for own in by_picture.values()):
        several = {match.label for own in by_picture.values() for match in own}
        if len(several) == 1 or "" in several:
            return ()
    labels = Counter(match.label for own in by_picture.values() for match in own if match.label)
    if len(labels) > MOST_LAYERS:
        raise MissingData(
            f"the names of masks go on in {len(labels)} ways after those of their images ({some(sorted(labels))}), "
            "too many to be classes; say which end is meant in dataset.mask_suffix, such as _mask.png."
        )
    return tuple(sorted(labels)) or ("object",)


def _of_picture(own: Sequence[Match], layers: Sequence[str]) -> tuple[tuple[str, Path], ...]:
    if not layers:
        return (("", min(own, key=lambda match: (bool(match.label), match.mask.path)).mask.path),)
    several = [(match.label or layers[0], match.mask.path) for match in own if match.label or len(layers) == 1]
    return tuple(sorted(several))


# ---------------------------------------------------------------- lists


def _by_lists(home: Path, found: Found) -> None:
    """Divide pairs into the parts that lists name, where folders name none."""
    if set(found.parts) != {"train"}:
        return
    pairs = {pair.image: pair for pair in found.pairs}
    lists = listed(home, [*pairs, *found.alone], LISTS)
    if not lists:
        return
    found.parts = {part: [pairs[path] for path in paths if path in pairs] for part, paths in lists.items()}
    chosen = {path for paths in lists.values() for path in paths}
    found.alone = [path for path in found.alone if path in chosen]
    if rest := [path.name for path in pairs if path not in chosen]:
        found.notes.append(f"{len(rest)} images are in no list and left out: {some(rest)}.")
