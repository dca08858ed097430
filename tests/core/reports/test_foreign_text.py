"""Text from the data stays text: whatever a category, a feature, a reason or a run is called, nothing of it runs."""

import base64
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ml_assets.core.reports.overview import overview_pictures
from tests.core.reports.world import Names, Page, World

PAYLOADS = {
    "a script": "<script>document.title='owned'</script>",
    "an image": '"><img src=x onerror="document.title=\'owned\'">',
    "a quote": "' onmouseover='document.title=1' x='",
    "a link": "javascript:document.title='owned'",
    "the end of an svg": "</svg><script>document.title='owned'</script><svg onload=\"document.title='owned'\">",
    "the end of a title": "</title></desc></style><svg/onload=document.title='owned'>",
    "a template": "{{ 7 * 7 }}{% raw %}${7*7}",
    "markdown": "](javascript:alert(1)) ![x](https://example.org/x.png)",
    "entities": "&lt;script&gt; &#x3c;script&#x3e; &amp;amp;",
    "wide letters": "\uff1cscript\uff1e \u2039script\u203a",
    "an order turned round": "abc\u202e>tpircs<\u202c\u2066def\u200f",
    "control characters": "a\x00b\x0bc\x1bd\x7fe\ufffe",
    "a comment": "--><!-- <![CDATA[ ]]> <!DOCTYPE x>",
    "surrogates and joiners": "e\u0301\u0301\u0301\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "ten thousand letters": "<b>" + "x" * 10_000,
}
PAGES = ("day", "overview")
DRAWN = {"svg", "style", "title", "desc", "g", "path", "rect", "line", "circle", "text"}


def page_of(world: World, kind: str) -> str:
    return world.day_page(links={world.names.run: "https://example.org/"}) if kind == "day" else world.overview_page()


@pytest.fixture(scope="module")
def plain() -> World:
    return World(Names.all("harmless"))


@pytest.mark.parametrize("kind", PAGES)
@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_no_element_and_no_attribute_comes_from_the_data(plain: World, payload: str, kind: str):
    found, expected = Page(page_of(World(Names.all(payload)), kind)), Page(page_of(plain, kind))
    # The very same elements with the very same attributes as of a harmless name, in number and in kind.
    assert Counter(found.elements) == Counter(expected.elements)
    assert Counter(name for name, _ in found.attributes) == Counter(name for name, _ in expected.attributes)
    assert not [name for name, _ in found.attributes if name.startswith("on") or name in ("style", "src", "srcset")]
    assert found.of("href") == expected.of("href")


@pytest.mark.parametrize("payload", ["<script>x</script>", '"><img src=x>'])
def test_the_payload_is_there_to_be_read(payload: str):
    for kind in PAGES:
        text = Page(page_of(World(Names.all(payload)), kind)).text
        assert text.count(payload) >= 10


def test_a_long_name_is_cut_and_an_unshowable_letter_shown_as_such():
    long, turned = (
        World(Names.all(PAYLOADS["ten thousand letters"])),
        World(Names.all(PAYLOADS["an order turned round"])),
    )
    for kind in PAGES:
        assert len(page_of(long, kind)) < 200_000
        assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f]", page_of(turned, kind))
    assert "abc\N{REPLACEMENT CHARACTER}>tpircs<" in Page(page_of(turned, "day")).text


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_a_picture_for_the_ui_is_drawn_and_its_markdown_is_one_picture(payload: str):
    world = World(Names.all(payload))
    for text in overview_pictures(world.overview()).values():
        found = re.fullmatch(r"!\[[^\[\]()<>]*\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", text)
        assert found
        # XML is stricter than HTML: one control character, and the picture is none.
        drawing = ElementTree.fromstring(base64.b64decode(found[1]))
        assert {element.tag.rpartition("}")[2] for element in drawing.iter()} <= DRAWN
        assert not [name for element in drawing.iter() for name in element.attrib if name.startswith("on")]


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_needs_nothing_but_itself(plain: World, kind: str):
    html = plain.day_page() if kind == "day" else plain.overview_page()
    page = Page(html)
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "script" not in policy
    assert not page.of("src")
    assert not page.of("href")
    assert not page.of("xlink:href")
    assert "@import" not in html
    assert "url(" not in html
    assert len(set(page.of("id"))) == len(page.of("id"))


def test_nothing_runs_in_a_browser(tmp_path: Path):
    """With a policy that would let it: only the escaping stands between the data and the page."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no Chromium on this machine")
    world = World(Names.all("".join(PAYLOADS[name] for name in PAYLOADS if name != "ten thousand letters")[:590]))
    for kind in PAGES:
        html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page_of(world, kind))
        path = tmp_path / f"{kind}.html"
        path.write_text(html, encoding="utf-8")
        found = subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *(f"--user-data-dir={tmp_path / f'profile-{kind}'}", "--dump-dom", path.as_uri()),
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        rendered = Page(found)
        expected = Page(html)
        assert "<title>owned</title>" not in found
        assert Counter(rendered.elements)["script"] == Counter(expected.elements)["script"] == 0
        assert Counter(rendered.elements)["img"] == 0
        assert not [name for name, _ in rendered.attributes if name.startswith("on")]
