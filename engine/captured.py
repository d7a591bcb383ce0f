"""A step that is taken over and over, on CUDA captured as a graph and replayed. The one place that knows CUDA's graphs.

A training step in jets is about a thousand small kernels, and launching them one by one takes longer than running them.
A captured graph launches all of them at once, over the very memory that they were captured with, so a step must

- depend on the host by nothing but its key, which is what decides its shapes: there is one graph a key;
- read and write fixed tensors that outlive the graphs, and find out on the device what is different the next time;
- never read a number on the host, or make a tensor from one;
- leave nothing behind: since no tensor made inside a step outlives it, all graphs share one memory pool, and are
  replayed in any order.

On the processor steps are taken as they are. Not done here: measurements, and two trainings at once in one process.
Source: PyTorch, *CUDA semantics*, section CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

UNFINISHED_STEPS = 64
"""How many steps a caller may be ahead of a CUDA device. Waiting drains the device, for the time of one launch."""


@contextmanager
def replayed(step: Callable[[int], None], device: torch.device) -> Iterator[Callable[[int], None]]:
    """The step in the form that is fast on the device; when the block ends, all steps are finished.

    Args:
        step: a function of its key, as above.
        device: where its tensors are.
    """
    if device.type != "cuda":
        yield step
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    pool = torch.cuda.graph_pool_handle()

    def capture(work: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            work()
        return graph.replay

    replays = Replays(step, capture, stream.synchronize)
    with torch.cuda.stream(stream):
        try:
            yield replays
        finally:
            # Whatever happened: what the steps use is freed to other streams next. The graphs go all together, since
            # with one torch frees cuBLAS's workspace of its stream, which the others use (pytorch/pytorch#193402).
            stream.synchronize()
            replays.clear()


class Replays:
    """A step that is captured at the second call of a key, and replayed.

    The first call takes the step as it is: it counts, and it is the warm-up that torch asks for on the stream that is
    captured later (compilers, cuBLAS's workspace, and its choice of kernels for these shapes). Capturing runs nothing.
    A key that comes once is never captured.
    """

    def __init__(
        self,
        step: Callable[[int], None],
        capture: Callable[[Callable[[], None]], Callable[[], None]],
        wait: Callable[[], None],
    ) -> None:
        """Nothing is captured yet.

        Args:
            step: a function of its key.
            capture: from work to what replays it.
            wait: until all that was launched is finished.
        """
        self._step = step
        self._capture = capture
        self._wait = wait
        self._warm: set[int] = set()
        self._of_key: dict[int, Callable[[], None]] = {}
        self._taken = 0

    def __call__(self, key: int) -> None:
        """Launch a step; it may be finished up to `UNFINISHED_STEPS` calls later."""
        if key not in self._warm:
            self._step(key)
            self._warm.add(key)
        else:
            if key not in self._of_key:
                self._of_key[key] = self._capture(lambda: self._step(key))
            self._of_key[key]()
        self._taken += 1
        if self._taken % UNFINISHED_STEPS == 0:
            self._wait()

    @property
    def captured(self) -> frozenset[int]:
        """Keys that were captured."""
        return frozenset(self._of_key)

    def clear(self) -> None:
        """Let everything captured go, and its memory. No replay may be under way."""
        self._of_key.clear()
