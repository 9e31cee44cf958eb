"""Find for every number in the chapters' prose the cell that computes it, or the reference that gives it.

    python chapters/check_numbers.py              # the numbers that have neither; fails if there are any
    python chapters/check_numbers.py 05 06        # of these chapters
    python chapters/check_numbers.py --list 05    # all numbers, each with its source

A source is what a cell printed, rounded as the prose rounds it, or a number in a cell's code, the nearest
cell first; numbers.toml names the others. A small whole number nearly always finds something: measured
values are what this is for. Not looked at: numbers of chapters, sections, equations, exercises and
references, code, links, formulas with letters in them, what an exercise gives, the list of references, 0, 1
and 2, and words up to twelve.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import operator
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from prose import DISPLAY, INLINE, blanked, without_code, without_links

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHAPTERS = Path(__file__).resolve().parent
SOURCES = CHAPTERS / "numbers.toml"

NEAR = 6  # cells
KINDS = ("reference", "arithmetic", "given", "cell", "repeat")
LIST = r"(?:(?:,|,? and|,? to|,? or)?\s+\[?{0}\]?)*"
# What looks like a number and names something.
NAMES = [
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"\*\*Runs in\*\*\s+about\s+\d+\s+seconds",
        r"^#+ .*$",  # headings
        r"^ *\d+\. ",  # items of a list
        r"\[\d+(?:, \d+)*\](?!\()",  # citations
        r"\b(?i:chapters?)\s+\[?\d\d\b\]?" + LIST.format(r"\d\d\b"),
        r"\b(?i:sections?|exercises?):?\s+\d[\d.-]*\d" + LIST.format(r"\d+[.-]\d+"),
        r"\b(?i:sections?)\s+\d\b(?! \d)" + LIST.format(r"\d\b"),
        r"\b(?i:equations?|eqs?\.|tables?|figures?|program|numbers)\s+\d+\b" + LIST.format(r"\d+\b"),
        r"\bA\.\d+",  # appendices of the paper
        r"\b\d\d-\d+\b",  # exercises
        r"\b[2-9]-D\b",
        r"\b[Aa]n? \*{0,2}\d\b(?![.,]\d| ?[%°×])",  # digits in pictures
        r"\bCC BY[- ]\S+",
    )
]
REFERENCES = re.compile(r"^## References$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
NUMERIC = re.compile(
    r"\\(?:times|cdot|pm|approx|ldots|dots|frac|tfrac|dfrac|sqrt|quad|qquad|%|,|;|!|left|right)"
)
POWER = r"(?P<base>\d+)\s*\^\s*\{?(?P<exponent>-?\d+)\}?"
NUMBER = re.compile(
    rf"(?:(?P<factor>\d+(?:\.\d+)?)\s*\\cdot\s*)?{POWER}"
    r"|(?<![\w.])(?P<plain>\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(?=s?(?!\w))(?P<percent>\s?\\?%|\s+per\s+cent)?"
)
TEENS = ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
UNITS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
WORD = re.compile(
    rf"\b(?:(?P<teen>{'|'.join(TEENS)})|(?P<tens>{'|'.join(TENS)})(?:-(?P<unit>{'|'.join(UNITS[:9])}))?"
    rf"|(?P<many>a|{'|'.join(UNITS)})\s+(?P<large>hundred|thousand|million))\b(?!-)",
    re.IGNORECASE,
)
LARGE = {"hundred": 100, "thousand": 1000, "million": 10**6}


@dataclass(frozen=True)
class Number:
    """A number where it stands: its value, its decimals, and whether per cent follow."""

    start: int
    end: int
    value: float
    decimals: int
    percent: bool = False


@dataclass
class Source:
    """An entry of numbers.toml: a phrase of the prose, and where its numbers are from.

    `[...]` in a phrase stands for anything within a cell.
    """

    phrase: str
    kind: str
    text: str
    values: list[float] = field(default_factory=list)
    covered: list[Number] = field(default_factory=list)

    @property
    def pattern(self) -> re.Pattern[str]:
        parts = [r"\s+".join(map(re.escape, part.split())) for part in self.phrase.split("[...]")]
        return re.compile(".*?".join(parts), re.DOTALL)


def number_words(text: str) -> Iterator[Number]:
    for found in WORD.finditer(text):
        if found["teen"]:
            value = 13 + TEENS.index(found["teen"].lower())
        elif found["tens"]:
            value = 20 + 10 * TENS.index(found["tens"].lower())
            value += 1 + UNITS.index(found["unit"].lower()) if found["unit"] else 0
        else:
            many = found["many"].lower()
            value = (1 if many == "a" else 1 + UNITS.index(many)) * LARGE[found["large"].lower()]
        yield Number(found.start(), found.end(), value, 0)


def numbers(text: str) -> Iterator[Number]:
    """The numbers in a text, in figures."""
    for found in NUMBER.finditer(text):
        if found["base"]:
            value = float(found["factor"] or 1) * float(found["base"]) ** int(found["exponent"])
            yield Number(found.start(), found.end(), value, max(0, 1 - int(found["exponent"])))
        else:
            plain = found["plain"].replace(",", "")
            decimals = len(plain.partition(".")[2])
            yield Number(found.start(), found.end(), float(plain), decimals, bool(found["percent"]))


def without_definitions(markdown: str) -> str:
    """The Markdown with blanks for formulas, but for those that are numbers only."""

    def look(found: re.Match[str]) -> str:
        rest = NUMERIC.sub("", found[0])
        return blanked(found) if re.search(r"[A-Za-z\\]", rest) else found[0].replace("$", " ")

    return INLINE.sub(look, DISPLAY.sub(blanked, markdown))


def looked_at(markdown: str) -> str:
    """A text cell with blanks for all whose numbers need no source."""
    text = without_links(without_definitions(without_code(markdown)))
    for name in NAMES:
        text = name.sub(blanked, text)
    return text


def in_the_prose(markdown: str) -> list[Number]:
    text = looked_at(markdown)
    found = [
        number
        for number in numbers(text)
        if number.value not in (0, 1, 2) or number.decimals or number.percent
    ]
    return sorted([*found, *number_words(text)], key=lambda number: number.start)


OPERATIONS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ceil": math.ceil,
    "log": math.log,
    "mean": lambda *values: statistics.mean(values),
    "radians": math.radians,
    "sqrt": math.sqrt,
    "stdev": lambda *values: statistics.stdev(values),
    "tan": math.tan,
}


def evaluated(node: ast.AST) -> float | None:
    """The value of an expression of constants; None if it is something else."""
    match node:
        case ast.Constant(value) if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
        case ast.UnaryOp(op, operand) if type(op) in OPERATIONS:
            values = [evaluated(operand)]
            function = OPERATIONS[type(op)]
        case ast.BinOp(left, op, right) if type(op) in OPERATIONS:
            values = [evaluated(left), evaluated(right)]
            function = OPERATIONS[type(op)]
        case ast.Call(ast.Name(name), arguments, []) if name in FUNCTIONS:
            values = [evaluated(argument) for argument in arguments]
            function = FUNCTIONS[name]
        case _:
            return None
    if None in values:
        return None
    try:
        return float(function(*values))
    except (ArithmeticError, ValueError):
        return None


def constants(code: str) -> list[float]:
    """The numbers in a cell's code, and what can be computed from them alone."""
    nodes = ast.walk(ast.parse(code))
    return [value for node in nodes if (value := evaluated(node)) is not None]


def printed(cell: NotebookNode) -> list[Number]:
    """The numbers that a cell put out as text."""
    texts = []
    for output in cell.get("outputs", []):
        texts += [output.get("text", ""), output.get("data", {}).get("text/plain", "")]
    return [number for text in texts for number in numbers(text.replace("−", "-"))]


def rounds_to(value: float, number: Number) -> bool:
    """Is the number what this value is, rounded to the number's decimals? Signs apart."""
    return abs(abs(value) - number.value) <= 0.5 * 10**-number.decimals * (1 + 1e-9)


def is_exactly(value: float, number: Number) -> bool:
    return math.isclose(abs(value), number.value, rel_tol=1e-9)


def computes(cell: NotebookNode, number: Number, in_per_cent: bool, near: bool) -> str | None:
    """How a cell computes a number: "prints 0.953", "has 64"; None if it does not.

    A number of two digits is like so many others that only a cell near it may have it rounded; one of a
    single digit must be just that.
    """
    digits = number.value * 10**number.decimals
    matches = rounds_to if digits >= 100 or (near and (digits >= 10 or number.percent)) else is_exactly
    for output in printed(cell):
        factors = [1.0]
        if (number.percent or in_per_cent) and not output.percent:
            factors.append(100.0)
        if any(matches(factor * output.value, number) for factor in factors):
            return f"prints {output.value:g}{' %' if output.percent else ''}"
    for value in constants(cell.source):
        factors = [1.0, 100.0] if number.percent else [1.0]
        if any(is_exactly(factor * value, number) for factor in factors):
            return f"has {value:g}"
    return None


def read_sources(path: Path = SOURCES) -> dict[str, list[Source]]:
    """The entries of numbers.toml, by chapter."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    sources: dict[str, list[Source]] = {}
    for chapter, list_ in entries.items():
        sources[chapter] = []
        for entry in list_:
            given = {key: entry[key] for key in KINDS if key in entry}
            if set(entry) - {"phrase"} != set(given) or len(given) != 1:
                raise ValueError(
                    f"{path.name}, chapter {chapter}: an entry has a phrase and one source: {entry}"
                )
            ((kind, text),) = given.items()
            values = []
            if kind == "arithmetic":
                for expression in text.split(";"):
                    value = evaluated(ast.parse(expression.strip(), mode="eval").body)
                    if value is None:
                        raise ValueError(f"{path.name}, chapter {chapter}: not arithmetic: {expression}")
                    values.append(value)
            elif kind == "repeat":
                values = repeated(chapter, text, path.parent / "repeated")
            sources[chapter].append(Source(entry["phrase"], kind, text, values))
    return sources


def repeated(chapter: str, name: str, folder: Path) -> list[float]:
    """All numbers that repeats.py found for a chapter under a name."""
    found = json.loads((folder / f"{chapter}.json").read_text(encoding="utf-8"))
    return [value for row in found[name].values() for value in row.values()]


@dataclass(frozen=True)
class Finding:
    """A number in a chapter's prose: its surroundings, and its source if it has one."""

    chapter: str
    context: str
    source: str | None


def findings(notebook: NotebookNode, chapter: str, sources: list[Source]) -> Iterator[Finding]:
    """Each number of a chapter's prose."""
    cells = notebook.cells
    for index, cell in enumerate(cells):
        if cell.cell_type != "markdown":
            continue
        text = REFERENCES.sub("", cell.source)
        if exercise := re.search(r"^### Exercise", text, re.MULTILINE):
            text = text[: exercise.start()]
        in_per_cent = "per cent" in text or "%" in text
        phrases = [
            (found.start(), found.end(), source)
            for source in sources
            for found in source.pattern.finditer(text)
        ]
        for number in in_the_prose(text):
            context = " ".join(text[max(0, number.start - 60) : number.end + 40].split())
            yield Finding(chapter, context, source_of(number, index, cells, phrases, in_per_cent))


def source_of(
    number: Number,
    index: int,
    cells: list[NotebookNode],
    phrases: list[tuple[int, int, Source]],
    in_per_cent: bool,
) -> str | None:
    for start, end, source in phrases:
        if start <= number.start and number.end <= end:
            if source.values and not any(rounds_to(value, number) for value in source.values):
                continue  # it is another number than those that are computed
            source.covered.append(number)
            return f"{source.kind}: {source.text}"
    code = [other for other, cell in enumerate(cells) if cell.cell_type == "code"]
    for other in sorted(code, key=lambda other: abs(other - index)):
        if how := computes(cells[other], number, in_per_cent, near=abs(other - index) <= NEAR):
            return f"cell [{cells[other].execution_count}] {how}"
    return None


def unneeded(sources: list[Source]) -> Iterator[str]:
    """What of the entries of a chapter, whose numbers have been found, serves none of them."""
    for source in sources:
        if not source.covered:
            yield f"no number is in {source.phrase!r}"
        for value in source.values if source.kind == "arithmetic" else []:
            if not any(rounds_to(value, number) for number in source.covered):
                yield f"no number in {source.phrase!r} is {value:g}"


def chapter_findings(path: Path, sources: list[Source]) -> list[Finding]:
    notebook = nbformat.v4.reads(path.read_text(encoding="utf-8"))
    return list(findings(notebook, path.name[:2], sources))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Find the source of every number in the chapters' prose.")
    parser.add_argument(
        "chapters", nargs="*", metavar="NN", help="numbers of chapters; all when none is given"
    )
    parser.add_argument("--list", action="store_true", help="show all numbers, each with its source")
    options = parser.parse_args(arguments)

    sources = read_sources()
    total, problems = 0, []
    for path in sorted(CHAPTERS.glob("[0-9][0-9]_*.ipynb")):
        chapter = path.name[:2]
        if options.chapters and chapter not in options.chapters:
            continue
        entries = sources.get(chapter, [])
        for finding in chapter_findings(path, entries):
            total += 1
            if options.list:
                print(f"{chapter}  ... {finding.context} ...\n        {finding.source or 'NO SOURCE'}")
            if finding.source is None:
                problems.append(f"chapter {chapter}: no source for ... {finding.context} ...")
        problems += [f"chapter {chapter}, {SOURCES.name}: {problem}" for problem in unneeded(entries)]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{total} numbers, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
