"""How every command line ends: what went wrong is one sentence, and the exit code says of what kind it is."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from harness.errors import UsageError


def ended(carry_out: Callable[[], int], interrupted: str = "Interrupted.") -> int:
    """Carry out a command line; return its exit code.

    Args:
        carry_out: does it, and returns the exit code of a command that came to its end.
        interrupted: what is said after Ctrl-C, or a scheduler's SIGTERM, which counts as one.

    Returns:
        That of ``carry_out``; 2 where the request cannot be met, or nothing can be written; 130 after Ctrl-C; 141 where
        nobody reads the output any more.
    """
    # also where a shell has made us deaf to Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return carry_out()
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output (head, say) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        from harness.records import store  # here, so that --help answers at once

        if problem := store.refusal(error):
            print(problem, file=sys.stderr)
            return 2
        raise
