"""A real headless Chromium that remembers what a page asked for and complained of."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

from orchestration.watch import TOOLS

_PARTS = TOOLS.parent / "lib/x86_64-linux-gnu"
"""Libraries that `make tools` unpacked beside the browser."""
_NEW = TOOLS.parent / "lib/chromium/chromium"


def find_chromium() -> str | None:
    """Return the browser of `make tools`, or the system's."""
    return str(_NEW) if _NEW.exists() else shutil.which("chromium")


class Opened:
    """A page, and what it did so far."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        """Errors of the console, and of scripts."""
        self.requests: list[str] = []
        page.on("console", lambda said: self._complain(said.text, said.type == "error"))
        page.on("pageerror", lambda error: self._complain(str(error), True))
        page.on("request", lambda request: self.requests.append(request.url))

    def _complain(self, text: str, is_error: bool) -> None:
        if is_error:
            self.complaints.append(text)

    def inked(self) -> list[int]:
        """Return of each picture how many of its pixels are neither white nor clear."""
        return self.page.eval_on_selector_all("img", _COUNT_INK)


_COUNT_INK = """images => images.map(image => {
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  let inked = 0;
  for (let i = 0; i < pixels.length; i += 4)
    if (pixels[i + 3] > 0 && pixels[i] + pixels[i + 1] + pixels[i + 2] < 700) inked += 1;
  return inked;
})"""


@contextmanager
def browser() -> Iterator[Opened]:
    """Start one, with an empty page."""
    libraries = f"{_PARTS}:{_PARTS / 'pulseaudio'}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=find_chromium(),
            args=["--no-sandbox", "--disable-gpu"],
            env={**os.environ, "LD_LIBRARY_PATH": libraries},
        )
        try:
            yield Opened(chromium.new_page(viewport={"width": 1200, "height": 900}))
        finally:
            chromium.close()
