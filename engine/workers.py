"""Blocks of a build, in this process or spread over several.

Every block is trained with one processor thread, wherever it runs (`engine.threads`), so the result doesn't depend on
the number of workers, to the bit.

A worker writes its blocks to the workspace itself and reports its steps through a pipe. A worker whose parent was
killed finds the pipe closed at its next step, and ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait

from engine.errors import EngineError, WorkerError
from engine.threads import one_thread, use_one_thread

WORTHWHILE_WORK = 100_000
"""Direction·steps from which a second process saves more than the seconds that it takes to start."""

TrainBlock = Callable[[int, Callable[[int], None]], None]
"""Trains the block of a number and writes it; reports every finished step's directions."""


def worker_count(work: int, *, device: str) -> int:
    """How many processes a build of so many direction·steps is worth."""
    return _cores() if device == "cpu" and work >= WORTHWHILE_WORK else 1


def _cores() -> int:
    """Cores that this process may use; a container may allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares(numbers: Sequence[int], workers: int) -> list[Sequence[int]]:
    """Which blocks each worker trains, one after the other; at most as many workers as blocks."""
    workers = max(1, min(workers, len(numbers)))
    return [numbers[worker::workers] for worker in range(workers)]


def train_blocks(train: TrainBlock, numbers: Sequence[int], *, workers: int, report: Callable[[int], None]) -> None:
    """Train all blocks.

    Args:
        train: trains one; it is pickled where there are several workers.
        numbers: of the blocks.
        workers: processes; 1 trains here.
        report: called with the directions of each finished step.

    Raises:
        EngineError: what a block's training refuses; the first one ends all workers.
        WorkerError: a worker was killed.
    """
    parts = shares(numbers, workers)
    if len(parts) == 1:
        with one_thread():
            for number in numbers:
                train(number, report)
        return
    context = multiprocessing.get_context("spawn")  # a forked child would inherit threads' locks
    processes, pipes = [], []
    try:
        for part in parts:
            receiving, sending = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(train, part, sending), daemon=True)
            process.start()
            sending.close()  # so that the pipe ends with the worker
            processes.append(process)
            pipes.append(receiving)
        _listen(pipes, report)
        for process in processes:
            process.join()
            if process.exitcode != 0:
                raise WorkerError(
                    f"A worker of the build ended with exit code {process.exitcode}; start the build again, it goes on."
                )
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _listen(pipes: list[Connection], report: Callable[[int], None]) -> None:
    """Pass on what the workers report, until all of them have ended."""
    open_pipes = list(pipes)
    while open_pipes:
        for pipe in wait(open_pipes):
            assert isinstance(pipe, Connection)
            try:
                message = pipe.recv()
            except EOFError:
                open_pipes.remove(pipe)
                continue
            if isinstance(message, EngineError):
                raise message
            report(message)


def _work(train: TrainBlock, numbers: Sequence[int], sending: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends its workers
    use_one_thread()
    try:
        for number in numbers:
            train(number, sending.send)
    except EngineError as error:
        sending.send(error)
    except BrokenPipeError:
        os._exit(1)  # the parent is gone
