"""A GPU that is pretended: tensors claim to be on ``cuda`` and compute on the CPU, and every wait is written down.

On a machine without a GPU nothing shows that a tensor was left on the host, that a loss copies a constant to the device
in every step, or that the host waits for the device. Inside `pretended` all of this shows: ``device="cuda"`` gives
tensors that refuse to be mixed with those of the host, as CUDA's do, and what a real device would wait for or copy is
written down, with the line of our code that asked for it. Values are real, so that a run takes the path that it takes
on a GPU, and ends with the numbers of the CPU.

What C++ is told: the device of the tensors is ``meta``, because gradients of CUDA tensors are computed in threads that
exist only where there is a GPU; their dispatch keys are CUDA's, so that autocasting is CUDA's.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from datasets import decoded
from harness import feeds, hardware
from losses import shared

CUDA, META, HOST = torch.device("cuda", 0), torch.device("meta"), torch.device("cpu")
OURS = tuple(str(Path(__file__).resolve().parent.parent / name) for name in ("harness", "losses", "datasets", "tests"))

WAITS = frozenset(
    {
        *("_local_scalar_dense", "equal", "is_nonzero"),  # the host asks for a value
        *("nonzero", "masked_select", "unique_consecutive", "unique_dim", "_unique", "_unique2"),  # ... or for a shape
        *("bincount", "histc", "_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "linalg_eig", "_linalg_eigvals"),
    }
)
"""Operations after which the host waits for the device, by the name of their schema."""
MOVES = frozenset({"_to_copy", "copy_"})
INDEXING = frozenset({"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"})
BESIDE = MOVES | INDEXING | {"fill_", "masked_fill", "masked_fill_", "where", "set_", "lift_fresh"}
"""Operations, besides those on every element, that take a number that lies on the host in a tensor (shape ())."""
NARROW = frozenset({torch.bfloat16, torch.float16})
PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm", "convolution"})
"""Products of matrices and convolutions, which autocasting carries out in 16 bits."""
IN_16_BITS = (
    *("linear", "bilinear", "matmul", "__matmul__", "mm", "bmm", "addmm", "baddbmm", "addbmm", "einsum"),
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    "scaled_dot_product_attention",
)
IN_32_BITS = (
    *("__pow__", "__rpow__", "acos", "asin", "binary_cross_entropy_with_logits", "cdist", "cosh", "cosine_similarity"),
    *("cross_entropy", "cumprod", "cumsum", "dist", "erfinv", "exp", "expm1", "group_norm", "kl_div", "l1_loss"),
    *("layer_norm", "log", "log10", "log1p", "log2", "log_softmax", "mse_loss", "multilabel_margin_loss", "nll_loss"),
    *("norm", "normalize", "pow", "prod", "reciprocal", "renorm", "rsqrt", "sinh", "smooth_l1_loss", "softmax"),
    *("softmin", "softplus", "sum", "tan", "triplet_margin_loss"),
)
"""What torch.autocast does on a GPU, function by function, as PyTorch's page on automatic mixed precision lists it."""


class Tally:
    """What was asked of the device, such as ``wait: nonzero`` and ``copy: cpu to cuda``, at which stage and where.

    Attributes:
        found: how often, by stage, what, and place.
        stage: what is being done now; empty: nothing is written down.
    """

    def __init__(self) -> None:
        self.found: collections.Counter[tuple[str, str, str]] = collections.Counter()
        self.stage = ""

    @contextlib.contextmanager
    def during(self, stage: str) -> Iterator[None]:
        """Write down what is asked inside the block as part of a stage."""
        before, self.stage = self.stage, stage
        try:
            yield
        finally:
            self.stage = before

    def add(self, what: str) -> None:
        """Write down one occurrence, if anything is to be written down now."""
        if self.stage:
            self.found[self.stage, what, place()] += 1


TALLY = Tally()
"""Of the device that is pretended in this process; `pretended` empties it."""


def place() -> str:
    """Return ``folder/file.py function`` of our code that runs now; empty where none does."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(OURS):
            return f"{Path(path).parent.name}/{Path(path).name} {frame.f_code.co_qualname}"
        frame = frame.f_back
    return ""


class Pretended(Tensor):
    """A tensor that says that it is on a GPU.

    Args:
        real: its values, on the host.
    """

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore

    @staticmethod
    def __new__(cls: type[Pretended], real: Tensor) -> Pretended:
        """Return a tensor of the device with these values."""
        shell = torch.empty_strided(real.shape, real.stride(), dtype=real.dtype, device=META)
        made = Tensor._make_subclass(cls, shell, False, device_for_backend_keys=CUDA)  # pyright: ignore
        made.held = real
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return carried_out(func, args, kwargs or {})

    device = property(lambda self: CUDA)  # pyright: ignore
    is_cuda = property(lambda self: True)  # pyright: ignore
    is_cpu = is_meta = property(lambda self: False)  # pyright: ignore

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Pretended({self.held!r})"

    def tolist(self) -> Any:
        """Return the values: the host waits for the device."""
        TALLY.add("wait: tolist")
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Return the values if forced: the host waits for the device; else refuse, as CUDA does."""
        if not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        TALLY.add("wait: numpy")
        return self.held.numpy(force=True)

    def __array__(self, *_: object, **__: object) -> Any:
        return self.numpy()

    def new_tensor(self, data: Any, **settings: Any) -> Tensor:  # pyright: ignore
        """Return a tensor of numbers that are copied from the host."""
        return torch.tensor(data, **{"device": CUDA, "dtype": self.dtype, **settings})

    def pin_memory(self, *_: object) -> Tensor:  # pyright: ignore
        """Refuse, as CUDA does."""
        raise RuntimeError("cannot pin a tensor of cuda:0: only dense CPU tensors can be pinned")

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_indices(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_indices(index), value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copied = Pretended(self.held.detach().clone())
            memo[id(self)] = (
                nn.Parameter(copied, self.requires_grad)
                if isinstance(self, nn.Parameter)
                else copied.requires_grad_(self.requires_grad)
            )
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        TALLY.add("wait: saved")
        return self.held.detach().__reduce_ex__(protocol)


def _indices(index: Any) -> Any:
    """Return an index whose lists are tensors of the device: for its own, C++ would make some without values."""
    if isinstance(index, tuple):
        return tuple(map(_indices, index))
    return torch.tensor(index, device=CUDA) if isinstance(index, list) else index


def carried_out(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Carry out an operation on the values, write down what a GPU would wait for, and return tensors of the device
    where the result would lie there.

    Raises:
        RuntimeError: tensors of the host and of the device are mixed.
    """
    name, tensors = func._schema.name.partition("::")[2], list[Tensor]()
    values = _values(args, tensors)
    settings = {key: _values(value, tensors) for key, value in kwargs.items() if key != "pin_memory"}
    ours = [tensor for tensor in tensors if isinstance(tensor, Pretended)]
    asked = kwargs.get("device")
    there = bool(ours) if asked is None else torch.device(asked).type != "cpu"
    if name == "copy_":
        there = isinstance(args[0], Pretended)
    if not ours and not there:
        return func(*args, **kwargs)
    _look_at(func, name, args, kwargs, tensors, there)
    # in inference mode, C++ would miss the version of a view of what is no tensor of inference
    with torch.inference_mode(False), torch.no_grad():
        # attention is asked for in plain operations: which fused one there is, depends on the device
        result = 0 if name == "_fused_sdp_choice" else func(*values, **settings)
        known = {id(tensor.held): tensor for tensor in ours} | {id(tensor): tensor for tensor in tensors}

        def back(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return type(value)(map(back, value))
            if not isinstance(value, Tensor):
                return value
            if (same := known.get(id(value))) is None:
                return Pretended(value) if there else value
            if same.shape != value.shape or same.stride() != value.stride():
                with torch._C._DisableTorchDispatch():  # squeeze_ and the like, for the shell too
                    func(*args, **kwargs)
            return same

        return back(result)


def _values(argument: Any, tensors: list[Tensor]) -> Any:
    """Return an argument of an operation as the host is given it, and add its tensors to a list."""
    if isinstance(argument, Tensor):
        tensors.append(argument)
        return argument.held if isinstance(argument, Pretended) else argument
    if isinstance(argument, list | tuple):
        return [_values(each, tensors) for each in argument]
    return HOST if isinstance(argument, torch.device) and argument.type != "cpu" else argument


def _look_at(func: Any, name: str, args: Any, kwargs: Any, tensors: list[Tensor], there: bool) -> None:
    """Write down what an operation would cost on a GPU, and refuse what CUDA refuses."""
    ours = [tensor for tensor in tensors if isinstance(tensor, Pretended)]
    if name in MOVES:
        source = args[1] if name == "copy_" else args[0]
        if isinstance(source, Pretended) != there and isinstance(source, Tensor):
            pinned = getattr(source, "pinned", False) and kwargs.get("non_blocking", args[-1] is True)
            TALLY.add(f"copy: {'pinned ' if pinned else ''}{'cuda to cpu' if ours and not there else 'cpu to cuda'}")
        return
    if not ours:
        return
    host = [tensor for tensor in tensors if not isinstance(tensor, Pretended)]
    if name in INDEXING:
        indices = [index for index in args[1] if index is not None]
        mask_of_number = name not in ("index", "_unsafe_index") and len(indices) == 1 and args[2].numel() == 1
        if not mask_of_number and any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            TALLY.add("wait: index with a mask")
        if any(not isinstance(index, Pretended) for index in indices):
            TALLY.add("copy: indices, cpu to cuda")
        host = [tensor for tensor in host if all(tensor is not index for index in indices)]
    beside = torch.Tag.pointwise in func.tags or name in BESIDE
    if wrong := [tensor for tensor in host if tensor.ndim or not beside]:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"({name} of a tensor {tuple(wrong[0].shape)} on the CPU)"
        )
    if name in WAITS or (name == "repeat_interleave" and kwargs.get("output_size") is None):
        TALLY.add(f"wait: {name.removeprefix('_')}")
    if name in PRODUCTS:
        TALLY.add(f"product: {str(ours[0].dtype).removeprefix('torch.')} {name}")
    for tensor in ours:
        if tensor.dtype in NARROW:
            TALLY.add("dtype: 16 bits")
        elif tensor.dtype == torch.float64 and tensor.ndim:
            TALLY.add("dtype: float64")


def _autocasting(function: Any, dtype: torch.dtype) -> Any:
    """Return a function that does what torch.autocast, which does not take pretended tensors for CUDA's, would do."""
    casts = NARROW if dtype == torch.float32 else {torch.float32}

    def cast(leaf: Any) -> Any:
        return leaf.to(dtype) if isinstance(leaf, Pretended) and leaf.dtype in casts else leaf

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.is_autocast_enabled("cuda"):
            args, kwargs = _pytree.tree_map(cast, (args, kwargs))
        return function(*args, **kwargs)

    return call


def _autocasts() -> Iterator[Any]:
    """Yield what is exchanged so that functions autocast."""
    for names, dtype in ((IN_16_BITS, torch.bfloat16), (IN_32_BITS, torch.float32)):
        for owner in (nn.functional, torch, torch.linalg, Pretended):
            for name in names:
                if (function := getattr(owner, name, None)) is not None:
                    yield mock.patch.object(owner, name, _autocasting(function, dtype))


class _Mode(TorchDispatchMode):
    """Sees what no pretended tensor takes part in, too: tensors that are made on the device, or copied to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.is_inference_mode_enabled() and func._can_decompose():  # as autograd does it outside that mode
            with self:
                return func.decompose(*args, **(kwargs or {}))
        return carried_out(func, args, kwargs or {})


class _Generator:
    """The device's random numbers: the host's, which the loop seeds alike."""

    def manual_seed(self, seed: int) -> None:
        """Do nothing."""


class _Event:
    """A mark in the stream of the device."""

    def __init__(self, **_: object) -> None: ...

    def record(self) -> None:
        """Do nothing."""

    def elapsed_time(self, other: _Event) -> float:
        """Return milliseconds: none."""
        return 0.0


def _loaded(load: Any, *args: Any, **settings: Any) -> Any:
    """Load tensors, and put those on the device that are asked for there."""
    where = settings.get("map_location")
    if where is None or torch.device(where).type != "cuda":
        return load(*args, **settings)
    found = load(*args, **{**settings, "map_location": "cpu"})
    return _pytree.tree_map(lambda leaf: Pretended(leaf) if isinstance(leaf, Tensor) else leaf, found)


def _buffers(make: Any, arrays: Any, count: int, pin: bool) -> Any:
    """Return buffers of the host that count as pinned where that is asked for."""
    found = make(arrays, count, pin=False)
    for buffer in found:
        buffer.pinned = pin
    return found


def _patches() -> Iterator[Any]:
    """Yield what is exchanged while a device is pretended."""
    cuda = {
        "_lazy_init": lambda: None,
        "default_generators": [_Generator()],
        "current_device": lambda: 0,
        "synchronize": lambda *_: TALLY.add("wait: synchronize"),
        "Event": _Event,
        "get_device_name": lambda *_: "a pretended GPU",
        "is_bf16_supported": lambda *_, **__: True,
        "reset_peak_memory_stats": lambda *_: None,
        "memory_allocated": lambda *_: 0,
        "max_memory_allocated": lambda *_: 0,
    }
    for name, value in cuda.items():
        yield mock.patch.object(torch.cuda, name, value)
    exchanged = {
        (torch, "_has_compatible_shallow_copy_type"): _never,  # so modules exchange parameters that are moved
        (torch.cuda.amp.common, "amp_definitely_not_available"): _never,
        (torch, "load"): functools.partial(_loaded, torch.load),
        (decoded, "_buffers"): functools.partial(_buffers, decoded._buffers),
        (hardware, "device_type"): _device_type,
    }
    for (owner, name), value in exchanged.items():
        yield mock.patch.object(owner, name, value)


def _never(*_: object) -> bool:
    return False


def _device_type(wanted: str = "auto") -> str:
    return "cuda" if wanted == "auto" else wanted


@contextlib.contextmanager
def pretended() -> Iterator[Tally]:
    """Pretend, inside the block and in this thread, that there is a GPU; yield what is asked of it."""
    TALLY.found.clear()
    before = torch._C._only_lift_cpu_tensors()
    with contextlib.ExitStack() as stack:
        for patch in itertools.chain(_patches(), _autocasts()):
            stack.enter_context(patch)
        in_16_bits = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # plain attention as fused attention: in 16 bits
        stack.callback(torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp, in_16_bits)
        torch._C._ensureCUDADeviceGuardSet()
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, before)
        for keeper in (feeds._feed, shared._kept):  # they keep tensors on the device
            stack.callback(keeper.cache_clear)
        stack.enter_context(_Mode())
        yield TALLY
