"""Compiling the C++ sources beside this file for this machine, and calling what comes out.

A library is for one precision, degree and number of planes, since the ring is unrolled for them. It is compiled when it
is first needed, which takes some seconds, and kept in the user's cache directory under a name that says what went into
it: the sources, the compiler, and what the compiler knows of this processor. Where there is no C++ compiler nothing is
lost but speed: `library` gives None, and torch does the work.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs
import torch

from engine.threads import cores

logger = logging.getLogger(__name__)

HIGHEST_DEGREE: Final = 8
"""Beyond, unrolled code gets long and slow to compile."""

_SOURCES: Final = ("lanes.h", "jet.h", "layers.h", "microgpt.cpp")
_COMPILERS: Final = ("g++", "clang++", "c++")
_FLAGS: Final = ("-std=c++20", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_REALS: Final = {torch.float32: "float", torch.float64: "double"}
_VECTOR_BYTES: Final = {"__AVX512F__": 64, "__AVX__": 32, "__STDC_HOSTED__": 16}  # by a macro of those that have them
_NARROWEST: Final = 32
_SECONDS: Final = 300
_LOCK: Final = threading.Lock()


class Shape(ctypes.Structure):
    """The model's sizes, as the sources know them."""

    _fields_ = (
        ("vocabulary", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("heads", ctypes.c_int32),
        ("context", ctypes.c_int32),
        ("layers", ctypes.c_int32),
        ("rmsnorm_epsilon", ctypes.c_double),
    )


@dataclass(frozen=True, kw_only=True)
class Library:
    """Compiled code.

    Attributes:
        dtype: of its numbers.
        degree: S; 0 for plain models.
        planes: 2 for complex coefficients, 1 for real ones.
        lanes: directions, or plain models, of a group.
    """

    dtype: torch.dtype
    degree: int
    planes: int
    lanes: int
    _functions: ctypes.CDLL

    def call(self, name: str, *arguments: ctypes.Structure | int | torch.Tensor) -> None:
        """Call a function of `microgpt.cpp`; the interpreter is free meanwhile.

        Args:
            name: of the function.
            arguments: numbers, structures, and contiguous tensors on the CPU, of which it gets the address.

        Raises:
            MemoryError: the function found too little.
        """
        assert all(not isinstance(a, torch.Tensor) or (a.is_contiguous() and a.is_cpu) for a in arguments)
        if getattr(self._functions, name)(*map(_passed, arguments)) != 0:
            raise MemoryError(f"There is too little memory to {name} a group.")


def library(dtype: torch.dtype, degree: int, planes: int, *, parameters: int = 0) -> Library | None:
    """The code for jets of a degree and a number of planes, or None where it can't be had; tried once a process.

    Args:
        dtype: float32 or float64.
        degree: S; 0 for plain models.
        planes: 2 for complex coefficients, 1 for real ones; 1 for plain models.
        parameters: P of the model, where it is to be trained: groups are narrower where their jets of parameters and
            moments would not stay in the processor's shared cache.
    """
    name = compiler()
    if name is None or degree > HIGHEST_DEGREE:
        return None
    vector_bytes = next(size for macro, size in _VECTOR_BYTES.items() if f"#define {macro} 1" in (_target(name) or ""))
    state = 3 * parameters * degree * planes * vector_bytes * cores()
    if state > _shared_cache_bytes() // 2 and vector_bytes > _NARROWEST:
        vector_bytes //= 2
    with _LOCK:  # one compilation at a time, and each once
        return _library(name, dtype, degree, planes, vector_bytes)


@functools.cache
def compiler() -> str | None:
    """Name of the C++ compiler that is used, None where there is none that works; said once, in the log."""
    for name in _COMPILERS:
        if shutil.which(name) and _target(name) is not None:
            return name
    logger.warning("No C++ compiler that works is found (%s): torch does the work, many times slower.", _COMPILERS[0])
    return None


@functools.cache
def target() -> str | None:
    """What the last bits of compiled code depend on; None where there is no compiler that works.

    It is the compiler, its version, and a digest of all that it knows of this processor.
    """
    name = compiler()
    macros = None if name is None else _target(name)
    if macros is None:
        return None
    number = next((line.split('"')[1] for line in macros.splitlines() if line.startswith('#define __VERSION__ "')), "")
    return f"{name} {number} {hashlib.sha256(repr((macros, _FLAGS)).encode()).hexdigest()[:8]}"


@functools.cache
def _library(name: str, dtype: torch.dtype, degree: int, planes: int, vector_bytes: int) -> Library | None:
    macros = (
        f"-DREAL={_REALS[dtype]}",
        f"-DDEGREE={degree}",
        f"-DPLANES={planes}",
        f"-DVECTOR_BYTES={vector_bytes}",
    )
    try:
        functions, lanes = _loaded(name, macros)
    except subprocess.CalledProcessError as error:
        logger.warning("Compiling failed, so that torch does the work, many times slower: %s", error.stderr.strip())
        return None
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        logger.warning("There is no native code, so that torch does the work, many times slower: %s", error)
        return None
    return Library(dtype=dtype, degree=degree, planes=planes, lanes=lanes, _functions=functions)


def _loaded(name: str, macros: tuple[str, ...]) -> tuple[ctypes.CDLL, int]:
    """The shared library and its lanes: from the cache, or compiled now.

    What is kept and can't be loaded (damaged, or on a file system from which nothing is executed) is compiled anew.
    """
    here = Path(__file__).parent
    content = hashlib.sha256(repr((name, _target(name), _FLAGS, macros)).encode())
    for source in _SOURCES:
        content.update((here / source).read_bytes())
    kept = _cache() / f"{content.hexdigest()[:32]}.so"
    if not (kept.exists() and _only_ours(kept)):
        _compile(name, macros, kept)
    try:
        functions = ctypes.CDLL(str(kept))
        return functions, functions.lanes()
    except (OSError, AttributeError):
        kept.unlink(missing_ok=True)
        anew = Path(_temporary().name) / kept.name
        _compile(name, macros, anew)
        functions = ctypes.CDLL(str(anew))
        return functions, functions.lanes()


def _compile(name: str, macros: tuple[str, ...], place: Path) -> None:
    """Compile the sources; the library gets its name once it is on disk, whoever else compiles the same."""
    with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".so.partial", delete=False) as partial:
        source = Path(__file__).parent / _SOURCES[-1]
        try:
            command = [name, *_FLAGS, *macros, str(source), "-o", partial.name]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)  # noqa: S603
            with Path(partial.name).open("rb") as written:  # a linker makes the file anew
                os.fsync(written.fileno())
            Path(partial.name).replace(place)
        finally:
            Path(partial.name).unlink(missing_ok=True)


@functools.cache
def _cache() -> Path:
    """Where libraries are kept: a directory that nobody else may write. Else they last as long as the process."""
    place = Path(platformdirs.user_cache_dir("neverseen")) / "native"
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=place):
            if _only_ours(place):
                return place
    except OSError:
        pass
    return Path(_temporary().name)


def _only_ours(path: Path) -> bool:
    """Whether nobody else can have written it: what is loaded from there runs as us."""
    found = path.stat()
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="neverseen-", ignore_cleanup_errors=True)


@functools.cache
def _target(name: str) -> str | None:
    """What the compiler is and knows of this processor: its predefined macros. None where it doesn't work."""
    command = [name, "-march=native", "-dM", "-E", "-x", "c++", "/dev/null"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None


def _shared_cache_bytes() -> int:
    """Of the last level of the processor's caches, so many that all fits where the system doesn't tell."""
    try:
        return os.sysconf("SC_LEVEL3_CACHE_SIZE") or sys.maxsize
    except (OSError, ValueError):
        return sys.maxsize


def _passed(argument: ctypes.Structure | int | torch.Tensor) -> object:
    if isinstance(argument, torch.Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return argument if isinstance(argument, int) else ctypes.byref(argument)
