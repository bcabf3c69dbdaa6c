"""The incident report: complete, self-contained, bounded, readable by everyone."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from jinja2 import DictLoader, Environment

from pcapdiag.report import html, json
from pcapdiag.result import (
    Evidence,
    FailedRule,
    FlowRef,
    NotExamined,
    Result,
    Severity,
)

VOID = {"meta", "br", "img", "link", "input", "hr", "rect", "line", "path", "polygon", "circle"}


class Page(HTMLParser):
    """Collects tags, attributes, ids, links and visible text of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.ids, self.links, self.attributes = [], [], [], []
        self.words, self.policy, self.stack = [], "", []
        self.inner = {"style": "", "script": ""}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Note an element that opens."""
        self.tags.append(tag)
        if tag not in VOID:
            self.stack.append(tag)
        for name, value in attrs:
            self.attributes.append((tag, name, value))
            if name == "id":
                self.ids.append(value)
            if name == "href":
                self.links.append(value)
        values = dict(attrs)
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]

    def handle_startendtag(self, tag, attrs):
        """Note an element that has no content."""
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        """Hold an element that closes against the one that is open."""
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        """Note text, that of style and script apart."""
        if self.stack and self.stack[-1] in self.inner:
            self.inner[self.stack[-1]] += data
        elif data.strip():
            self.words.append(" ".join(data.split()))

    @property
    def text(self):
        """Return the visible text."""
        return " ".join(self.words)


def test_golden(named, golden):
    """The bytes are those on file."""
    name, result = named
    golden(f"{name}.html", html.render(result))


def test_saved_result_gives_the_same_bytes(result):
    """All that the report shows is in the JSON form."""
    assert html.render(json.loads(json.dumps(result))) == html.render(result)


def test_page_is_well_formed_and_its_links_arrive(result):
    """Elements close in order, ids are unique, each inner link has its target."""
    page = Page(html.render(result))
    assert page.stack == []
    assert len(page.ids) == len(set(page.ids))
    inner = {link[1:] for link in page.links if link.startswith("#")}
    assert inner <= set(page.ids)
    labels = {value for _, name, value in page.attributes if name == "aria-labelledby"}
    assert labels <= set(page.ids)


def test_nothing_is_loaded_and_nothing_inline_runs(result):
    """No attribute loads, styles or runs anything; outer links are for clicking only."""
    page = Page(html.render(result))
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in {"style", "src", "srcset", "action", "background", "poster"}
        if name == "href":
            assert tag == "a"
            assert value.startswith(("#", "https://"))
    assert not {"link", "iframe", "img", "object", "base", "form"} & set(page.tags)
    assert "url(" not in page.inner["style"]
    assert "@import" not in page.inner["style"]


def test_policy_admits_exactly_this_style_and_script(result):
    """The hashes are those of what stands between the tags; everything else is refused."""
    page = Page(html.render(result))
    assert page.tags.count("style") == page.tags.count("script") == 1
    style, script = (
        base64.b64encode(hashlib.sha256(page.inner[kind].encode()).digest()).decode()
        for kind in ("style", "script")
    )
    assert page.policy == (
        f"default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; "
        "img-src data:"
    )


def test_headings_descend_in_steps_of_one(result):
    """One h1, and no level is skipped, so that the outline can be read aloud."""
    levels = [int(tag[1]) for tag in Page(html.render(result)).tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_language_and_title_are_set(incident):
    """Screen readers know the language, browser tabs the verdict."""
    text = html.render(incident)
    assert '<html lang="en">' in text
    assert "<title>pcapdiag: Full-sized packets to clients vanish" in text


def test_everything_of_a_finding_is_there(incident):
    """Claim, proof, doubt, remedy, verification and the rest of the worst finding are shown."""
    text = Page(html.render(incident)).text
    finding = incident.findings[1]
    told = [finding.title, finding.summary, finding.cause.text, finding.cause.code, finding.rule]
    told += [item.note for item in finding.evidence]
    told += [line.strip() for line in finding.evidence[1].dissection.lines]
    told += [leg.src for flow in finding.flows for leg in flow.legs]
    told += [*finding.facts, *finding.alternatives, *finding.references]
    told += [line for item in finding.remedies for line in (item.action, *item.commands)]
    told += [line for item in finding.remedies for line in (*item.check, *item.persist, *item.undo)]
    told += [finding.remedies[0].risk, finding.filters.wireshark, finding.filters.tcpdump]
    told += [step.label for step in finding.ladder]
    told += [finding.folded[0].cause.text, finding.folded[0].id, "14 of 40 connections, 98 times"]
    told += ["What speaks against it", "5 of 112 frames", "and 11 more", *finding.timeline.series]
    for words in told:
        assert " ".join(words.split()) in text, words


def test_everything_around_the_findings_is_there(incident):
    """Gaps with their command, clean answers, failures, captures, cluster and version are shown."""
    text = Page(html.render(incident)).text
    told = [item.reason for item in incident.not_examined] + [item.rule for item in incident.clean]
    told += [incident.not_examined[0].capture_command, "This capture would answer 2 questions"]
    told += ["ZeroDivisionError: by zero", "12,345 packets, 1,536 ICMP errors", "cut short"]
    told += ["-1.25 ms ± 40 µs", "none, it is the reference", "answers for the VIP with the MAC"]
    told += ["the last block ends 12 bytes early", "TUN (gue)", "udp fwmark 3 (2001:db8::53)"]
    told += ["the same packet leaves the director with another MAC", "pcapdiag 1.2.3", "ab" * 32]
    told += ["lost 17 packets while capturing", "What to do now", *incident.notes]
    for words in told:
        assert words in text, words


def test_worst_finding_comes_first(incident):
    """Findings stand by severity, whatever their order in the result."""
    text = html.render(incident)
    ids = re.findall(r'<article id="([^"]+)"', text)
    assert [anchor.rsplit("-", 1)[0] for anchor in ids] == [
        "pmtud-blackhole",
        "icmp-checksum-burst",
    ]


def test_evidence_has_deep_links(incident):
    """Each frame, finding and vantage can be linked to."""
    ids = set(Page(html.render(incident)).ids)
    anchor = incident.findings[1].id
    assert {anchor, *(f"{anchor}-e{number}" for number in range(1, 6))} <= ids
    assert {"vantage.director", "vantage.rs1"} <= ids


def test_doubled_ids_and_names_stay_apart(incident):
    """Equal ids or names, or such as are none, get numbers instead."""
    finding = incident.findings[0]
    odd = replace(finding, id='x" onclick="y')
    vantages = (*incident.vantages, incident.vantages[0])
    result = replace(incident, findings=(finding, finding, odd), vantages=vantages)
    page = Page(html.render(result))
    assert len(page.ids) == len(set(page.ids))
    assert {"finding-1", "finding-2", "finding-3", "vantage-1", "vantage-3"} <= set(page.ids)
    assert {link[1:] for link in page.links if link[0] == "#"} <= set(page.ids)


def test_no_findings_is_not_all_is_well(results):
    """What was not examined is said at once, and so is what the clean answers rest on."""
    text = Page(html.render(results["nothing-found"])).text
    assert "only 3 of 6 questions could be examined: a fault may lie in the others" in text
    assert "and nothing else" in text
    assert "Nothing can be concluded" in Page(html.render(results["blind"])).text
    for result in results.values():
        assert "all is well" not in html.render(result).lower()


def test_long_lists_say_how_many_more(incident):
    """What is beyond the limit is counted; proof and doubt come before support."""
    finding = incident.findings[1]
    related = [replace(finding.evidence[2], frame=1000 + n) for n in range(150)]
    evidence = (*related, finding.evidence[0], finding.evidence[4])
    flows = tuple(FlowRef(protocol="tcp", client=f"c{n}", service="s") for n in range(100))
    long = replace(finding, evidence=evidence, evidence_count=500, flows=flows, flow_count=2345)
    text = Page(html.render(replace(incident, findings=(long,)))).text
    assert "60 of 500 frames" in text
    assert "and 2,305 more" in text
    assert finding.evidence[0].note in text
    assert finding.evidence[4].note in text


def test_size_is_bounded(incident):
    """A result of hundreds of megabytes makes a file of at most two, and says that it is short."""
    long = "<&'\"\U0001f4a5" * 200_000
    finding = incident.findings[1]
    evidence = tuple(
        Evidence(role="primary", vantage=long, file=long, frame=n, note=long) for n in range(200)
    )
    commands = (("'" * 1999),) * 200
    remedy = replace(finding.remedies[0], check=commands, commands=commands, undo=commands)
    huge = replace(
        finding,
        title=long,
        evidence=evidence,
        flows=(FlowRef(protocol=long, client=long, service=long),) * 1000,
        remedies=(remedy,) * 50,
        alternatives=(long,) * 500,
        facts={f"{n}{long}": long for n in range(50)},
    )
    result = Result(
        findings=tuple(replace(huge, id=f"x-{n:012x}") for n in range(300)),
        not_examined=tuple(
            NotExamined(reason=long, rule=long, needs=(long,) * 9, capture_command=f"{n}")
            for n in range(3000)
        ),
        failed_rules=(FailedRule(rule=long, error=long),) * 1000,
        notes=(long,) * 1000,
    )
    text = html.render(result)
    assert len(text.encode()) <= html.MAX_BYTES
    assert "shortened to keep the file small" in text
    assert "and 295 more findings" in text


@pytest.mark.parametrize("severity", list(Severity))
def test_severity_is_a_word(incident, severity):
    """Colour repeats what a word says."""
    finding = replace(incident.findings[0], severity=severity)
    text = Page(html.render(replace(incident, findings=(finding,)))).text
    assert severity.value.capitalize() in text


def _schemes(style):
    """Return the custom properties for light, dark and paper."""
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    found = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in blocks]
    light, dark, paper = found
    return {"light": light, "dark": dark, "paper": paper}


def _contrast(one, other):
    """Return the contrast ratio of two colours, WCAG 2.2 section 1.4.3."""

    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_sufficient(incident):
    """Text has 4.5 to 1 on each ground, marks of figures 3 to 1, in every colour scheme."""
    schemes = _schemes(Page(html.render(incident)).inner["style"])
    for name, colours in schemes.items():
        assert set(colours) == set(schemes["light"]), name
        for text in ("text", "muted", "link"):
            for ground in ("page", "panel"):
                assert _contrast(colours[text], colours[ground]) >= 4.5, (name, text, ground)
        for badge in ("critical", "high", "medium", "low", "info"):
            assert _contrast(colours[badge], colours["on-badge"]) >= 4.5, (name, badge)
        for mark in ("delivered", "lost", "strong-line"):
            assert _contrast(colours[mark], colours["page"]) >= 3, (name, mark)


@pytest.mark.parametrize(
    ("place", "forbidden", "kept"), [("here", False, 1), ("here", True, 0), ("nowhere", False, 0)]
)
def test_compiled_templates_are_kept_as_bytecode_is(monkeypatch, tmp_path, place, forbidden, kept):
    """Compiled templates are kept where Python may keep bytecode, and otherwise silently not."""
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(html.sys, "dont_write_bytecode", forbidden)
    cache = html._Compiled(str(tmp_path / place), "%s")
    templates = DictLoader({"x": "x"})
    Environment(loader=templates, autoescape=True, bytecode_cache=cache).get_template("x")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == kept
