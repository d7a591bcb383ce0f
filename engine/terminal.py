"""What both command lines show: a progress bar with rate and time left, the cluster, rough durations, and refusals."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from engine.cluster import LOCAL, Cluster, spread_over
from engine.train import Progress as OnProgress

OnCluster = Annotated[
    str | None,
    typer.Option("--cluster", help="Do the work on a Ray cluster: auto (the one that runs), local, or HOST:PORT."),
]
"""The option of every command whose work may be spread."""


@contextmanager
def progress_bar(title: str, unit: str, *, console: Console) -> Iterator[OnProgress]:
    """Show a bar while the block runs.

    Args:
        title: what is done.
        unit: of the work that is reported.
        console: where to show it.

    Yields:
        The callback that the engine's long functions take.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f}%"),
        _Rate(unit),
        TimeElapsedColumn(),
        TextColumn("+"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def on_cluster(address: str | None, *, console: Console) -> Iterator[Cluster | None]:
    """The cluster at an address while the block runs, after saying what it has; None is this machine.

    Args:
        address: "auto", "local", HOST:PORT, or None.
        console: where to say it.

    Raises:
        ConfigurationError: there is none, or it can't be used.
    """
    if address is None:
        yield None
        return
    with ExitStack() as stack:
        with console.status("Starting a cluster" if address == LOCAL else "Looking for the cluster"):
            cluster = stack.enter_context(spread_over(address))
        if cluster is not None:
            console.print(cluster.sentence, highlight=False)
        yield cluster


def rough_duration(seconds: float) -> str:
    """A duration for people, as exactly as an estimate deserves: "about 1 min 40 s"."""
    if seconds < 5:
        return "a few seconds"
    if seconds < 57.5:
        return f"about {5 * round(seconds / 5)} s"
    if seconds < 595:
        minutes, tens = divmod(round(seconds / 10), 6)
        return f"about {minutes} min" + (f" {10 * tens} s" if tens else "")
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min"
    hours, quarters = divmod(round(minutes / 15), 4)
    return f"about {hours} h" + (f" {15 * quarters} min" if quarters else "")


def refuse(message: str) -> NoReturn:
    """Say in one line on standard error what is wrong, and exit with code 2."""
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("Error: ", "red"), message))
    sys.exit(2)


class _Rate(ProgressColumn):
    """Work a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("–" if speed is None else f"{speed:,.0f} {self.unit}/s", style="progress.data.speed")
