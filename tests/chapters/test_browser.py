"""The chapters in JupyterLab, in headless Chromium and without a network: they render, they run, and their
sliders move.

CHROMIUM names the browser, which is otherwise the `chromium` that is on the PATH. Of a notebook whose test
failed, build/browser keeps a picture.
"""

import os
import shutil
from contextlib import contextmanager, suppress
from itertools import chain

import nbformat
import pytest

import build
import formulas
from lab import jupyterlab

playwright = pytest.importorskip("playwright.sync_api", exc_type=ImportError)
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH, and CHROMIUM names none")

FLAGS = (
    "--headless",
    "--no-sandbox",  # which asks for rights that containers do not have
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
SETTINGS = {
    # All cells are on the page, also those out of sight.
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}
LAPTOP = {"width": 1280, "height": 800}
MINUTE = 60_000  # in Playwright's milliseconds
PICTURES = build.CHAPTERS.parent / "build" / "browser"
PAGES = [
    path.relative_to(build.CHAPTERS).as_posix()
    for path in chain(
        *(sorted(build.CHAPTERS.glob(p)) for p in ("*.ipynb", "solutions/*.ipynb", "README.md"))
    )
]
SLIDERS = "11_thin_plate_splines.ipynb"

# Notebooks that are only looked at share a kernel: to start one for each would take a second. The server
# remembers it for each of them, so that those that are run are copies, which it has not seen.
START = """async () => {
    await jupyterapp.restored;
    window.kernel = await jupyterapp.serviceManager.kernels.startNew({name: "python3"});
}"""
OPEN = """async ([path, fresh]) => {
    const options = {path, factory: path.endsWith(".ipynb") ? "Notebook" : "Markdown Preview"};
    if (fresh) options.path = (await jupyterapp.serviceManager.contents.copy(path, "")).path;
    else options.kernelPreference = {id: kernel.id, shutdownOnDispose: false};
    window.panel = await jupyterapp.commands.execute("docmanager:open", options);
    await panel.context.ready;
    await panel.sessionContext?.ready;
}"""
CLOSE = """async () => {
    const own = panel.sessionContext && panel.sessionContext.session.kernel.id !== kernel.id;
    if (own) await panel.sessionContext.shutdown();
    panel.dispose();
}"""
HEIGHT = """() => {
    const panel = window.panel ?? {node: document.body, content: {node: document.body}};
    return (panel.node.querySelector(".jp-WindowedPanel-outer") ?? panel.content.node).scrollHeight;
}"""
RENDERED = """expected => {
    const count = selector => panel.node.querySelectorAll(selector).length;
    const images = [...panel.node.querySelectorAll("img")].filter(image => image.complete);
    return count(".jp-RenderedMarkdown") >= expected.texts && count("mjx-container") >= expected.formulas
        && images.length >= expected.pictures;
}"""
# What is counted, and what there should be none of.
SURVEY = r"""() => {
    const all = selector => [...panel.node.querySelectorAll(selector)];
    const start = element => element.textContent.trim().slice(0, 80);
    const prose = text => {
        const copy = text.cloneNode(true);
        copy.querySelectorAll("mjx-container, code").forEach(element => element.remove());
        return copy.textContent;
    };
    const texts = all(".jp-RenderedMarkdown"), images = all("img");
    return {
        texts: texts.filter(text => text.textContent.trim()).length,
        code: all(".jp-CodeCell").length,
        formulas: all("mjx-container").length,
        pictures: images.length,
        not_rendered: all(".jp-MarkdownCell:not(.jp-mod-rendered)").map(start),
        not_typeset: all("mjx-merror, mtext[mathcolor='red']").map(start),  // red: an unknown command
        raw: texts.map(prose).flatMap(text => text.match(/.*(\$|\\[a-zA-Z]).*/g) ?? []),
        broken: images.filter(image => !image.naturalWidth).length,
        too_wide: [...texts, ...all(".jp-OutputArea-output")]
            .filter(element => element.scrollWidth > element.clientWidth + 1).map(start),
        dialogs: [...document.querySelectorAll(".jp-Dialog")].map(start),
    };
}"""
RUN = """() => {
    window.ran = null;
    jupyterapp.commands.execute("notebook:run-all-cells").then(whole => { window.ran = whole; });
}"""
OUTPUTS = """() => panel.content.widgets.map(cell => cell.model).filter(cell => cell.type === "code")
    .map(cell => ({count: cell.executionCount, outputs: cell.outputs.toJSON()}))"""
PICTURE = """async image => {
    const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
    return [image.src, image.naturalWidth, bytes.reduce((sum, byte) => (31 * sum + byte) | 0)];
}"""


class Lab:
    """A page with JupyterLab, on which one notebook at a time is open."""

    def __init__(self, page, address):
        self.page, self.address, self.troubles = page, address, []
        page.set_default_timeout(MINUTE)
        page.on("pageerror", lambda error: self.troubles.append(error.stack or str(error)))
        page.on("request", self.note_request)
        self.load()

    def note_request(self, request):
        if not request.url.startswith((self.address("/").partition("?")[0], "data:", "blob:")):
            self.troubles.append(f"asks the network for {request.url}")

    def load(self):
        self.page.goto(self.address("/lab"))
        self.page.wait_for_function("window.jupyterapp")
        self.page.evaluate(START)

    @contextmanager
    def opened(self, path, fresh=False):
        """Open a notebook or a text and see that nothing goes wrong on the page until it is closed.

        Fresh is a copy of it, on a kernel of its own.
        """
        self.troubles.clear()
        try:
            self.page.evaluate(OPEN, [path, fresh])
            yield
            assert self.troubles == []
        except BaseException:
            self.keep_picture(path)
            self.load()
            raise
        self.page.evaluate(CLOSE)

    def keep_picture(self, path):
        """Of all of it, as far as Chromium draws: to 16,384 pixels."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        height = min(self.page.evaluate(HEIGHT) + 100, 16_384)
        self.page.set_viewport_size({**LAPTOP, "height": height})
        self.page.screenshot(path=PICTURES / f"{path.replace('/', '_')}.png")
        self.page.set_viewport_size(LAPTOP)

    def run(self):
        """Run all cells of the open notebook; their numbers and outputs."""
        self.page.evaluate(RUN)
        self.page.wait_for_function("window.ran !== null", timeout=5 * MINUTE)
        return self.page.evaluate(OUTPUTS)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    clone = folder / "clone"
    shutil.copytree(
        build.CHAPTERS, clone / "chapters", ignore=shutil.ignore_patterns("__pycache__", "sources")
    )
    shutil.rmtree(PICTURES, ignore_errors=True)
    expose = "--LabApp.expose_app_in_browser=True"
    with (
        jupyterlab(clone, folder, expose, settings=SETTINGS) as address,
        playwright.sync_playwright() as browsers,
        browsers.chromium.launch(executable_path=CHROMIUM, args=FLAGS) as chromium,
    ):
        yield Lab(chromium.new_page(viewport=LAPTOP), address)


def cells_of(path):
    if path.endswith(".ipynb"):
        return nbformat.read(build.CHAPTERS / path, as_version=4).cells
    return [nbformat.v4.new_markdown_cell((build.CHAPTERS / path).read_text(encoding="utf-8"))]


def outputs_of(cells):
    return [output for cell in cells for output in cell.get("outputs", [])]


def pictures_in(outputs):
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", PAGES)
def test_renders(path, lab):
    cells = cells_of(path)
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    expected = {
        "texts": len(texts),
        "code": len(cells) - len(texts),
        "formulas": sum(kind == "formula" for text in texts for kind, _ in formulas.formulas(text)),
        "pictures": pictures_in(outputs_of(cells)),
        "broken": 0,
        **{fault: [] for fault in ("not_rendered", "not_typeset", "raw", "too_wide", "dialogs")},
    }
    with lab.opened(path):
        with suppress(playwright.TimeoutError):  # what is missing is said below
            lab.page.wait_for_function(RENDERED, arg=expected, timeout=MINUTE / 2)
        assert lab.page.evaluate(SURVEY) == expected


def assert_ran(path, cells):
    """From the first cell to the last, on a fresh kernel, with as many figures as before."""
    assert [cell["count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = outputs_of(cells)
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    assert pictures_in(outputs) == pictures_in(outputs_of(cells_of(path)))


@pytest.mark.parametrize("path", ["02_coordinates_and_grids.ipynb", "07_a_first_triton_kernel.ipynb"])
def test_runs(path, lab):
    with lab.opened(path, fresh=True):
        assert_ran(path, lab.run())


def test_sliders_change_the_picture(lab):
    with lab.opened(SLIDERS, fresh=True):
        assert_ran(SLIDERS, lab.run())
        image = lab.page.locator(".jp-OutputArea img.widget-image")
        sliders = lab.page.locator(".jp-OutputArea .widget-slider")
        assert sliders.count() == 3  # x, y and the smoothing
        for slider in sliders.all():
            before, value = image.evaluate(PICTURE), slider.inner_text()
            slider.get_by_role("slider").press("ArrowRight")
            lab.page.wait_for_function(
                "([image, src]) => image.src !== src", arg=[image.element_handle(), before[0]]
            )
            after = image.evaluate(PICTURE)
            assert after[1] == before[1] > 0  # as large as it was
            assert after[2] != before[2]
            assert slider.inner_text() != value


def test_a_link_leads_to_the_next_chapter(lab):
    first, second = PAGES[:2]
    with lab.opened(first):
        lab.page.locator(f".jp-MarkdownOutput a[href*='{second}']").last.click()
        lab.page.wait_for_function(
            "path => jupyterapp.shell.currentWidget.context?.path === path", arg=second
        )
