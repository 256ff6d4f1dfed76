"""What all losses share: what is known about a loss, and the one module that reduces it."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from losses.checks import check_choice, may_look
from losses.kinds import KINDS, Pair, Pairs
from losses.shared import spread_mask

Family = Literal[
    "quantity",
    "geometric",
    "margin",
    "probability",
    "region",
    "euclidean",
    "angular",
    "generative",
    "structural",
    "control",
]
Link = Literal["softmax", "sigmoid"] | None
Evidence = Literal["V", "H", "M", "R"]
Norm = Literal["count", "weights"]
Reduction = Literal["none", "mean"]
EXACT = (torch.float32, torch.float64)
GIVEN = ("mask", "reduction")
"""Keywords of a function that `Loss` gives it, so they are no settings."""
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class About:
    """The facts about a loss, declared beside its function.

    kinds: what it compares, a name in `losses.kinds.KINDS`; a sum may have several.
    link: how predictions become probabilities; None where likelihood and calibration would mean nothing.
    evidence: V agrees with an independent implementation, H computed by hand from the standard definition, M settings
    from general knowledge of the paper, R reconstruction (a word of the name then).
    whole_batch: True if the value of an item depends on the other items of the batch.
    per_image: True if a dense prediction (N,C,...) gives one value per image, (N,), instead of one per pixel.
    detached: True if a weight is held without gradient, so that the gradient is not the derivative of the value.
    from_training_set: settings that may be left open (None), and the statistic of the training set that fills each.
    untrainable: why it cannot be a training objective; empty for all that can.
    """

    name: str
    family: Family
    kinds: tuple[str, ...]
    link: Link
    paper: str
    evidence: Evidence
    aliases: tuple[str, ...] = ()
    whole_batch: bool = False
    per_image: bool = False
    detached: bool = False
    from_training_set: Mapping[str, str] = field(default_factory=dict)
    untrainable: str = ""

    def __post_init__(self) -> None:
        if self.evidence == "R" and "reconstruction" not in self.name:
            raise ValueError(f"name={self.name!r}: the name of a reconstruction contains the word reconstruction")
        if unknown := set(self.kinds) - set(KINDS):
            raise ValueError(f"kind={min(unknown)!r}: allowed is {', '.join(KINDS)}")


def about(
    *, name: str, family: Family, kind: str, link: Link, paper: str, evidence: Evidence, **more: Any
) -> Callable[[F], F]:
    """Decorator that sets `about` on a loss function, or on the class of a loss; for the rest see `About`."""
    return _with_about(About(name, family, (kind,), link, paper, evidence, **more))


def about_adapter(derive: Callable[[About], About]) -> Callable[[F], F]:
    """Decorator for an adapter, a function with a keyword `base`: what is known about it follows from its base."""
    return _with_about(derive)


def about_by_settings(derive: Callable[[Mapping[str, Any]], About]) -> Callable[[F], F]:
    """Decorator for a function that is many losses: what is known about each follows from its settings."""

    def decorate(function: F) -> F:
        function.about = derive({})  # pyright: ignore[reportFunctionMemberAccess]
        function.about_by_settings = derive  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return decorate


def _with_about(fact: About | Callable[[About], About]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        function.about = fact  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return decorate


def about_of(function: Callable[..., Any]) -> About:
    """Return what is known about a loss: a function, a module or its class, an adapter, a sum, or a partial of one."""
    settings: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        settings = {**function.keywords, **settings}
        function = function.func
    if derive := getattr(function, "about_by_settings", None):
        return derive(settings)
    base = settings.get("base")
    fact = getattr(function, "about", None)
    if isinstance(fact, About):
        return fact
    if fact is None or base is None:
        name = getattr(function, "__qualname__", repr(function))
        raise ValueError(
            f"function={name}: " + ("an adapter needs its base" if fact else "decorate it with losses.loss.about")
        )
    return fact(about_of(base))


class Loss(nn.Module):
    """The one module around every loss: picks the pair of its kind, and reduces the function's values once.

    loss = sum(weight * mask * value) / norm, where norm is the count of unmasked items, or the sum of their weights; it
    is 0, with zero gradient, where there is nothing to average. Masked items are replaced before the function sees
    them, so shapes stay fixed and even NaN in them does no harm; with `sanitize_masked=False`, which spares a copy of
    the data, masked items of losses with one value per item must be finite. Reduction is in float32 or better.

    function: `f(prediction, target) -> one value per item`, a function, a partial of one, or a module (with weights,
    memory) or its class. One with a keyword `mask` (weights over the whole batch) is handed the mask; one with a
    keyword `reduction` computes the mean itself where nothing is masked or weighted: torch then needs one step instead
    of two. settings: of the function, such as `Loss(focal, gamma=1.0)`. reduction: mean, sum (which norm does not
    divide), or none: the values, 0 where they are masked. ignore_index: a label whose items are masked.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        *,
        reduction: Reduction | Literal["sum"] = "mean",
        norm: Norm = "count",
        ignore_index: int | None = None,
        sanitize_masked: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__()
        check_choice("norm", norm, ("count", "weights"))
        check_choice("reduction", reduction, ("mean", "sum", "none"))
        self.function = plain(_with_settings(function, settings))
        self.norm, self.reduction, self.ignore_index = norm, reduction, ignore_index
        self.about = about_of(self.function)
        (self.kind,) = self.about.kinds
        self.items = KINDS[self.kind].items
        self.sanitizes = sanitize_masked or self.about.whole_batch or self.about.per_image
        call = self.function.forward if isinstance(self.function, nn.Module) else self.function
        if inspect.isclass(call.func if isinstance(call, functools.partial) else call):
            raise ValueError(f"function={self.about.name}: build it first, with num_classes and num_features")
        keywords = inspect.signature(call).parameters
        self._handed_mask, self._reduces = "mask" in keywords, "reduction" in keywords and reduction == "mean"
        self._labelled = self.kind in ("class_logits", "features")

    def __repr__(self) -> str:
        """Return the call that makes it, with all settings of the function."""
        own = {"reduction": "mean", "norm": "count", "ignore_index": None}
        changed = [f"{name}={value!r}" for name in own if (value := getattr(self, name)) != own[name]]
        name, *settings = _described(self.function)
        return f"Loss({', '.join([name, *settings, *changed])})"

    @property
    def is_head(self) -> bool:
        """True if the loss has the class weights itself: the model then needs no head of its own."""
        return hasattr(self.function, "logits")

    def logits(self, features: Tensor) -> Tensor:
        """Return the class scores (N,C) of a loss that is a head, without margin, from features (N,F)."""
        return self.function.logits(features)  # pyright: ignore[reportFunctionMemberAccess]

    def forward(
        self, data: Pairs | Tensor, target: Tensor | None = None, mask: Tensor | None = None,
        *, weight: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the loss of a batch: a scalar, or with reduction none the values.

        data: pairs by kind, or the prediction itself, with its target and mask; float16 is computed in float32.
        target: of the shape that the function expects; classes are integers of any width, or one-hot integers
        (N,C,...), or, where the function takes them, probabilities (N,C,...). mask: bool, False = leave out, of the
        target's shape, without its dimension of classes, if it has one, or of its leading dimensions. weight: float, of
        the shape of the function's values, or its beginning. Where the values are coarser than the mask (one per image,
        pixels masked), a value counts if anything in it does; the function then sees the mask itself.

        Raises:
            ValueError: a shape, a dtype, or, where it may be looked at, a class that counts is not allowed.
        """
        data, target, mask = self._pair(data, target, mask)
        if data.dtype is torch.float16:
            data, target = data.float(), target.float() if target.dtype is torch.float16 else target
        if self.ignore_index is not None and not (self._labelled and target.ndim == data.ndim):
            known = target != self.ignore_index
            mask = known if mask is None else known & spread_mask(mask, target.shape)
        if self._labelled:
            if target.dtype is not torch.int64 or target.ndim != data.ndim - 1:
                target = _labels(data, target)
        elif not target.is_floating_point():
            target = target.to(data.dtype)
        if mask is not None:
            data, target, mask = self._masked(data, target, mask)
        if self._reduces and mask is None and weight is None and data.dtype in EXACT and target.numel():
            return self.function(data, target, reduction="mean")
        values = self.function(data, target, mask=mask) if self._handed_mask else self.function(data, target)
        return self._reduce(values, mask, weight)

    def _pair(self, data: Pairs | Tensor, target: Tensor | None, mask: Tensor | None) -> Pair:
        if isinstance(data, Tensor):
            if target is None:
                raise ValueError("target: None, allowed is a tensor beside a prediction")
            return Pair(data, target, mask)
        if self.kind not in data:
            raise ValueError(f"pairs: {', '.join(data)}, but the loss {self.about.name!r} compares {self.kind}")
        return data[self.kind]

    def _masked(self, data: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pair with 0 where it is masked, and the mask with one number for each item."""
        items = "pixels" if self._labelled and target.ndim == data.ndim else self.items
        if items == "rows":
            whole = mask.ndim == 1
            seen = spread_mask(mask, target.shape[:1] if whole else target.shape)
            mask = seen if whole else seen.flatten(1).any(1)
            over_target = spread_mask(mask, target.shape) if whole else seen
            over_data = over_target if data.shape == target.shape else spread_mask(mask, data.shape)
        else:
            classes = items == "pixels"
            mask = spread_mask(mask, target.shape[:1] + target.shape[2:] if classes else target.shape)
            over_target = mask.unsqueeze(1) if classes else mask
            over_data = mask.unsqueeze(1) if data.ndim > mask.ndim else mask
        data = torch.where(over_data, data, 0) if self.sanitizes else data
        return data, torch.where(over_target, target, 0), mask

    def _reduce(self, values: Tensor, mask: Tensor | None, weight: Tensor | None) -> Tensor:
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        if weight is not None:
            if weight.shape != values.shape[: weight.ndim]:
                raise ValueError(
                    f"weight: shape {tuple(weight.shape)}, allowed is {tuple(values.shape)}, that of the values, or "
                    "the beginning of it"
                )
            weight = weight.view(*weight.shape, *[1] * (values.ndim - weight.ndim))
        elif mask is None:  # the same as below, without a copy of the values
            if self.reduction != "mean":
                return values.sum() if self.reduction == "sum" else values
            return values.mean() if values.numel() else values.sum()
        held = torch.ones_like(values, dtype=torch.bool) if mask is None else _coarsened(mask, values)
        weights = None if weight is None else torch.where(held, weight, 0)
        values = torch.where(held, values, 0) if weights is None else values * weights
        if self.reduction != "mean":
            return values.sum() if self.reduction == "sum" else values
        norm = (held if weights is None or self.norm == "count" else weights).sum()
        return values.sum() / torch.where(norm > 0, norm, 1)


def _labels(data: Tensor, target: Tensor) -> Tensor:
    """Return classes as int64, whatever integers they are or one-hot; probabilities, and what is wrong, as it is."""
    if target.is_floating_point() or target.is_complex():
        return target
    if target.ndim != data.ndim or data.ndim < 2:
        return target.to(torch.int64)
    if may_look(target) and not torch.equal(target.long().sum(1), torch.ones_like(target[:, 0], dtype=torch.int64)):
        raise ValueError(
            "target: integers (N,C,...) that are not one-hot, allowed is one 1 over the classes, all others 0"
        )
    return target.to(torch.int64).argmax(1)


def _coarsened(mask: Tensor, values: Tensor) -> Tensor:
    """Return the mask in the shape of the values."""
    return mask.flatten(values.ndim).any(-1) if mask.ndim > values.ndim else spread_mask(mask, values.shape)


def _with_settings(function: Callable[..., Any], settings: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a function that has these settings; a class is built with them."""
    if not settings:
        return function
    made = function.func if isinstance(function, functools.partial) else function
    parameters = inspect.signature(made).parameters.values()
    allowed = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.name not in GIVEN]
    if unknown := set(settings) - set(allowed):
        raise ValueError(f"{min(unknown)}={settings[min(unknown)]!r}: allowed are the settings {', '.join(allowed)}")
    return function(**settings) if inspect.isclass(made) else functools.partial(function, **settings)


def _described(function: Callable[..., Any]) -> list[str]:
    """Return the name of a function or module, and all its settings as `name=value`."""
    given: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        given = {**function.keywords, **given}
        function = function.func
    module = isinstance(function, nn.Module)
    made = type(function) if module else function
    settings = {
        name: getattr(function, name, one.empty) if module else given.get(name, one.default)
        for name, one in inspect.signature(made).parameters.items()
        if one.kind is one.KEYWORD_ONLY and name not in GIVEN
    }
    told = [f"{name}={_told(value)}" for name, value in settings.items() if value is not inspect.Parameter.empty]
    return [getattr(made, "__name__", repr(made)), *told]


def _told(value: Any) -> str:
    if isinstance(value, Tensor):
        value = value.tolist() if value.numel() <= 16 else f"tensor of shape {tuple(value.shape)}"
    if not callable(value):
        return str(value) if isinstance(value, str) and value.startswith("tensor of") else repr(value)
    name, *settings = _described(value)
    return f"{name}({', '.join(settings)})" if settings else name


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function with every partial, nested ones too, as a plain `functools.partial`.

    Configuration libraries return subclasses that check themselves at every call, which costs more than a small loss.
    """
    if not isinstance(function, functools.partial):
        return function
    keywords = {name: plain(value) for name, value in function.keywords.items()}
    return functools.partial(function.func, *function.args, **keywords)


def instantiate_with_sizes(function: Callable[..., Any], **sizes: int) -> Callable[..., Any]:
    """Return the function; a partial of a class is called, with those of ``sizes`` that it has parameters for."""
    made = function.func if isinstance(function, functools.partial) else function
    if not inspect.isclass(made):
        return function
    wanted = inspect.signature(made).parameters
    return function(**{name: size for name, size in sizes.items() if name in wanted})
