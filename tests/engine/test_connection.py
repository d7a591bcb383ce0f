"""The directory of a cluster of this machine: ours alone, and gone with whoever made it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from engine.connection import private_directory

HOLD = """
import sys, time
from pathlib import Path
from engine.connection import private_directory
with private_directory(Path(sys.argv[1])) as place:
    (place / "r").mkdir()
    print(place, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_command_left_goes_at_the_next_start_and_what_others_hold_stays(tmp_path: Path) -> None:
    foreign, opened = tmp_path / "ns-foreign", tmp_path / "ns-open"
    foreign.mkdir(mode=0o700)  # of something else: it has no lock of ours
    opened.mkdir(mode=0o755)  # anybody may have put a lock there
    (opened / "neverseen.lock").touch()
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        left = Path(killed.stdout.readline().strip())
        with private_directory(tmp_path):
            assert left.exists()
        killed.kill()
    assert left.exists()
    with private_directory(tmp_path) as held:
        assert not left.exists()
        assert held.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in tmp_path.iterdir()} == {"ns-foreign", "ns-open"}
