"""Nothing that was downloaded or saved is unpickled, so that no file can run code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What only unpickling can read, or may unpickle, unless this keyword has this value.
SAFE = {"numpy": ("allow_pickle", False), "np": ("allow_pickle", False), "torch": ("weights_only", True)}
UNPICKLE = {"dill", "joblib", "marshal", "pickle", "shelve"}
SOURCES = sorted(
    path
    for folder in ("stn", "kernels", "chapters", ".ci")
    for path in (ROOT / folder).rglob("*.py")
    if "build" not in path.relative_to(ROOT).parts
)


def unsafe(source):
    """The lines that may unpickle."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            if UNPICKLE & {name.partition(".")[0] for name in names}:
                yield node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
            keyword, value = SAFE.get(getattr(node.func.value, "id", ""), (None, None))
            given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            if keyword is not None and given.get(keyword) is not value:
                yield node.lineno


def test_no_source_unpickles():
    assert len(SOURCES) > 100
    found = {
        str(path.relative_to(ROOT)): lines
        for path in SOURCES
        if (lines := list(unsafe(path.read_text(encoding="utf-8"))))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import pickle", 1),
        ("from pickle import loads", 1),
        ("np.load(file)", 1),
        ("np.load(file, allow_pickle=True)", 1),
        ("np.load(file, allow_pickle=False)", 0),
        ("torch.load(file)", 1),
        ("torch.load(file, weights_only=False)", 1),
        ("torch.load(file, weights_only=True)", 0),
        ("json.load(file)", 0),
    ],
)
def test_what_unpickles_is_found(source, count):
    assert len(list(unsafe(source))) == count
