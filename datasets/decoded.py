"""Arrays whose items lie in files and are decoded when they are needed, by threads, a bounded number of batches ahead.

Threads, because Pillow releases Python's lock while it decodes, because they share the pinned memory that they decode
into, and because the workers of a study are daemonic processes, which may not have processes of their own.
"""

import hashlib
import itertools
import math
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises where a file is not the image that it should be."""
CHUNK = 2**22
"""Bytes that are decoded at a time where a whole array is counted or copied."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """An array uint8 (N, ...) whose items are decoded anew each time they are read.

    Attributes:
        items: what `read` is given for each item, a path as a rule.
        read: returns one item, uint8 of shape `item_shape`; several threads call it at once.
        item_shape: (C, H, W) of an image, (H, W) of a mask.
    """

    items: tuple[Any, ...]
    read: Callable[[Any], np.ndarray]
    item_shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, rows: Tensor) -> "Decoded":
        return Decoded(tuple(self.items[row] for row in rows.tolist()), self.read, self.item_shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of items, and the shape of one."""
        return (len(self.items), *self.item_shape)

    @property
    def ndim(self) -> int:
        """Number of dimensions, that of the items included."""
        return 1 + len(self.item_shape)


Array = Tensor | Decoded


class Summary(NamedTuple):
    """What a pass over an array found.

    Attributes:
        counts: int64, how often each value occurs: of images (C, 256), by channel; of masks (256,); of classes (K,), up
            to the greatest one.
        digest: SHA-256 of the values, in their order.
    """

    counts: Tensor
    digest: bytes


def batches(
    arrays: Sequence[Array], rows: Iterable[Tensor], *, workers: int, prefetch: int, pin: bool = False
) -> Iterator[tuple[Tensor, ...]]:
    """Yield the items of several arrays in these rows, batch by batch.

    All threads end when the last batch is out, when decoding fails, and when the iterator is closed.

    Args:
        arrays: of the same length.
        rows: int64 (B,) for each batch.
        workers: threads that decode, a batch each.
        prefetch: batches that are decoded ahead of the one that is out.
        pin: whether to decode into pinned memory, from which a GPU copies while it computes.
    """
    rows, closed = iter(rows), threading.Event()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    ahead: deque[Future[tuple[Tensor, ...]]] = deque()

    def start(count: int) -> None:
        ahead.extend(pool.submit(_gathered, arrays, chosen, pin, closed) for chosen in itertools.islice(rows, count))

    try:
        start(prefetch)
        while ahead:
            batch = ahead.popleft().result()
            start(1)
            yield batch
    finally:
        closed.set()
        pool.shutdown(cancel_futures=True)


def gather(array: Array, rows: Tensor, *, pin: bool = False) -> Tensor:
    """Return the items in these rows (B,), in pinned memory if asked for."""
    return _gathered([array], rows, pin, threading.Event())[0]


def _gathered(arrays: Sequence[Array], rows: Tensor, pin: bool, closed: threading.Event) -> tuple[Tensor, ...]:
    found = []
    for array in arrays:
        if isinstance(array, Tensor):
            part = array.index_select(0, rows)
            found.append(part.pin_memory() if pin else part)
            continue
        part = torch.empty((len(rows), *array.item_shape), dtype=torch.uint8, pin_memory=pin)
        for slot, row in zip(part.numpy(), rows.tolist(), strict=True):
            if closed.is_set():  # nobody waits for this batch any more
                break
            slot[...] = array.read(array.items[row])
        found.append(part)
    return tuple(found)


def chunks(array: Array, workers: int = 2) -> Iterator[Tensor]:
    """Yield the whole array in order, a few megabytes at a time."""
    size = max(1, CHUNK // max(1, math.prod(array.shape[1:])))
    if isinstance(array, Tensor):
        yield from array.split(size)
        return
    for (part,) in batches([array], torch.arange(len(array)).split(size), workers=workers, prefetch=workers):
        yield part


def in_memory(array: Array) -> Tensor:
    """Return the whole array, decoded.

    Raises:
        MemoryError: it does not fit.
    """
    if isinstance(array, Tensor):
        return array
    whole, filled = np.empty(array.shape, dtype=np.uint8), 0
    for part in chunks(array):
        whole[filled : filled + len(part)] = part.numpy()
        filled += len(part)
    return torch.from_numpy(whole)


def summary(array: Array) -> Summary:
    """Count the values of an array and digest them, in one pass."""
    digest, counts = hashlib.sha256(), torch.zeros(0, dtype=torch.int64)
    for part in chunks(array):
        found = _counts(part)
        longer = max(found.shape[-1], counts.shape[-1])
        counts = _padded(found, longer) + _padded(counts, longer)
        values = part.numpy()
        digest.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)
    return Summary(counts, digest.digest())


def _counts(part: Tensor) -> Tensor:
    if part.ndim == 4:
        return torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in part.unbind(1)])
    return torch.bincount(part.flatten(), minlength=256 if part.dtype == torch.uint8 else 0)


def _padded(counts: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(counts, (0, length - counts.shape[-1]))
