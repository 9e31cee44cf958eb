"""Every rule of chapters/sanitize.cfg is one that nbval reads, does its work, and no more."""

import re
from pathlib import Path

import pytest
from nbval.plugin import get_sanitize_patterns

TEXT = (Path(__file__).parents[2] / "chapters" / "sanitize.cfg").read_text(encoding="utf-8")

# Section: (before, after), (text that must stay as it is, ...)
EXAMPLES = {
    "figure sizes": (
        ("<Figure size 640x480 with 12 Axes>", "<Figure with 12 Axes>"),
        ("<Figure size 640x480 with 0 Axes", "Figure size 640x480"),
    ),
    "negative zeros": (
        ("[-0.00, -0., -0]", "[0.00, 0., 0]"),
        ("-0.01", "-0.5", "-0.0e1", "1-0", "-01"),
    ),
}


def rules() -> dict[str, tuple[str, str]]:
    """The rules by section, through nbval's own parser."""
    sections = re.findall(r"^\[(.+)\]$", TEXT, re.MULTILINE)
    patterns = list(get_sanitize_patterns(TEXT))
    assert len(sections) == len(patterns) == len(re.findall("^(?:regex):", TEXT, re.MULTILINE))
    return dict(zip(sections, patterns, strict=True))


def test_nbval_reads_every_rule_and_each_has_an_example():
    assert list(rules()) == list(EXAMPLES)


@pytest.mark.parametrize("section", EXAMPLES)
def test_rule_replaces_what_it_should_and_nothing_else(section):
    regex, replacement = rules()[section]
    (before, after), untouched = EXAMPLES[section]
    assert re.sub(regex, replacement, before) == after
    for text in untouched:
        assert re.sub(regex, replacement, text) == text
