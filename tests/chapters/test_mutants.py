"""The mutator of `chapters/mutants.py`, and its list of faults. Planting them takes hours: `make mutants`."""

import ast
import itertools
import json
import warnings

import pytest

import mutants

SOURCE = '''"""A module."""

LIMIT = 3  # not in a function


def area(width: int, height: int = 2, *, signed: bool = False) -> int:
    """The area, 1 by 1."""
    assert width > 0
    if height < 0:
        raise ValueError(f"height should be at least 0, not {height + 1}")
    check_size(width, 4)
    total = 0
    for row in range(height):  # not 7 - 5
        total += width * (row - row + 1)
    if signed and width < height:
        return -total
    return max(
        total,
        0,
    )


class Shape:
    def __repr__(self) -> str:
        return "Shape" * 1

    def corners(self) -> list[int]:
        self.known = True
        return [sorted([1], reverse=True), self.known]
'''


def changes(source=SOURCE):
    return {(mutant.line, mutant.old, mutant.new) for mutant in mutants.mutants("area.py", source)}


def test_the_faults_of_a_small_file():
    of_lines = {}
    for line, _, new in changes():
        of_lines.setdefault(line, set()).add(new.replace("\n", " ").replace("    ", ""))
    header = "def area(width: int, height: int = {}, *, signed: bool = {}) -> int:"
    assert of_lines.pop(6) == {header.format(3, False), header.format(2, True)}
    assert of_lines.pop(12) == {"total = 1"}
    assert of_lines.pop(14) == {
        "pass",
        "total -= width * (row - row + 1)",
        "total += width / (row - row + 1)",
        "total += width * (row - row - 1)",
        "total += width * (row + row + 1)",
        "total += width * (row - row + 2)",
    }
    assert of_lines.pop(15) == {
        "if not (signed and width < height):",
        "if signed or width < height:",
        "if signed and width <= height:",
    }
    assert of_lines.pop(16) == {"return None", "return total"}
    assert of_lines.pop(17) == {"return None", "return min("}
    assert of_lines.pop(18) == {"0, total,", "total,"}
    assert of_lines.pop(19) == {"1,"}
    assert of_lines.pop(28) == {"pass", "self.known = False"}
    assert of_lines.pop(29) == {
        "return None",
        "return [sorted([2], reverse=True), self.known]",
        "return [sorted([1], reverse=False), self.known]",
        "return [sorted([1]), self.known]",
    }
    assert not of_lines


def test_a_fault_changes_one_place_and_parses():
    for mutant in mutants.mutants("area.py", SOURCE):
        planted = mutants.planted(SOURCE, mutant)
        ast.parse(planted)
        start, end = mutant.span
        assert planted != SOURCE
        assert planted.startswith(SOURCE[:start])
        assert planted.endswith(SOURCE[end:])
        assert len(planted) == len(SOURCE) - (end - start) + len(mutant.text)


def test_brackets_that_are_no_part_of_an_argument_stay():
    source = "def f(a):\n    return g((a), (a + 1), key=(a))\n"
    for mutant in mutants.mutants("f.py", source):
        ast.parse(mutants.planted(source, mutant))
    assert any(new == "return g((a + 1), (a), key=(a))" for _, _, new in changes(source))


def test_bytes_are_counted_not_letters():
    source = 'def f(a):\n    return "α", a + 1\n'
    assert (2, 'return "α", a + 1', 'return "α", a - 1') in changes(source)


def test_an_id_does_not_depend_on_what_stands_before():
    ids = {mutant.id for mutant in mutants.mutants("area.py", SOURCE)}
    moved = SOURCE.replace("LIMIT = 3", "LIMIT = 4\n\n\ndef first():\n    return 1")
    assert ids < {mutant.id for mutant in mutants.mutants("area.py", moved)}
    assert len(ids) == len(mutants.mutants("area.py", SOURCE))


def test_the_draw_is_the_same_each_time_and_weighs_lines_evenly():
    faults = mutants.mutants("area.py", SOURCE)
    assert [*mutants.drawn(faults)] == [*mutants.drawn(faults)]
    assert sorted(mutants.drawn(faults)) == sorted(faults)
    first = [next(mutants.drawn(faults, seed)).line for seed in range(2000)]
    lines = {fault.line for fault in faults}
    for line in lines:  # 2000 / 10, and five standard deviations
        assert abs(first.count(line) - 2000 / len(lines)) < 5 * (2000 / len(lines)) ** 0.5


def test_the_library_has_faults_of_every_kind():
    files = mutants.eligible_files()
    assert {"stn/warps.py", "stn/data/distortions.py", "kernels/stn_kernels/gather.py"} <= set(files)
    assert all((mutants.ROOT / file).exists() for file in mutants.NOT_ELIGIBLE)
    faults = mutants.all_mutants()
    assert len({fault.id for fault in faults}) == len(faults)
    assert {fault.kind for fault in faults} == {
        *("operator", "constant", "True or False", "function", "condition negated", "argument dropped"),
        *("arguments swapped", "sign or negation dropped", "statement deleted", "return replaced"),
    }
    for fault in itertools.islice(mutants.drawn(faults, seed=1), 50):
        source = (mutants.ROOT / fault.file).read_text(encoding="utf-8")
        ast.parse(mutants.planted(source, fault))


@pytest.fixture(scope="module")
def listed():
    return json.loads(mutants.LIST.read_text(encoding="utf-8"))


def test_the_list_says_what_became_of_each_fault(listed):
    standing = [fault for fault in listed["faults"] if "struck" not in fault]
    assert len(standing) == mutants.FAULTS
    assert listed["seed"] == mutants.SEED
    assert len({fault["id"] for fault in listed["faults"]}) == len(listed["faults"])
    for fault in listed["faults"]:
        assert fault["old"] != fault["new"]
        assert not ("struck" in fault and {"caught_by", "passed", "open"} & set(fault))
        assert fault.get("struck") != ""
        for notebook in (*fault.get("passed", []), *([fault["caught_by"]] if "caught_by" in fault else [])):
            assert (mutants.ROOT / notebook).exists()
    assert listed["caught"] == sum("caught_by" in fault for fault in standing)
    assert listed["open"] == sum("open" in fault for fault in standing)
    assert listed["of"] == len(standing)


def test_the_list_describes_this_library(listed):
    """A warning only: the list is of the library as it was measured, and --draw makes another."""
    there = {fault.id for fault in mutants.all_mutants()}
    if gone := [fault["id"] for fault in listed["faults"] if fault["id"] not in there]:
        warnings.warn(f"chapters/mutants.json: {len(gone)} faults are of an older library", stacklevel=1)
