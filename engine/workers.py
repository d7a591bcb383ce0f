"""Blocks of a build, one after the other or spread over workers: threads of this process, or processes.

Native code works beside the interpreter, so threads are enough. Torch's thousand small operations a step hold it, so
they are spread over processes. Either way every block is trained with one processor thread (`engine.threads`), and the
result doesn't depend on the number of workers, to the bit.

A worker writes its blocks to the workspace itself. A process reports its steps through a pipe; one whose parent was
killed finds the pipe closed at its next step, and ends.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import TypeAlias, TypeVar

from engine.errors import EngineError, WorkerError
from engine.threads import cores, one_thread, use_one_thread
from engine.train import Progress

WORTHWHILE_WORK = 20_000
"""Direction·steps from which a second process saves more than the seconds that it takes to start; a thread takes none,
but then it saves next to nothing either."""

_GRACE_SECONDS = 5.0
"""For threads to end that aren't needed any more. One that writes to a store that is away would take minutes."""

Report: TypeAlias = Callable[[int], None]
"""Called with the direction·steps that were just done."""

Part = TypeVar("Part")

TrainBlock: TypeAlias = Callable[[Part, Report], object]
"""Trains a block and writes it; reports as it goes on. What it returns isn't looked at."""


def as_progress(report: Report) -> Progress:
    """What takes the steps done so far and all of them, and reports those that were done since."""
    reported = 0

    def progress(done: int, total: int) -> None:
        nonlocal reported
        report(done - reported)
        reported = done

    return progress


def worker_count(work: int, *, device: str) -> int:
    """How many threads or processes a build of so many direction·steps is worth."""
    return cores() if device == "cpu" and work >= WORTHWHILE_WORK else 1


def shares(blocks: Sequence[Part], workers: int) -> list[Sequence[Part]]:
    """Which blocks each worker trains, one after the other; at most as many workers as blocks."""
    workers = max(1, min(workers, len(blocks)))
    return [blocks[worker::workers] for worker in range(workers)]


def train_blocks(
    train: TrainBlock[Part], blocks: Sequence[Part], *, workers: int, threads: bool, report: Report
) -> None:
    """Train all blocks.

    Args:
        train: trains one; it is pickled for worker processes.
        blocks: of any kind; they are pickled, too.
        workers: how many blocks are trained at the same time; 1 trains here.
        threads: whether workers are threads, and not processes.
        report: called as the work goes on, by one worker at a time.

    Raises:
        EngineError: what a block's training refuses; the first one ends all workers.
        WorkerError: a worker was killed.
    """
    parts = shares(blocks, workers)
    if len(parts) == 1:
        with one_thread():
            for block in blocks:
                train(block, report)
        return
    if threads:
        _train_in_threads(train, blocks, len(parts), report)
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


class _CancelledError(Exception):
    """Raised in a thread to leave its block."""


def _train_in_threads(train: TrainBlock[Part], blocks: Sequence[Part], workers: int, report: Report) -> None:
    lock, cancelled = threading.Lock(), threading.Event()

    def report_alone(work: int) -> None:
        if cancelled.is_set():
            raise _CancelledError
        with lock:
            report(work)

    def train_one(block: Part) -> None:
        if cancelled.is_set():
            raise _CancelledError
        train(block, report_alone)

    waiting, ends = queue.SimpleQueue[Part](), queue.SimpleQueue[BaseException | None]()
    for block in blocks:
        waiting.put(block)
    # Daemons: one that waits for a store isn't waited for when the program ends.
    threads = [
        threading.Thread(target=_train_waiting, args=(train_one, waiting, ends), daemon=True) for _ in range(workers)
    ]
    with one_thread():
        try:
            for thread in threads:
                thread.start()
            for _ in threads:
                if (error := ends.get()) is not None:
                    raise error
        except BaseException:  # Ctrl-C too: the others stop at their next report
            cancelled.set()
            _wait_for(threads, _GRACE_SECONDS)
            raise


def _train_waiting(
    train_one: Callable[[Part], None],
    waiting: queue.SimpleQueue[Part],
    ends: queue.SimpleQueue[BaseException | None],
) -> None:
    """Train blocks until none waits, and say what has ended that."""
    try:
        while True:
            train_one(waiting.get_nowait())
    except (queue.Empty, _CancelledError):
        ends.put(None)
    except BaseException as error:  # noqa: BLE001 - raised again where it is listened to
        ends.put(error)


def _wait_for(threads: Sequence[threading.Thread], seconds: float) -> None:
    until = time.monotonic() + seconds
    for thread in threads:
        if thread.ident is not None:  # else it wasn't started
            thread.join(max(0.0, until - time.monotonic()))


def _listen(pipes: list[Connection], report: Report) -> None:
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


def _work(train: TrainBlock[Part], blocks: Sequence[Part], sending: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends its workers
    use_one_thread()
    try:
        for block in blocks:
            train(block, sending.send)
    except EngineError as error:
        sending.send(error)
    except BrokenPipeError:
        os._exit(1)  # the parent is gone
