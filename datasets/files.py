"""What data sets declare of the files they read, so that a change of content is a change of data."""

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def official(function: F) -> F:
    """Decorator of a data set whose official test part stays what it is, so that results compare with published ones:
    it cannot be split by seed.
    """
    function.official = True  # pyright: ignore[reportFunctionMemberAccess]
    return function


def reads(*patterns: str | tuple[str, ...]) -> Callable[[F], F]:
    """Decorator that declares the files of a data set.

    It is found in the source without importing it, so it takes literals alone.

    Args:
        patterns: Files, or folders with everything in them, below the root of all data sets or absolute; `*` as in
            shells; `{path}` stands for the setting of that name. A tuple lists places, of which the first that exists
            counts.
    """

    def decorate(function: F) -> F:
        function.reads = patterns  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return decorate
