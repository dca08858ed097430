"""One HTML page that needs nothing but itself: templates, style and the rules that keep foreign text inert."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import jinja2
from markupsafe import Markup

from ml_assets.core.drift import percent
from ml_assets.core.errors import BadInput
from ml_assets.core.reports.charts import Spec, chart_svg
from ml_assets.core.reports.svg import shown

_TEMPLATES = files("ml_assets.core.reports") / "templates"
_SCHEMES = ("http://", "https://", "file://", "s3://", "gs://", "/", "./", "../", "#")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawn chart, its title and a sentence on how to read it; ``keys`` are the style and name of each line."""

    title: str
    svg: Markup
    caption: str
    keys: Sequence[tuple[str, str]] = ()


def render(template: str, *, script_file: str = "", **values: object) -> str:
    """Fill a template. All text is escaped; only drawings made by this package may be passed as Markup.

    The page's content security policy allows its one style sheet, and ``script_file`` of the templates where one is
    named, each by hash, and nothing else: no request.
    """
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    script = (_TEMPLATES / script_file).read_text(encoding="utf-8") if script_file else ""
    policy = f"default-src 'none'; style-src '{_hash(style)}'; base-uri 'none'; form-action 'none'"
    policy += f"; script-src '{_hash(script)}'" if script else ""
    # Style sheet and script are files of this package, not foreign text.
    files = {"style": Markup(style), "script": Markup(script)}  # noqa: S704
    return _environment().get_template(template).render(**files, policy=policy, **values)


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def checked_links(links: Mapping[str, str]) -> Mapping[str, str]:
    """Return links unchanged; raise BadInput for an address a click could run as a script."""
    for name, address in links.items():
        if not address.startswith(_SCHEMES):
            raise BadInput(f"the link {name!r} leads to {address!r}; expected an address that begins with {_SCHEMES}")
    return links


def draw(title: str, spec: Spec, caption: str) -> Chart:
    """Draw a chart to be placed on the page."""
    svg = chart_svg(spec, name=re.sub(r"[^a-z0-9]+", "-", title.lower()))
    # Vega escapes all text of the chart.
    return Chart(title=title, svg=Markup(svg), caption=caption)  # noqa: S704


def count(value: int) -> str:
    """Write a count for people, thousands apart."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ml_assets.core.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_readable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "number": _number, "count": count}
    return environment


def _readable(value: object) -> object:
    """Keep a percent sign on the line of its number, and text from data within bounds; drawings are as they are."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return shown(value).replace(" %", "\N{NO-BREAK SPACE}%")


def _percent(share: float | None) -> str:
    return "\N{EM DASH}" if share is None else percent(share)


def _number(value: float | None, digits: int = 3) -> str:
    return "\N{EM DASH}" if value is None else f"{value:.{digits}f}"
