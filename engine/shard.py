"""One shard: the process that holds a part of every sketch that it is told to load, and measures along it.

`engine.shards` is how the front sees all of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import torch

from engine.copies import Address
from engine.devices import torch_device
from engine.errors import ArtifactError, NotLoadedError
from engine.holdings import Kept, Part, files_of, hold
from engine.jet import Jet
from engine.native.groups import Text

FRESH_SECONDS: Final = 10.0
"""What was loaded since isn't let go of."""


class Loaded(NamedTuple):
    """What a shard has in memory of a sketch.

    Attributes:
        bytes: how much that is.
        sets: deletion sets of its retrained models.
    """

    bytes: int
    sets: Sequence[tuple[int, ...]]


class _Held(NamedTuple):
    kept: Kept
    loaded_at: float


Rows: TypeAlias = list[tuple[np.ndarray, np.ndarray]]
"""Of each text the constant and the higher coefficients, [S, planes, K, T]."""


class Shard:
    """The process of a shard: its part of every sketch that it was told to load. Safe to use from several threads."""

    def __init__(self, part: Part, *, device: str, resident_bytes: int) -> None:
        """Nothing is loaded yet.

        Args:
            part: which part of every sketch.
            device: "cpu", or a CUDA device.
            resident_bytes: what the part of a sketch may take.

        Raises:
            ConfigurationError: the device isn't there.
        """
        self._part, self._device, self._resident_bytes = part, torch_device(device), resident_bytes
        self._held: dict[str, _Held] = {}
        self._lock, self._loading = threading.Lock(), threading.Lock()

    def held(self, *, but: Collection[str] | None = None) -> frozenset[str]:
        """Checksums of the artifacts that are loaded; with `but`, after letting go of all others but the latest.

        What was loaded just now may be wanted by somebody who began to want it after this was asked.
        """
        old = time.monotonic() - FRESH_SECONDS
        with self._lock:
            if but is not None:
                loaded = self._held.items()
                self._held = {key: one for key, one in loaded if key in but or one.loaded_at > old}
            return frozenset(self._held)

    def load(self, address: Address) -> Loaded:
        """Load the part of an artifact, where that isn't done yet.

        Raises:
            ArtifactError: as `Address.open`; or it takes too much memory.
        """
        with self._loading:
            if address.checksum not in self._held:
                manifest = address.open(files=()).manifest
                files = files_of(manifest.configuration, manifest.plan.source.units, self._part)
                kept = hold(address.open(files), device=self._device, part=self._part)
                if kept.nbytes > self._resident_bytes:  # what all take together is the front's to look after
                    raise ArtifactError(
                        f"a shard's part takes {kept.nbytes:,} bytes, and NEVERSEEN_RESIDENT_BYTES allows "
                        f"{self._resident_bytes:,} in each: more shards take less each."
                    )
                with self._lock:
                    self._held[address.checksum] = _Held(kept, time.monotonic())
        kept = self._kept(address.checksum)
        return Loaded(kept.nbytes, kept.sets)

    @torch.inference_mode()
    def measure(self, checksum: str, texts: Sequence[Text]) -> tuple[Rows | None, ...]:
        """Measure texts along the part's directions and axes, and on its retrained models, in this order.

        Raises:
            NotLoadedError: the artifact isn't loaded.
        """
        return tuple(None if of_kind is None else _as_rows(of_kind) for of_kind in self._kept(checksum).measure(texts))

    def models(self, checksum: str, which: Sequence[int]) -> np.ndarray:
        """Parameters of some of the part's retrained models, numbered from 0: [n, P].

        Raises:
            NotLoadedError: the artifact isn't loaded.
        """
        return np.asarray(self._kept(checksum).models(which).cpu().numpy())

    def _kept(self, checksum: str) -> Kept:
        with self._lock:
            held = self._held.get(checksum)
        if held is None:
            raise NotLoadedError("The shard has begun anew, and hasn't loaded the sketch yet.")
        return held.kept


def _as_rows(jets: Sequence[Jet]) -> Rows:
    """Jets for the way to the front; NumPy's arrays travel without a copy."""
    return [
        (
            one.constant.cpu().numpy(),
            torch.stack([torch.stack(list(planes)) for planes in one.higher]).cpu().numpy()
            if one.higher
            else np.empty((0, 0, 0, 0)),
        )
        for one in jets
    ]
