"""Are the chapters a test of the library? Plant faults in it, one at a time, and see whether a chapter fails.

    python chapters/mutants.py               # go on where the last run was cut off, and write mutants.json
    python chapters/mutants.py --seconds 60  # start nothing more after so long
    python chapters/mutants.py --draw        # draw the faults anew, from the library as it is

`mutants.json` lists the faults and what became of each. A fault is one small change, made by rule, in the
body of a function of `stn` or `stn_kernels`, in a copy of both. Chapters and solutions run in that copy and
are compared with their outputs, as `make test` does it: those that run the changed line, the quickest first,
until one fails. To take three times as long as without the fault is to fail.

A fault that cannot change what a chapter could compute, whatever it printed, is struck by hand: its entry
gets a "struck" with the reason, and --draw goes on until there are as many as before.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

CHAPTERS = Path(__file__).resolve().parent
ROOT = CHAPTERS.parent
LIST = CHAPTERS / "mutants.json"
STATE = ROOT / "build" / "mutants.json"

SEED = 2015
FAULTS = 50
PATIENCE = 3  # times as long as without a fault, and
START = 60  # seconds, since other things may be running
LISTED = ("id", "file", "line", "function", "kind", "old", "new")

# What the chapters are about. Not: commands and what only they use, figures, widgets, the exercises' texts,
# and what reads data sets, which chapters do without since they need no network.
LIBRARY = ("kernels/stn_kernels/*.py", "stn/*.py", "stn/data/*.py")
NOT_ELIGIBLE = {
    "stn/__main__.py",
    "stn/plotting.py",
    "stn/spline_plotting.py",
    "stn/widgets.py",
    "stn/measured.py",
    "stn/data/birds.py",
    "stn/data/house_numbers.py",
    "stn/data/make_digits.py",
    "stn/data/sources.py",
}

# --- the mutator -------------------------------------------------------------------------------------------

OPERATORS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "//"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
UNARY: dict[type[ast.AST], str] = {ast.USub: "-", ast.Invert: "~", ast.Not: "not"}
PAIRS = (
    *(("min", "max"), ("minimum", "maximum"), ("amin", "amax"), ("argmin", "argmax"), ("sin", "cos")),
    *(("floor", "ceil"), ("any", "all"), ("zeros", "ones")),
)
FUNCTIONS = {**dict(PAIRS), **{b: a for a, b in PAIRS}}
TEXTS = {"__repr__", "extra_repr"}  # functions that only say what something is


class Mutant(NamedTuple):
    file: str  # relative to the root
    line: int
    function: str
    kind: str
    old: str  # the lines that change, without their indentation
    new: str
    id: str  # of file, function, old and new: other lines of the file may change
    span: tuple[int, int]  # what is replaced, in bytes of the file
    text: str
    runs: tuple[int, int]  # first and last line of a statement: if one of them runs, the fault is reached


class Change(NamedTuple):
    start: int
    end: int
    text: str
    kind: str
    function: str
    runs: tuple[int, int]


class Mutator:
    """All changes of a file that the rules allow.

    Changed are expressions and statements in the bodies of functions, and their default values. Not changed
    are docstrings, annotations, f-strings, what objects say of themselves, and what only refuses wrong
    arguments: assertions, errors, the conditions for them, and calls of functions that do nothing else.
    """

    def __init__(self, source: str) -> None:
        self.content = source.encode()
        self.starts = [0]
        for line in self.content.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.found: set[Change] = set()
        self.function = ""
        self.runs = (0, 0)
        self.bound: set[str] = set()
        self.definitions(ast.parse(source).body, "")

    def definitions(self, body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                self.definitions(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef) and node.name not in TEXTS:
                self.definition(node, prefix)

    def definition(self, node: ast.FunctionDef, prefix: str) -> None:
        outside = self.function, self.runs, self.bound
        self.function, self.bound = prefix + node.name, set()
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        if body:
            self.runs = body[0].lineno, node.end_lineno or node.lineno
            for default in (*node.args.defaults, *node.args.kw_defaults):
                if default is not None:
                    self.expression(default)
            self.statements(body)
        self.function, self.runs, self.bound = outside

    def statements(self, body: list[ast.stmt]) -> None:
        for node in body:
            self.statement(node)

    def statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.FunctionDef):
            self.definition(node, f"{self.function}.")
            return
        if isinstance(node, (ast.Assert, ast.Raise, ast.ClassDef)) or is_check(node):
            return
        if isinstance(node, ast.If) and all(isinstance(inner, ast.Raise) for inner in node.body):
            self.statements(node.orelse)
            return
        blocks = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
        blocks += [handler.body for handler in getattr(node, "handlers", [])]
        inner = [block[0].lineno for block in blocks if block]
        self.runs = node.lineno, max(node.lineno, min(inner) - 1) if inner else node.end_lineno or node.lineno
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.withitem):
                self.expression(child.context_expr)
            elif isinstance(child, ast.expr) and child is not getattr(node, "annotation", None):
                self.expression(child)
        self.whole(node)
        for block in blocks:
            self.statements(block)

    def whole(self, node: ast.stmt) -> None:
        """Changes of a statement as such."""
        if isinstance(node, (ast.If, ast.While)):
            self.negate(node.test)
        elif isinstance(node, ast.AugAssign):
            self.operator(node.op, node.target, node.value)
            self.replace(node, "pass", "statement deleted")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            self.replace(node, "pass", "statement deleted")
        elif isinstance(node, ast.Assign):
            names = {
                leaf.id for target in node.targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)
            }
            # The first assignment to a name would be missed by whatever reads it.
            into = any(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets)
            if into or names <= self.bound:
                self.replace(node, "pass", "statement deleted")
            self.bound |= names
        elif isinstance(node, ast.Return) and node.value is not None:
            self.replace(node, "return None", "return replaced")

    def expression(self, node: ast.expr) -> None:
        if isinstance(node, ast.JoinedStr):
            return
        if isinstance(node, ast.BinOp):
            self.operator(node.op, node.left, node.right)
        elif isinstance(node, ast.BoolOp):
            for left, right in pairwise(node.values):
                self.operator(node.op, left, right)
        elif isinstance(node, ast.Compare):
            for op, (left, right) in zip(node.ops, pairwise([node.left, *node.comparators]), strict=True):
                self.operator(op, left, right)
        elif isinstance(node, ast.UnaryOp) and type(node.op) in UNARY:
            start = self.span(node)[0]
            self.add(start, start + len(UNARY[type(node.op)]), "", "sign or negation dropped")
        elif isinstance(node, ast.Constant):
            self.constant(node)
        elif isinstance(node, ast.IfExp):
            self.negate(node.test)
        elif isinstance(node, ast.Call):
            self.call(node)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.expression(child)
            elif isinstance(child, ast.keyword):
                self.expression(child.value)
            elif isinstance(child, ast.comprehension):
                for part in (child.iter, *child.ifs):
                    self.expression(part)
                for condition in child.ifs:
                    self.negate(condition)

    def constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self.replace(node, str(not value), "True or False")
        elif isinstance(value, (int, float)) and value + 1 != value:
            self.replace(node, repr(value + 1), "constant")

    def call(self, node: ast.Call) -> None:
        name = called(node)
        if name in FUNCTIONS:
            end = self.span(node.func)[1]
            self.add(end - len(name), end, FUNCTIONS[name], "function")
        if len(node.args) > 1 and not any(isinstance(argument, ast.Starred) for argument in node.args):
            (start, end), (second, last) = self.span(node.args[0]), self.span(node.args[1])
            swapped = self.content[second:last] + self.content[end:second] + self.content[start:end]
            self.add(start, last, swapped.decode(), "arguments swapped")
            self.drop(self.span(node.args[-2])[1], self.span(node.args[-1])[1])
        arguments: list[ast.expr | ast.keyword] = sorted([*node.args, *node.keywords], key=self.span)
        for before, argument in pairwise(arguments):
            if isinstance(argument, ast.keyword):
                self.drop(self.span(before)[1], self.span(argument)[1])
        if len(arguments) == 1 and node.keywords:
            self.drop(*self.span(arguments[0]))

    def drop(self, start: int, end: int) -> None:
        dropped = self.content[start:end]
        # Brackets around the argument before it are not part of that.
        if all(dropped.count(a) == dropped.count(b) for a, b in (b"()", b"[]", b"{}")):
            self.add(start, end, "", "argument dropped")

    def negate(self, test: ast.expr) -> None:
        start, end = self.span(test)
        self.add(start, end, f"not ({self.content[start:end].decode()})", "condition negated")

    def operator(self, op: ast.AST, left: ast.expr, right: ast.expr) -> None:
        if type(op) in OPERATORS:
            old, new = OPERATORS[type(op)]
            start, end = self.span(left)[1], self.span(right)[0]
            between = re.sub(rb"#[^\n]*", lambda comment: b" " * len(comment[0]), self.content[start:end])
            at = start + between.index(old.encode())
            self.add(at, at + len(old), new, "operator")

    def replace(self, node: ast.AST, text: str, kind: str) -> None:
        self.add(*self.span(node), text, kind)

    def span(self, node: Any) -> tuple[int, int]:
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[
            node.end_lineno - 1
        ] + node.end_col_offset

    def add(self, start: int, end: int, text: str, kind: str) -> None:
        if self.content[start:end] != text.encode():
            self.found.add(Change(start, end, text, kind, self.function, self.runs))


def is_check(node: ast.stmt) -> bool:
    """Whether a statement only calls a function that raises an error or does nothing."""
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return False
    return called(node.value).startswith("check")


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def mutants(file: str, source: str) -> list[Mutant]:
    """All faults of a file, in the order of its text."""
    mutator = Mutator(source)
    found = []
    times: defaultdict[str, int] = defaultdict(int)
    for start, end, text, kind, function, runs in sorted(mutator.found):
        first = mutator.content.rfind(b"\n", 0, start) + 1
        last = mutator.content.find(b"\n", end)
        old = mutator.content[first:last].decode()
        new = (mutator.content[first:start] + text.encode() + mutator.content[end:last]).decode()
        old, new = dedent(old), dedent(new)
        what = "\n".join((file, function, old, new))
        times[what] += 1  # the same line may stand in a function twice
        digest = hashlib.sha256(f"{what}\n{times[what]}".encode()).hexdigest()[:8]
        line = mutator.content.count(b"\n", 0, start) + 1
        found.append(Mutant(file, line, function, kind, old, new, digest, (start, end), text, runs))
    return found


def planted(source: str, mutant: Mutant) -> str:
    """The file with the fault in it."""
    content = source.encode()
    start, end = mutant.span
    return (content[:start] + mutant.text.encode() + content[end:]).decode()


def eligible_files(root: Path = ROOT) -> list[str]:
    files = {path.relative_to(root).as_posix() for pattern in LIBRARY for path in root.glob(pattern)}
    return sorted(files - NOT_ELIGIBLE)


def all_mutants(root: Path = ROOT) -> list[Mutant]:
    return [
        mutant
        for file in eligible_files(root)
        for mutant in mutants(file, (root / file).read_text(encoding="utf-8"))
    ]


def drawn(all_: list[Mutant], seed: int = SEED) -> Iterator[Mutant]:
    """All faults in random order: each eligible line is as likely as any other, and on it each fault.

    A second draw of the same is skipped.
    """
    of_line: defaultdict[tuple[str, int], list[Mutant]] = defaultdict(list)
    for mutant in all_:
        of_line[mutant.file, mutant.line].append(mutant)
    lines = sorted(of_line)
    generator = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < len(all_):
        # `random` is the one method that gives the same numbers in every version of Python.
        choices = of_line[lines[int(generator.random() * len(lines))]]
        mutant = choices[int(generator.random() * len(choices))]
        if mutant.id not in seen:
            seen.add(mutant.id)
            yield mutant


# --- running notebooks -------------------------------------------------------------------------------------


def notebooks(root: Path = ROOT) -> list[str]:
    """Of chapters and solutions, relative to the root."""
    found = [*(root / "chapters").glob("*.ipynb"), *(root / "chapters" / "solutions").glob("*.ipynb")]
    return sorted(path.relative_to(root).as_posix() for path in found)


def copied(folder: Path) -> Path:
    """A copy of all that the notebooks use."""
    ignore = shutil.ignore_patterns("__pycache__", ".*", "unkept")
    for part in ("stn", "kernels", "chapters"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignore)
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    return folder


def run(notebook: str, root: Path, seconds: float | None = None, lines: Path | None = None) -> str:
    """Run a notebook of a copy: "" if it passes, else the cell that failed, or "time" if it took too long.

    Args:
        seconds: after which it is stopped; None for never.
        lines: the file that gets the lines that ran; see `traced.py`.
    """
    path = [str(root / "kernels"), str(root)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if lines is not None:
        path.insert(0, str(lines.parent))
        shutil.copyfile(CHAPTERS / "traced.py", lines.parent / "sitecustomize.py")
        environment |= {"TRACED_ROOT": str(root), "TRACED_LINES": str(lines)}
    environment["PYTHONPATH"] = os.pathsep.join(path)
    sanitize = f"--nbval-sanitize-with={root / 'chapters' / 'sanitize.cfg'}"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no"]
    command += ["--nbval", "--nbval-current-env", sanitize, "--nbval-cell-timeout=600", notebook]
    process = subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # pytest then ends the notebook's kernel
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        return "time"
    if process.returncode == 0:
        return ""
    failed = re.search(r"^FAILED \S+::(.+?)( - .*)?$", output, re.MULTILINE)
    if process.returncode != 1 or failed is None:
        raise RuntimeError(f"{notebook}: pytest ended with {process.returncode}:\n{output}")
    return failed[1]


def baseline(notebook: str) -> dict[str, Any]:
    """How long a notebook takes without a fault, and the lines of the library that it runs."""
    with tempfile.TemporaryDirectory() as folder:
        root = copied(Path(folder) / "copy")
        lines = Path(folder) / "traced" / "lines.txt"
        lines.parent.mkdir()
        begun = time.monotonic()
        if cell := run(notebook, root, lines=lines):
            sys.exit(f"{notebook} fails without any fault: {cell}")
        seconds = round(time.monotonic() - begun, 1)
        ran: defaultdict[str, list[int]] = defaultdict(list)
        for place in sorted(set(lines.read_text(encoding="utf-8").split())):
            file, _, line = place.rpartition(":")
            ran[file].append(int(line))
    if not ran:
        sys.exit(f"{notebook} runs nothing of the copy; is another stn in the way?")
    return {"seconds": seconds, "lines": {file: sorted(numbers) for file, numbers in ran.items()}}


# --- the list and what is known ----------------------------------------------------------------------------


def digest(paths: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in sorted(paths):
        found.update(path.relative_to(ROOT).as_posix().encode() + b"\n" + path.read_bytes())
    return found.hexdigest()[:12]


def library() -> str:
    """A fingerprint of the library."""
    return digest([*(ROOT / "stn").rglob("*.py"), *(ROOT / "kernels" / "stn_kernels").glob("*.py")])


def code(notebook: Path) -> str:
    """A fingerprint of a notebook's code cells and their outputs: texts run nothing."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    kept = [cell for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


class State:
    """What runs have found out, in an ignored file. It counts while library and code cells are the same."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.library = library()

    def key(self, notebook: str, fault: str) -> str:
        return f"{self.library} {code(ROOT / notebook)} {notebook} {fault}"

    def get(self, notebook: str, fault: str = "") -> Any:
        return self.known.get(self.key(notebook, fault))

    def set(self, result: Any, notebook: str, fault: str = "") -> None:
        self.known[self.key(notebook, fault)] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(self.known), encoding="utf-8")
        unfinished.replace(self.path)


def draw(old: dict[str, Any]) -> dict[str, Any]:
    """The list of faults in the library as it is; what is struck in the old list stays so."""
    struck = {fault["id"]: fault["struck"] for fault in old.get("faults", []) if "struck" in fault}
    found = all_mutants()
    faults: list[dict[str, Any]] = []
    left = FAULTS
    for mutant in drawn(found):
        entry: dict[str, Any] = {name: getattr(mutant, name) for name in LISTED}
        if mutant.id in struck:
            entry["struck"] = struck[mutant.id]
        else:
            left -= 1
        faults.append(entry)
        if not left:
            break
    return {
        "seed": SEED,
        "eligible_lines": len({(mutant.file, mutant.line) for mutant in found}),
        "possible_faults": len(found),
        "seconds": old.get("seconds", {}),
        "faults": faults,
    }


def reached(mutant: Mutant, lines: dict[str, list[int]]) -> bool:
    first, last = mutant.runs
    return any(first <= line <= last for line in lines.get(mutant.file, []))


def update(listed: dict[str, Any], state: State, order: list[str]) -> None:
    """Write into the list, and the list into its file, what is known of each fault.

    "caught_by" and "cell": where it was noticed. "passed": notebooks that ran the line and passed. "open":
    others are still to be run. What has neither "caught_by" nor "open" nor "struck" survived.
    """
    there = {mutant.id: mutant for mutant in all_mutants()}
    baselines = {notebook: state.get(notebook) for notebook in order}
    for fault in listed["faults"]:
        for name in ("caught_by", "cell", "passed", "open"):
            fault.pop(name, None)
        if "struck" in fault:
            continue
        results = {notebook: state.get(notebook, fault["id"]) for notebook in order}
        fault["passed"] = [notebook for notebook, cell in results.items() if cell == ""]
        caught = [notebook for notebook, cell in results.items() if cell]
        if caught:
            fault["caught_by"], fault["cell"] = caught[0], results[caught[0]]
        elif fault["id"] not in there or any(
            known is None or (reached(there[fault["id"]], known["lines"]) and results[notebook] is None)
            for notebook, known in baselines.items()
        ):
            fault["open"] = True
    listed["seconds"] |= {name: known["seconds"] for name, known in baselines.items() if known}
    listed["library"] = state.library
    standing = [fault for fault in listed["faults"] if "struck" not in fault]
    listed["caught"] = sum("caught_by" in fault for fault in standing)
    listed["of"] = len(standing)
    listed["open"] = sum("open" in fault for fault in standing)
    write(listed)


def write(listed: dict[str, Any]) -> None:
    LIST.write_text(json.dumps(listed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def go_on(listed: dict[str, Any], state: State, end: float) -> None:
    """Run what is left until `end`, in seconds of `time.monotonic`.

    The notebooks one after another, those that were quickest the last time first; in each the faults that it
    reaches and that no other has caught.
    """
    there = {mutant.id: mutant for mutant in all_mutants()}
    seconds = dict(listed["seconds"])
    order = sorted(notebooks(), key=lambda notebook: (seconds.get(notebook, math.inf), notebook))
    standing = [fault["id"] for fault in listed["faults"] if "struck" not in fault]
    if gone := [fault for fault in standing if fault not in there]:
        print(f"no longer in the library, so not run: {', '.join(gone)}; --draw draws anew")
    left = [there[fault] for fault in standing if fault in there]
    for notebook in order:
        left = [mutant for mutant in left if not any(state.get(other, mutant.id) for other in order)]
        if not left or time.monotonic() > end:
            break
        known = state.get(notebook)
        if known is None:
            known = baseline(notebook)
            state.set(known, notebook)
            print(f"{notebook}: passes in {known['seconds']:.0f} s", flush=True)
        for mutant in left:
            if reached(mutant, known["lines"]) and state.get(notebook, mutant.id) is None:
                if time.monotonic() > end:
                    break
                cell = with_fault(mutant, notebook, known["seconds"])
                state.set(cell, notebook, mutant.id)
                update(listed, state, order)
                print(f"  {mutant.id} {mutant.file}:{mutant.line}: {cell or 'passes'}", flush=True)
    update(listed, state, order)


def with_fault(mutant: Mutant, notebook: str, seconds: float) -> str:
    """What `run` says of a notebook in a copy that has the fault."""
    with tempfile.TemporaryDirectory() as folder:
        root = copied(Path(folder))
        path = root / mutant.file
        path.write_text(planted(path.read_text(encoding="utf-8"), mutant), encoding="utf-8")
        return run(notebook, root, PATIENCE * seconds + START)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="draw the faults anew, and run nothing")
    parser.add_argument("--seconds", type=float, default=math.inf, help="start nothing more after so long")
    arguments = parser.parse_args()
    listed = json.loads(LIST.read_text(encoding="utf-8")) if LIST.exists() else {}
    state = State(STATE)
    if arguments.draw or not listed:
        listed = draw(listed)
        update(listed, state, notebooks())
    if arguments.draw:
        return 0
    go_on(listed, state, time.monotonic() + arguments.seconds)
    for fault in listed["faults"]:
        if not {"caught_by", "struck"} & set(fault):
            what = "not run to the end" if "open" in fault else "survived"
            print(
                f"{what}: {fault['id']} {fault['file']}:{fault['line']}\n- {fault['old']}\n+ {fault['new']}"
            )
    print(f"{listed['caught']} of {listed['of']} caught, {listed['open']} not run to the end")
    return 0


if __name__ == "__main__":
    sys.exit(main())
