"""The report in a real browser: nothing is fetched, everything can be read, reached and copied.

Debian's chromium is driven through Playwright; axe-core judges accessibility.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from pcapdiag.report import html
from pcapdiag.result import Dissection

pytestmark = pytest.mark.needs("chromium")

SWITCHES = [
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, NARROW = {"width": 1100, "height": 900}, {"width": 320, "height": 700}


@pytest.fixture(scope="module")
def browser():
    """Start one browser for all tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=SWITCHES
        )
        yield started
        started.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Open a result as a file with the network off; what the page says or asks for is kept."""
    contexts = []

    def show(result, **options):
        path = tmp_path / f"{len(contexts)}.html"
        path.write_text(html.render(result), encoding="utf-8")
        context = browser.new_context(**{"offline": True, "viewport": WIDE, **options})
        contexts.append(context)
        page = context.new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.address = path.as_uri()
        page.goto(page.address)
        return page

    yield show
    for context in contexts:
        context.close()


def test_nothing_is_said_and_nothing_asked_for(named, opened):
    """No console message of any kind, and no request but for the file itself."""
    _, result = named
    page = opened(result)
    page.wait_for_load_state("networkidle")
    assert page.said == []
    assert page.asked == [page.address]


def _violations(page):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(item["id"], [node["html"][:90] for node in item["nodes"][:3]]) for item in found]


def test_axe_finds_no_violation(named, opened):
    """WCAG 2 A and AA and axe-core's best practices hold for every kind of report."""
    _, result = named
    # bypass_csp: the page admits no script but its own, so not axe's either
    assert _violations(opened(result, bypass_csp=True)) == []


def test_axe_finds_no_violation_in_the_dark(incident, opened):
    """Contrasts hold in the dark colour scheme, too."""
    assert _violations(opened(incident, color_scheme="dark", bypass_csp=True)) == []


def test_axe_finds_no_violation_when_narrow_and_open(incident, opened):
    """As cards on a telephone, and with everything unfolded."""
    page = opened(incident, viewport=NARROW, bypass_csp=True)
    page.evaluate("for (const item of document.querySelectorAll('details')) item.open = true")
    assert _violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_layouts_fit(incident, opened, scheme, viewport, tmp_path):
    """Nothing overflows down to 320 px (WCAG 1.4.10); figures scroll inside their frames."""
    page = opened(incident, color_scheme=scheme, viewport=viewport)
    page.evaluate("for (const item of document.querySelectorAll('details')) item.open = true")
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= viewport["width"]
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == {"light": "rgb(255, 255, 255)", "dark": "rgb(17, 21, 27)"}[scheme]
    photo = page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert len(photo) > 20_000  # a blank page has a few kilobytes


def test_print_shows_everything(incident, opened):
    """On paper nothing is folded, there are no buttons, and colours are those for paper."""
    page = opened(incident, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    folded = page.evaluate(
        "[...document.querySelectorAll('details > :not(summary)')]"
        ".filter(item => item.getBoundingClientRect().height === 0).length"
    )
    assert folded == 0
    assert page.locator(".command button:visible").count() == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_deep_links_arrive(incident, opened):
    """Each finding, piece of evidence and vantage is the target of its own link."""
    page = opened(incident, reduced_motion="reduce")  # else scrolling takes its time
    wanted = [item.id for item in incident.findings]
    wanted += [f"{incident.findings[1].id}-e{number}" for number in range(1, 6)]
    wanted += [f"vantage.{item.name}" for item in incident.vantages]
    arrived = page.evaluate(
        "names => names.map(name => { location.hash = name;"
        " return document.querySelector(':target')?.id; })",
        wanted,
    )
    assert arrived == wanted
    page.goto(f"{page.address}#{wanted[2]}")
    page.wait_for_function(
        "name => { const box = document.getElementById(name).getBoundingClientRect();"
        " return box.top > -2 && box.top < innerHeight }",
        arg=wanted[2],
    )


def test_every_inner_link_has_its_target(incident, opened):
    """No link of the page leads nowhere."""
    page = opened(incident)
    lost = page.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')].map(item => item.hash.slice(1))"
        ".filter(name => !document.getElementById(decodeURIComponent(name)))"
    )
    assert lost == []


def test_copy_buttons_copy(incident, opened):
    """Each button puts its commands on the clipboard, to the character, and says so."""
    page = opened(incident, permissions=["clipboard-read", "clipboard-write"])
    boxes = page.locator(".command")
    assert boxes.count() > 5
    for number in range(boxes.count()):
        box = boxes.nth(number)
        box.locator("button").click()
        box.get_by_text("Copied").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == box.locator("code").text_content()
    assert page.said == []


def test_copy_without_permission_selects(incident, opened):
    """Where the clipboard is refused the commands are selected instead."""
    page = opened(incident)
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(Error()); }")
    box = page.locator(".command").first
    box.locator("button").click()
    box.get_by_text("Selected").wait_for()
    assert page.evaluate("getSelection().toString()") == box.locator("code").inner_text()


def test_without_scripts_the_text_is_all_there(incident, opened):
    """What scripts add is buttons and nothing else."""
    dissected = replace(
        incident.findings[1].evidence[0], dissection=Dissection(tool="scapy", lines=("IP",))
    )
    finding = replace(
        incident.findings[1], evidence=(dissected, *incident.findings[1].evidence[1:])
    )
    result = replace(incident, findings=(finding, incident.findings[0]))
    without = opened(result, java_script_enabled=False).locator("body").text_content()
    page = opened(result)
    page.evaluate("document.querySelectorAll('.command button').forEach(item => item.remove())")
    assert page.locator("body").text_content() == without
    for words in (finding.title, finding.summary, finding.remedies[0].commands[0], "As scapy"):
        assert words in without


def test_keyboard_reaches_everything(incident, opened):
    """The first stop skips to the findings; each stop shows where it is; details open by key."""
    page = opened(incident)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"
    stops = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        tag, outline = page.evaluate(
            "[document.activeElement].map("
            "item => [item.tagName, getComputedStyle(item).outlineStyle])[0]"
        )
        stops.add(tag)
        assert outline != "none", tag
    assert {"A", "SUMMARY", "DIV", "BUTTON"} <= stops
    summary = page.locator("summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert summary.evaluate("item => item.parentElement.open")


def test_hostile_result_does_nothing(incident, opened):
    """Markup and scripts in every text run nothing, load nothing and say nothing."""
    attack = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
    finding = replace(incident.findings[1], title=attack, summary=attack, subject=attack)
    vantage = replace(incident.vantages[0], name=attack)
    page = opened(
        replace(incident, findings=(finding,), vantages=(vantage,), notes=(attack, "\u202eabc"))
    )
    assert page.title().startswith("pcapdiag: <img")
    assert page.said == []
    assert page.asked == [page.address]
