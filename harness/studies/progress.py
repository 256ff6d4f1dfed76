"""How a sweep goes: a live line per worker and an overall bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from harness.engines.engine import Event

PLAIN_SECONDS = 5.0  # plain lines come at most this often, apart from trouble and the last
SILENT_SECONDS = 50.0  # plain lines come at least this often


class Left(ProgressColumn):
    """Time left, if the rest goes as fast as what is done: rich's own looks at the last half minute, and two runs that
    end together look like a thousand a second.
    """

    def render(self, task: Task) -> Text:
        """Return hours, minutes and seconds."""
        if not task.completed or not task.total or task.elapsed is None:
            return Text("left -:--:--")
        minutes, seconds = divmod(round(task.elapsed * (task.total - task.completed) / task.completed), 60)
        return Text(f"left {minutes // 60}:{minutes % 60:02}:{seconds:02}")


class Progress:
    """Shows engine events; use as a context manager.

    Args:
        total: number of runs.
        workers: number of workers.
    """

    def __init__(self, total: int, workers: int) -> None:
        self.total, self.done = total, 0
        self.console = Console(highlight=False, markup=False, soft_wrap=True)
        self.began = self.last = time.monotonic()
        self.live: Live | None = None
        if self.console.is_terminal:
            self.bars = Bars(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[count]}", markup=False),
                TimeElapsedColumn(),
                Left(),
                console=self.console,
            )
            self.all = self.bars.add_task("all runs", total=total, count=f"0/{total}")
            self.lines = [self.bars.add_task("idle", total=None, count="") for _ in range(min(workers, total))]
            self.live = Live(self.bars, console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Progress:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def show(self, event: Event, what: str) -> None:
        """Show one event of the run described by ``what``."""
        content = event.content
        gone = event.kind == "timeout" or (event.kind == "died" and not content["again"])
        self.done += event.kind == "finished" or gone
        if self.live:
            line = self.lines[event.worker]
            if event.kind == "started":
                self.bars.reset(line, description=what, total=None, count="")
            elif event.kind == "epoch":
                epoch, epochs = content["epoch"], content["epochs"]
                self.bars.update(line, completed=epoch, total=epochs, count=f"{epoch}/{epochs}")
            elif event.kind in ("finished", "timeout"):
                self.bars.reset(line, description="idle", total=None, count="")
            parts = [task.completed / task.total for task in self.bars.tasks if task.id != self.all and task.total]
            self.bars.update(self.all, completed=self.done + sum(parts), count=f"{self.done}/{self.total}")
        if event.kind == "died":
            self.console.print(
                f"worker died ({content['why']}): {what}" + (", trying again" if content["again"] else ", given up")
            )
        elif event.kind == "timeout":
            after = f" after {content['epoch']}" if content["epoch"] else ""
            self.console.print(f"timeout: {what} (nothing was heard of it for {content['seconds']:.0f} s{after})")
        elif event.kind == "finished":
            self._finished(what, content["status"], content.get("error"))
            if content.get("leftover"):
                self.console.print(f"a new worker follows: {what} has left {content['leftover']}")
        elif event.kind == "waiting" and self.live is None and time.monotonic() - self.last > SILENT_SECONDS:
            self.last = time.monotonic()
            at = f", at {content['epoch']}" if content["epoch"] else ""
            self.console.print(
                f"{self.done}/{self.total} runs, {self.last - self.began:.0f} s; {what} runs for "
                f"{content['seconds']:.0f} s{at}"
            )

    def _finished(self, what: str, status: str, error: str | None) -> None:
        now = time.monotonic()
        if status != "done":
            self.console.print(f"{status}: {what}" + (f" ({error})" if error else ""))
        elif self.live is None and (now - self.last > PLAIN_SECONDS or self.done == self.total):
            self.last = now
            left = (now - self.began) / self.done * (self.total - self.done)
            self.console.print(
                f"{self.done}/{self.total} runs, {now - self.began:.0f} s, about {left:.0f} s left; last: {what}"
            )
