"""Drawings made by hand: SVG elements in which all text is escaped, and pictures of them.

A figure stretches to the width it is given while its text keeps its size: places along x are percentages, and a path,
which cannot have such, lies in a view box of its own that is stretched (see ``stretched``). Vega draws a chart in 60 ms
after 1.5 s of start; one of these takes under one, which a replay of a year of pages is the better for.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from markupsafe import Markup, escape

# The width of a stretched view box; a picture of this width shows its strokes as they are.
WIDE = 1000
_SIDE, _GAP, _TOP = 300, 14, 40
# What the dialog of the Dagster UI shows without scrolling sideways.
_SHOWN_WIDTH = 1080

# What XML cannot hold, and what turns the order of the letters around it: shown as the sign for an unknown letter.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_LONGEST_TEXT = 1500


def shown(text: str) -> str:
    r"""Return foreign text as it may stand on a page: no control characters, and of a bounded length.

    >>> shown("car\u202erier"), len(shown("x" * 10_000))
    ('car\ufffdrier', 1501)
    """
    clean = _clean(text)
    return clean if len(clean) <= _LONGEST_TEXT else f"{clean[:_LONGEST_TEXT]}\N{HORIZONTAL ELLIPSIS}"


def _clean(text: str) -> str:
    return _UNSHOWABLE.sub("\N{REPLACEMENT CHARACTER}", text.encode("utf-8", "replace").decode())


def number(value: float) -> str:
    """Write a coordinate as short as it can be with two decimals.

    >>> number(12.0), number(3.14159), number(-0.001)
    ('12', '3.14', '0')
    """
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def element(tag: str, *content: str, **attributes: str | float | None) -> Markup:
    """Return an SVG element. Text and values are escaped; an underscore in a name stands for a hyphen.

    >>> str(element("text", "<b>", x=1.5, text_anchor="middle", class_=None))
    '<text x="1.5" text-anchor="middle">&lt;b&gt;</text>'
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_clean(value) if isinstance(value, str) else number(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    inner = "".join(part if isinstance(part, Markup) else escape(shown(part)) for part in content)
    # Tags and names of attributes are this package's own; everything else is escaped above.
    return Markup(f"<{tag}{written}>{inner}</{tag}>" if inner else f"<{tag}{written}/>")  # noqa: S704


def percent_of_width(share: float) -> str:
    """Write a place along x: ``share`` 0 is the left edge, 1 the right one."""
    return f"{number(100 * share)}%"


def stretched(*paths: Markup, wide: float = WIDE, high: float) -> Markup:
    """Return paths in a box that is stretched to the figure's width; their strokes keep their thickness."""
    box = f"0 0 {number(wide)} {number(high)}"
    return element(
        "svg", *paths, width="100%", height=high, viewBox=box, preserveAspectRatio="none", overflow="visible"
    )


def stroke(d: str, kind: str) -> Markup:
    """Return a line along a path, of a class of the style sheet."""
    return element("path", d=d, class_=kind, vector_effect="non-scaling-stroke")


def figure(*content: Markup, high: float, title: str, description: str = "", kind: str = "lane") -> Markup:
    """Return a figure as wide as its place; title and description are what it says to those who do not see it."""
    words = [element("title", title), *([element("desc", description)] if description else [])]
    return element("svg", *words, *content, class_=kind, width="100%", height=high, role="img")


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One row of a picture: its name at the side, the drawing, its height, and the style and name of each line."""

    name: str
    drawing: Markup
    high: float
    keys: Sequence[tuple[str, str]] = ()


def picture(title: str, strips: Sequence[Strip]) -> str:
    """Draw figures below each other, of one width, as a picture inside Markdown, which the Dagster UI shows.

    It stays an SVG: a quarter of the bytes of a PNG, sharp at any size, and as a picture it runs nothing.
    """
    y, rows = float(_TOP), list[Markup]()
    for strip in strips:
        name = strip.name if len(strip.name) <= 46 else f"{strip.name[:45]}\N{HORIZONTAL ELLIPSIS}"
        rows.append(element("text", name, x=12, y=y + min(strip.high, 14.0) - 2, class_="side"))
        for i, (style, words) in enumerate(strip.keys if len(strip.keys) > 1 else ()):
            middle = y + 28 + 16 * i
            rows.append(element("line", x1=12, x2=30, y1=middle, y2=middle, class_=f"line s-{style}"))
            rows.append(element("text", words, x=36, y=middle + 4, class_="date"))
        rows.append(element("svg", strip.drawing, x=_SIDE, y=y, width=WIDE, height=strip.high, overflow="visible"))
        y += strip.high + (2 if strip.high < 20 else _GAP)
    drawing = element(
        "svg",
        element("style", Markup(_light_style())),  # noqa: S704 - a file of this package
        element("rect", width="100%", height="100%", fill="#ffffff"),
        element("text", title, x=12, y=24, class_="head"),
        *rows,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_SIDE + WIDE + 24} {number(y + 8)}",
        width=_SHOWN_WIDTH,
        height=(y + 8) * _SHOWN_WIDTH / (_SIDE + WIDE + 24),
    )
    alternative = re.sub(r"[\[\]()!<>\n]", " ", shown(title))
    return f"![{alternative}](data:image/svg+xml;base64,{b64encode(str(drawing).encode()).decode()})"


@cache
def _light_style() -> str:
    """Return the rules of the page's style sheet that are for figures, with the light colours in place."""
    sheet = (files("ml_assets.core.reports") / "templates" / "report.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"(--[\w-]+):\s*(#[0-9a-f]{6})", sheet[: sheet.index("@media")]))
    rules = sheet[sheet.index("/* figures */") : sheet.index("/* end of figures */")]
    return re.sub(r"var\((--[\w-]+)\)", lambda found: colours[found[1]], rules)
