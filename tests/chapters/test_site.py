"""`make html` makes of every notebook a page that needs no network, and every link on it leads somewhere."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

import build

ROOT = build.CHAPTERS.parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
OPTIONS = re.search(r"-m sphinx (.*) -d build/doctrees chapters build/html$", MAKEFILE, re.MULTILINE)[1]
NOTEBOOKS = [
    path.relative_to(build.CHAPTERS)
    for pattern in ("*.ipynb", "solutions/*.ipynb")
    for path in sorted(build.CHAPTERS.glob(pattern))
]
NO_PROSE = {"code", "pre", "script", "style"}


class Page(HTMLParser):
    """What a page shows, loads and links to."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.ids, self.links, self.loaded, self.alternatives = set(), [], [], []
        self.following = None  # the next page in the reading order
        self.prose = ""  # the text that is not code
        self.depth = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        self.depth += tag in NO_PROSE
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        elif tag == "link" and attributes["rel"] in ("index", "next", "prev", "search"):
            self.links.append(attributes["href"])
            if attributes["rel"] == "next":
                self.following = self.file(attributes["href"])
        elif tag == "link":
            self.loaded.append(attributes["href"])
        elif "src" in attributes:
            self.loaded.append(attributes["src"])
        if tag == "img":
            self.alternatives.append(attributes.get("alt"))

    def handle_endtag(self, tag):
        self.depth -= tag in NO_PROSE

    def handle_data(self, data):
        if not self.depth:
            self.prose += data

    def file(self, address):
        """The file that a relative address names."""
        path = unquote(urlsplit(address).path)
        return (self.path.parent / path).resolve() if path else self.path


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder with the site, built as the Makefile does it."""
    folder = tmp_path_factory.mktemp("site").resolve()
    command = [
        sys.executable,
        "-m",
        "sphinx",
        *OPTIONS.split(),
        "-d",
        folder / "doctrees",
        "chapters",
        folder / "html",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html")}


def page_of(notebook, site):
    return (site / notebook).with_suffix(".html")


def test_pages_follow_one_another_in_the_books_order(site, pages):
    order = [site / "index.html", *(page_of(notebook, site) for notebook in NOTEBOOKS)]
    for page, following in pairwise(order):
        assert pages[page].following == following
    assert pages[order[-1]].following is None
    assert {path.name for path in set(pages) - set(order)} == {"genindex.html", "search.html"}


def test_nothing_is_loaded_from_elsewhere(site, pages):
    for page in pages.values():
        for address in page.loaded:
            assert not urlsplit(address).scheme, address
            assert not urlsplit(address).netloc, address
            assert page.file(address).is_relative_to(site)
            assert page.file(address).is_file(), f"{page.path.name} loads {address}"
    styles = list(site.rglob("*.css"))
    assert styles
    for style in styles:
        assert not re.search(r"@import|url\(\s*['\"]?(\w+:)?//", style.read_text(encoding="utf-8")), (
            style.name
        )


def test_links_and_anchors_resolve(site, pages):
    for page in pages.values():
        for address in page.links:
            link = urlsplit(address)
            assert link.scheme in ("", "http", "https"), address
            if not link.scheme:
                target = page.file(address)
                assert target in pages, f"{page.path.name} links to {address}"
                assert not link.fragment or unquote(link.fragment) in pages[target].ids, address


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=str)
def test_pictures_keep_their_alternative_texts(notebook, site, pages):
    cells = nbformat.read(build.CHAPTERS / notebook, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    expected = [
        output.metadata["image/png"]["alt"] for output in outputs if "image/png" in output.get("data", {})
    ]
    assert pages[page_of(notebook, site)].alternatives == expected


def test_the_first_pages_picture_has_an_alternative_text(site, pages):
    (alternative,) = pages[site / "index.html"].alternatives
    assert alternative.startswith("What a spatial transformer learned")


def test_mathematics_is_typeset_by_mathjax_of_the_site(site, pages):
    page = pages[site / "04_gradients.html"]
    (script,) = (page.file(address) for address in page.loaded if "mathjax" in address)
    assert script == site / "_static" / "mathjax" / "tex-chtml.js"
    assert list(script.parent.rglob("*.woff"))
    for page in pages.values():
        assert "$" not in page.prose, page.path.name
        assert r"\begin{split}" not in page.prose, page.path.name  # in which MathJax refuses \tag
