"""JupyterLab as `make book` starts it, for tests."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import build


@contextmanager
def jupyterlab(
    clone: Path, folder: Path, *options: str, settings: Mapping[str, Any] | None = None
) -> Iterator[Callable[[str], str]]:
    """Run `chapters/open_book.py` of a clone; yields what makes of a path on the server an address.

    The reader's settings neither matter nor change: those of the server, and its log, are in `folder`.
    """
    defaults = folder / "config" / "labconfig" / "default_setting_overrides.json"
    defaults.parent.mkdir(parents=True)
    defaults.write_text(json.dumps(settings or {}))
    environment = dict(os.environ)
    build.hide_the_machine(environment)
    for kind in ("config", "data", "runtime"):
        environment[f"JUPYTER_{kind.upper()}_DIR"] = str(folder / kind)
    environment["IPYTHONDIR"] = str(folder / "ipython")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex()
    command = [sys.executable, clone / "chapters" / "open_book.py", "--no-browser", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", *options]

    def address(path: str) -> str:
        return f"http://127.0.0.1:{port}{path}?token={token}"

    log = folder / "log"
    with log.open("w") as file:
        server = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        wait_for(address("/api/status"), server, log)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    """Until a server that may still be starting answers."""
    for _ in range(240):
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(address):
                return
        except urllib.error.URLError:
            time.sleep(0.25)
    raise AssertionError(log.read_text())
