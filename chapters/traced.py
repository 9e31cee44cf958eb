"""Which lines of the library a process runs: `mutants.py` starts kernels with this as their `sitecustomize`.

Each line goes to the file TRACED_LINES when it first runs, since a kernel is killed and tidies nothing up:
"path:line", the path relative to TRACED_ROOT.
"""

import os
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

root = os.environ["TRACED_ROOT"] + os.sep
lines_file = Path(os.environ["TRACED_LINES"]).open("a", buffering=1)  # noqa: SIM115
seen: set[tuple[str, int]] = set()


def on_call(frame: FrameType, event: str, argument: Any) -> Any:
    return on_line if frame.f_code.co_filename.startswith(root) else None


def on_line(frame: FrameType, event: str, argument: Any) -> Any:
    if event == "line":
        place = (frame.f_code.co_filename, frame.f_lineno)
        if place not in seen:
            seen.add(place)
            lines_file.write(f"{place[0].removeprefix(root)}:{place[1]}\n")
    return on_line


threading.settrace(on_call)
sys.settrace(on_call)
