"""What of a chapter's text is prose: Markdown with code, formulas and the targets of links blanked out.

Blanks are as long as what they replace, so that a place in the prose is the same place in the Markdown.
"""

from __future__ import annotations

import re

FENCE = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n[ \t]*\n).)+?(?<!`)(?P=ticks)(?!`)", re.DOTALL)
DISPLAY = re.compile(r"\$\$.+?\$\$", re.DOTALL)
INLINE = re.compile(r"(?<![\\$])\$(?!\$)(?:(?!\n[ \t]*\n)[^$])+?\$")
TARGET = re.compile(r"(?<=\])\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*\)")
ADDRESS = re.compile(r"https?://\S+")


def blanked(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", found[0])


def without_code(markdown: str) -> str:
    """The Markdown with blanks for code."""
    return CODE.sub(blanked, FENCE.sub(blanked, markdown))


def without_formulas(markdown: str) -> str:
    """The Markdown with blanks for formulas, where there is no code any more."""
    return INLINE.sub(blanked, DISPLAY.sub(blanked, markdown))


def without_links(markdown: str) -> str:
    """The Markdown with blanks for the targets of links; their texts stay."""
    return ADDRESS.sub(blanked, TARGET.sub(blanked, markdown))


def prose(markdown: str) -> str:
    """The Markdown with blanks for code, formulas and the targets of links."""
    return without_links(without_formulas(without_code(markdown)))


def words(markdown: str) -> str:
    """The prose as one line, without the signs of emphasis."""
    return " ".join(re.sub(r"\*+", "", prose(markdown)).split())
