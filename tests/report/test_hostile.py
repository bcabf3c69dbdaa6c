"""Whatever stands in a result's texts, no format hands it on to a browser, terminal or renderer."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from pcapdiag.report import html, json, markdown, terminal
from pcapdiag.report.redact import redact

ATTACKS = (
    "<script>alert(1)</script>",
    "</title></style></script><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" style="color:red',
    "' autofocus onfocus='alert(1)",
    "javascript:alert(1)",
    "https://evil.example/?<b>",
    "{{ 7 * 7 }}{% raw %}",
    "\x1b[31mred\x1b[0m\x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "\x9b31mred\x9d0;title\x9c",
    "\x1bPpayload\x1b\\\x07\x08\x08\x08\r",
    "\u202egnp.exe\u2066hidden\u2069\u200b\ufeff\u00ad",
    "[red]text[/red][link=http://evil.example]x[/link]",
    "[bold",
    ":smile: [/]",
    "[click](http://evil.example) ![image](http://evil.example/x.png)",
    "<http://evil.example> http://evil.example www.evil.example @someone #1",
    "``` \n# heading\n- item\n> quote\n1. one\n---\n===\n| a | b |\n|---|---|",
    "`code` ``more`` ````",
    "~~~\nfence\n~~~",
    "&lt;b&gt; &#60;i&#62; \\<u>",
    "*bold* _italic_ **x** __y__ ~~z~~ $x$",
    "new\nline\r\nand\ttab\x0bvertical\x85next\u2028line",
    "a\x00b\udcff\ud800\uffff\U000e0041\U0010ffff",
    "rm -rf / # \u202e oohay",
    "",
    " ",
    "0" * 5000,
    "e\u0301" * 3000,
)
TEXTS = st.lists(st.sampled_from(ATTACKS) | st.text(), max_size=4).map("".join)
SHOWN = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "a",
        "header",
        "p",
    ),
    *(
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "section",
        "div",
        "pre",
        "code",
    ),
    *(
        "ul",
        "ol",
        "li",
        "b",
        "main",
        "article",
        "span",
        "dl",
        "dt",
    ),
    *(
        "dd",
        "desc",
        "desc",
        "figure",
        "figcaption",
        "svg",
        "text",
        "line",
        "polygon",
        "path",
        "rect",
    ),
    *(
        "circle",
        "defs",
        "pattern",
        "details",
        "summary",
        "table",
        "thead",
        "tbody",
        "tr",
    ),
    *(
        "th",
        "td",
        "footer",
        "script",
    ),
}


class Elements(HTMLParser):
    """Checks each element and keeps what is visible."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.scripts = 0
        self.data = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Refuse what the templates do not write."""
        assert tag in SHOWN, tag
        self.scripts += tag == "script"
        for name, value in attrs:
            assert not name.startswith("on"), name
            assert name not in {"style", "src", "autofocus"}, name
            if name == "href":
                assert re.fullmatch(r"#[A-Za-z0-9._-]+|https://[A-Za-z0-9./_#?&=%~+-]+", value)

    def handle_data(self, data):
        """Keep text."""
        self.data.append(data)


def _plain_terminal(result):
    """Return what a terminal without colours would get."""
    console = Console(file=io.StringIO(), width=80, force_terminal=False, no_color=True)
    terminal.render(result, console, ["\x1b[2J<b>\u202e.html"])
    return console.file.getvalue()


def _check_all(result, assert_visible):
    page = html.render(result)
    elements = Elements(page)
    assert elements.scripts == 1
    assert_visible("".join(elements.data))
    assert len(page.encode()) <= html.MAX_BYTES

    ticket = markdown.render(result)
    assert_visible(ticket)
    tokens = (
        MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(ticket)
    )
    kinds = {token.type for token in tokens}
    kinds |= {child.type for token in tokens for child in token.children or ()}
    assert kinds <= MARKDOWN, kinds - MARKDOWN
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h2"]

    assert_visible(_plain_terminal(result))
    assert json.dumps(result).isascii()


MARKDOWN = {
    *("heading_open", "heading_close", "paragraph_open", "paragraph_close", "inline", "text"),
    *("bullet_list_open", "bullet_list_close", "ordered_list_open", "ordered_list_close"),
    *("list_item_open", "list_item_close", "fence", "code_inline", "strong_open", "strong_close"),
    *("softbreak", "text_special"),
}


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(texts=st.lists(TEXTS, min_size=1, max_size=12))
def test_texts_stay_texts(texts, incident, rewrite, assert_visible):
    """Any text in any place is shown as characters, or as nothing, in all formats."""
    turn = count()
    result = rewrite(incident, lambda _: texts[next(turn) % len(texts)])
    _check_all(result, assert_visible)
    _check_all(redact(result), assert_visible)


@pytest.mark.parametrize("attack", range(len(ATTACKS)))
def test_each_attack_stays_text(attack, incident, rewrite, assert_visible):
    """Each known trick in every place at once is harmless."""
    _check_all(rewrite(incident, lambda _: ATTACKS[attack]), assert_visible)


def test_megabytes_stay_bounded(incident, rewrite, assert_visible):
    """Huge texts in long lists give a report of the size that is promised, and short summaries."""
    huge = "<&'\"\U0001f4a5x y" * 100_000
    result = rewrite(incident, lambda _: huge, 5)
    page = html.render(result)
    assert len(page.encode()) <= html.MAX_BYTES
    assert Elements(page).scripts == 1
    for text in (markdown.render(result), _plain_terminal(result)):
        assert_visible(text)
        assert len(text) < 12_000


def test_rich_markup_is_shown_as_it_is(incident, rewrite):
    """A terminal shows the brackets, with colours as well as without."""
    result = rewrite(incident, lambda text: f"[red]{text[:9]}[/red]")
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    terminal.render(result, console)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())
    assert "[red]Full-size[/red]" in shown
    assert "\x1b" not in shown


def test_template_syntax_is_shown_as_it_is(incident, rewrite):
    """Captured braces are not evaluated."""
    result = rewrite(incident, lambda _: "{{ 7 * 7 }}")
    page = html.render(result)
    assert "{{ 7 * 7 }}" in page
    assert "<h1>{{ 7 * 7 }}.</h1>" in page
