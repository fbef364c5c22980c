"""Rows of tokens coloured by a number each, as one self-contained SVG file.

Colours run from red (negative) over near white (0) to blue (positive), with the number under
every token, so that the picture also reads without colour.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap

Colour = tuple[int, int, int]
_RED, _WHITE, _BLUE = (178, 24, 43), (247, 247, 247), (33, 102, 172)
_INK, _GREY = "#1f2328", "#57606a"
_WIDTH, _MARGIN = 960, 24
_CHARACTER = 8.0
"""Width of a character of a token. Text is set to it whatever the viewer's font."""
_DIGIT = 6.7
_BOX, _LINE = 34, 42
"""Heights of a token's box, and of a line of boxes with the gap below it."""
_STEPS = 40
"""Rectangles that the legend's colour bar is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """One response: its heading, the text of each token and the number of each."""

    title: str
    tokens: Sequence[str]
    """As decoded, a leading space included: it shows as a gap before the token."""
    values: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Legend:
    """What the numbers are, and what their two signs mean."""

    title: str
    negative: str
    positive: str


def token_picture(
    rows: Sequence[TokenRow], legend: Legend, *, context: str, notes: Sequence[str]
) -> str:
    """Return the SVG text: legend, ``context`` (what came before), rows, ``notes`` below.

    The colours end at the smallest round number that holds nine tenths of the values; the
    legend says so where values lie beyond it.
    """
    values = [value for row in rows for value in row.values]
    bound = colour_bound(values)
    body = _Body()
    body.text(legend.title, size=18, bold=True, after=16)
    body.legend(legend, bound, clipped=max(map(abs, values)) > bound)
    for line in context.strip().splitlines():
        for part in wrap(line, 118):
            body.text(part, size=13, colour=_GREY)
    for row in rows:
        body.y += 14
        body.text(row.title, size=14, bold=True, after=8)
        body.boxes(row, bound)
    body.y += 6
    for note in notes:
        for part in wrap(note, 128):
            body.text(part, size=12, colour=_GREY)
    return body.document(legend.title)


def colour_bound(values: Sequence[float]) -> float:
    """Return the value of full colour: 1, 2 or 5 times a power of ten.

    >>> colour_bound([0.1, -0.7, 1.4, 0.0])
    2.0
    """
    ordered = sorted(map(abs, values))
    enough = max(ordered[math.ceil(0.9 * len(ordered)) - 1], 1e-6)
    decade = 10.0 ** math.floor(math.log10(enough))
    return next(step * decade for step in (1, 2, 5, 10) if step * decade >= enough * (1 - 1e-9))


def colour_of(value: float, bound: float) -> Colour:
    """Return the red, green and blue of a value, full at ``bound`` and beyond."""
    strength = min(abs(value) / bound, 1.0)
    end = _BLUE if value > 0 else _RED
    red, green, blue = (round(w + (e - w) * strength) for w, e in zip(_WHITE, end, strict=True))
    return red, green, blue


def signed(value: float, digits: int = 1) -> str:
    """Return the number with a sign, as it is printed: ``+0.3``, ``−1.2``, ``0.0``."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


class _Body:
    """Elements drawn so far, from the top down; ``y`` is where the next one begins."""

    def __init__(self) -> None:
        self.y = 20.0
        self._elements: list[str] = []

    def text(
        self, text: str, *, size: int, bold: bool = False, colour: str = _INK, after: int = 4
    ) -> None:
        """Add one line of running text."""
        self.y += size
        weight = "bold" if bold else "normal"
        self._elements.append(
            f'<text x="{_MARGIN}" y="{self.y:.1f}" font-size="{size}" font-weight="{weight}" '
            f'fill="{colour}">{escape(text)}</text>'
        )
        self.y += after

    def legend(self, legend: Legend, bound: float, *, clipped: bool) -> None:
        """Add the colour bar with its ends, its middle and what the signs mean."""
        left, width, height = 330.0, 300.0, 14
        for step in range(_STEPS):
            value = bound * (2 * (step + 0.5) / _STEPS - 1)
            # Half a pixel of overlap hides the seams.
            x, part = left + step * width / _STEPS, width / _STEPS + 0.5
            self._rectangle(x, self.y, part, height, colour_of(value, bound))
        low, high = ("≤ ", "≥ ") if clipped else ("", "")
        digits = 0 if bound >= 1 else 2
        for tick, share in (
            (low + signed(-bound, digits), 0.0),
            ("0", 0.5),
            (high + signed(bound, digits), 1.0),
        ):
            self._label(tick, left + share * width, self.y + height + 14, anchor="middle")
        self._label(legend.negative, left - 12, self.y + 12, anchor="end")
        self._label(legend.positive, left + width + 12, self.y + 12, anchor="start")
        self.y += height + 28

    def boxes(self, row: TokenRow, bound: float) -> None:
        """Add a row's tokens, as many to a line as fit."""
        placed = list(_placed(row))
        for x, line, width, text, value in placed:
            top, middle = self.y + line * _LINE, x + width / 2
            colour = colour_of(value, bound)
            self._rectangle(x, top, width, _BOX, colour)
            self._fixed(text, (middle, top + 16), size=13, pitch=_CHARACTER, ink=_ink_on(colour))
            number = signed(value)
            self._fixed(number, (middle, top + 29), size=11, pitch=_DIGIT, ink=_ink_on(colour))
        self.y += _LINE * (placed[-1][1] + 1)

    def document(self, title: str) -> str:
        """Return everything, on a light ground so that it reads on a dark page."""
        height = math.ceil(self.y + 16)
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
                f'viewBox="0 0 {_WIDTH} {height}" role="img" '
                'font-family="Helvetica, Arial, DejaVu Sans, sans-serif">',
                f"<title>{escape(title)}</title>",
                f'<rect width="{_WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
                *self._elements,
                "</svg>\n",
            ]
        )

    def _rectangle(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        red, green, blue = colour
        self._elements.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" '
            f'fill="#{red:02x}{green:02x}{blue:02x}"/>'
        )

    def _label(self, text: str, x: float, y: float, *, anchor: str) -> None:
        self._elements.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" text-anchor="{anchor}" '
            f'fill="{_INK}">{escape(text)}</text>'
        )

    def _fixed(
        self, text: str, at: tuple[float, float], *, size: int, pitch: float, ink: str
    ) -> None:
        """Add text of a fixed width, so that no font can make it run into its neighbour."""
        x, y = at
        self._elements.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="middle" '
            f'font-family="Menlo, Consolas, DejaVu Sans Mono, monospace" fill="{ink}" '
            f'textLength="{len(text) * pitch:.1f}" lengthAdjust="spacingAndGlyphs">'
            f"{escape(text)}</text>"
        )


def _placed(row: TokenRow) -> Iterator[tuple[float, int, float, str, float]]:
    """Yield x, line, width, text and value of each token's box."""
    x, line = float(_MARGIN), 0
    for token, value in zip(row.tokens, row.values, strict=True):
        text = _visible(token)
        width = 8 + max(len(text) * _CHARACTER, len(signed(value)) * _DIGIT)
        gap = 7.0 if token[:1].isspace() and x > _MARGIN else 1.0
        if x + gap + width > _WIDTH - _MARGIN:
            x, line, gap = float(_MARGIN), line + 1, 0.0
        yield x + gap, line, width, text, value
        x += gap + width


def _visible(token: str) -> str:
    """Return a token as it can be drawn: no outer blanks, no control characters."""
    text = token.replace("\n", "↵").strip(" ") or "␣"
    return "".join(c if c.isprintable() else "�" for c in text)


def _ink_on(ground: Colour) -> str:
    """Return black or white, whichever reads better on a colour."""
    red, green, blue = ground
    return _INK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"
