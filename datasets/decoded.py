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
CHUNK = 2**20
"""Bytes that are decoded at a time, or one item, where a whole array is counted or copied."""


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
            to the greatest one; of what is not counted, such as boxes, (0,).
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
    ahead: deque[tuple[tuple[Tensor, ...], Future[None]]] = deque()

    def start(count: int) -> None:
        for chosen in itertools.islice(rows, count):
            buffers = _buffers(arrays, len(chosen), pin)  # not in the thread: its heap would grow with every batch
            ahead.append((buffers, pool.submit(_fill, buffers, arrays, chosen, closed)))

    try:
        start(prefetch)
        while ahead:
            batch, filled = ahead.popleft()
            filled.result()
            start(1)
            yield batch
    finally:
        closed.set()
        pool.shutdown(cancel_futures=True)


def gather(arrays: Sequence[Array], rows: Tensor, *, pin: bool = False) -> tuple[Tensor, ...]:
    """Return the items of several arrays in these rows (B,), in pinned memory if asked for."""
    buffers = _buffers(arrays, len(rows), pin)
    _fill(buffers, arrays, rows, threading.Event())
    return buffers


def _buffers(arrays: Sequence[Array], count: int, pin: bool) -> tuple[Tensor, ...]:
    kinds = [(array.shape[1:], array.dtype if isinstance(array, Tensor) else torch.uint8) for array in arrays]
    with torch.inference_mode(False):  # which threads, that fill them, do not know of
        return tuple(torch.empty((count, *shape), dtype=kind, pin_memory=pin) for shape, kind in kinds)


def _fill(buffers: Sequence[Tensor], arrays: Sequence[Array], rows: Tensor, closed: threading.Event) -> None:
    for buffer, array in zip(buffers, arrays, strict=True):
        if isinstance(array, Tensor):
            torch.index_select(array, 0, rows, out=buffer)
            continue
        for slot, row in zip(buffer.numpy(), rows.tolist(), strict=True):
            if closed.is_set():  # nobody waits for this batch any more
                return
            slot[...] = array.read(array.items[row])


def chunks(array: Array, workers: int = 2) -> Iterator[Tensor]:
    """Yield the whole array in order, about a megabyte at a time."""
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
    if part.is_floating_point():
        return torch.zeros(0, dtype=torch.int64)
    if part.ndim == 4:
        return torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in part.unbind(1)])
    return torch.bincount(part.flatten(), minlength=256 if part.dtype == torch.uint8 else 0)


def _padded(counts: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(counts, (0, length - counts.shape[-1]))
