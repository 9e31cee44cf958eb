"""The results files: one per device, written after every row, so that a run that is cut off keeps what it
measured and the next one goes on from there."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cases import Case

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "results"
PACKAGE = HERE.parent / "stn_kernels"
Row = dict[str, Any]
# What tells one row from another.
KEY = (
    *("case", "shape", "size", "transform", "operation", "layout", "dtype", "transforms", "points"),
    *("direction", "implementation"),
)


def sources() -> str:
    """A fingerprint of the library: figures and test results belong to one state of it."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def file_name(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") + ".json"


def write(path: Path, content: Any) -> None:
    """All or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def describe(case: Case) -> Row:
    """What identifies a case in a row."""
    shape, size = list(case.shape), list(case.output_size)
    return {"case": case.name} | dataclasses.asdict(case) | {"shape": shape, "size": size}


def key(row: Row) -> str:
    return json.dumps([row.get(name) for name in KEY])


class Results:
    """A results file that may hold rows already."""

    def __init__(self, path: Path, device: str, software: dict[str, str], date: str) -> None:
        self.path = path
        self.content: dict[str, Any] = {"device": device, "software": software, "sources": sources()}
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        # Rows of another version of the library, or of PyTorch, are not the same measurement.
        same = all(before.get(name) == value for name, value in self.content.items())
        self.content |= {"date": date, "copy_bandwidth": None, "notes": {}, "network": [], "rows": []}
        if same:
            self.content = before
        self.keys = {key(row) for row in self.content["rows"]}

    def has(self, row: Row) -> bool:
        return key(row) in self.keys

    def add(self, row: Row) -> None:
        self.content["rows"].append(row)
        self.keys.add(key(row))
        self.save()

    def note(self, name: str, value: Any) -> None:
        self.content[name] = value
        self.save()

    def save(self) -> None:
        write(self.path, self.content)


def rows_of(content: dict[str, Any], **choices: Any) -> list[Row]:
    return [row for row in content["rows"] if all(row.get(k) == v for k, v in choices.items())]


def files(folder: Path = FOLDER) -> Iterable[Path]:
    return sorted(p for p in folder.glob("*.json") if not p.name.startswith(("smoke", "tune")))
