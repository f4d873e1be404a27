"""A headless Chromium for tests of pages, and a proxy that sees what it would fetch."""

import json
import os
import re
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (  # no traffic of its own
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps"),
    *("--no-first-run", "--no-default-browser-check", "--disable-domain-reliability", "--disable-extensions"),
    *("--disable-client-side-phishing-detection", "--metrics-recording-only", "--no-pings"),
    "--disable-features=NetworkTimeServiceQuerying,OptimizationHints,MediaRouter,Translate,AutofillServerCommunication",
)
MEASURE = """<script>addEventListener("load", () => {
  const boxes = [...document.querySelectorAll("img, svg")].map(e => {
    const r = e.getBoundingClientRect();
    return [r.width, r.height, e.naturalWidth ?? r.width, e.naturalHeight ?? r.height];
  });
  const told = {boxes, width: innerWidth, needs: document.documentElement.scrollWidth, title: document.title};
  parent.postMessage(JSON.stringify(told), "*");
});</script>"""
FRAME = """<!DOCTYPE html><body><script>
addEventListener("message", e => document.body.setAttribute("data-measured", e.data));
</script><iframe src="measured.html" width="{width}" height="900" style="border: 0"></iframe></body>"""


def find_chromium() -> str:
    """The browser: $CHROMIUM, else the first on the PATH; the test is skipped where there is none."""
    given = os.environ.get("CHROMIUM")
    found = shutil.which(given) if given else next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip("no Chromium (set CHROMIUM to its path)")
    return found


def browse(page: Path, folder: Path, *options: str, port: int | None = None) -> str:
    """Open a page with a profile of its own in `folder`; what Chromium prints. `port`: every request goes there."""
    proxy = [f"--proxy-server=http://127.0.0.1:{port}", "--proxy-bypass-list=<-loopback>"] if port else []
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # root has none
    words = [find_chromium(), "--headless=new", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"]
    words += [*sandbox, f"--user-data-dir={folder / 'profile'}", *QUIET, *proxy, *options, page.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def measure(html: str, folder: Path, width: int = 1280, port: int | None = None) -> dict[str, Any]:
    """Sizes of what is drawn, in a copy of the page that may run our script: its own policy forbids any."""
    copy = folder / "measured.html"
    copy.write_text(without_policy(html).replace("</body>", MEASURE + "</body>"), encoding="utf-8")
    frame = folder / "frame.html"  # a window of its own is never narrower than 500 pixels
    frame.write_text(FRAME.format(width=width), encoding="utf-8")
    dom = browse(frame, folder, "--dump-dom", "--virtual-time-budget=10000", "--window-size=1400,1000", port=port)
    return json.loads(unescape(re.search(r'data-measured="([^"]*)"', dom).group(1)))


def without_policy(html: str) -> str:
    """The page without its Content-Security-Policy."""
    page, removed = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    assert removed == 1
    return page


@contextmanager
def listening() -> Iterator[tuple[int, list[str]]]:
    """A proxy on this machine: its port, and the first line of each request that arrives; nothing is answered."""
    seen: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            line = self.rfile.readline().decode("latin-1").strip()
            if line:  # Chromium also opens connections ahead, and closes them without a request
                seen.append(line)
            self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1], seen
        finally:
            server.shutdown()
