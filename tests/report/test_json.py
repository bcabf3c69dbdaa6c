"""The JSON form: exact both ways, the keys of the design, clear refusals."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass, replace
from importlib import resources
from typing import get_args, get_type_hints

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcapdiag import result as forms
from pcapdiag.errors import PcapdiagError
from pcapdiag.report.json import dumps, loads
from pcapdiag.result import Cluster, Edge, Examined, Finding, Result, Timeline, Tool

DESIGNED = {
    "Result": (
        "schema tool generated_at vantages cluster findings not_examined clean failed_rules notes"
    ),
    "Tool": "name version",
    "Vantage": "name role role_source clock_offset_ns clock_error_ns files",
    "CaptureFile": (
        "path sha256 format link_types packets first last snaplen dropped cut_short notes"
    ),
    "Cluster": "directors realservers routers edges services",
    "Host": "addresses macs",
    "Edge": "from to",
    "Service": "protocol vip port fwmark method encapsulation realservers reason",
    "Finding": (
        "id rule severity confidence title summary cause hosts flows flow_count examined_count "
        "first_seen last_seen count facts evidence evidence_count ladder sizes timeline folded "
        "alternatives remedies verify filters references"
    ),
    "Cause": "code text",
    "FlowRef": "protocol client service realserver community_id legs",
    "Leg": "vantage src dst community_id",
    "Evidence": "role vantage file interface frame time note dissection",
    "Dissection": "tool lines",
    "LadderStep": "time from to label fate frames",
    "SizeFate": "ip_length delivered lost",
    "Timeline": "start bin_s series",
    "Folded": "rule cause id",
    "Remedy": "where action check commands persist undo risk",
    "Filters": "wireshark tcpdump",
    "NotExamined": "rule scope reason needs capture_command",
    "Scope": "service realserver direction",
    "Clean": "rule scope examined note",
    "Examined": "packets connections icmp_errors",
    "FailedRule": "rule error",
}


@pytest.fixture(scope="module")
def schema():
    """Give the JSON Schema that ships in the package."""
    return json.loads(resources.files("pcapdiag.report").joinpath("schema.json").read_text())


def _written_keys(cls):
    return [item.metadata.get("json", item.name) for item in fields(cls)]


def test_round_trip_is_exact(result):
    """What was written reads back as the same value, and writes the same bytes again."""
    text = dumps(result)
    assert loads(text) == result
    assert dumps(loads(text)) == text


def test_golden(named, golden):
    """The bytes are those on file."""
    name, result = named
    golden(f"{name}.json", dumps(result))


def test_keys_are_those_of_the_design():
    """Each object has every key that the design names."""
    for name, keys in DESIGNED.items():
        assert set(keys.split()) <= set(_written_keys(getattr(forms, name))), name


def test_schema_names_what_is_written(schema):
    """The JSON Schema knows each dataclass with exactly its keys, all required."""
    jsonschema.Draft202012Validator.check_schema(schema)
    seen = set()

    def visit(kind):
        for member in get_args(kind):
            visit(member)
        if is_dataclass(kind) and kind not in seen:
            seen.add(kind)
            described = schema["$defs"][kind.__name__]
            assert list(described["properties"]) == _written_keys(kind), kind
            assert list(described["required"]) == _written_keys(kind), kind
            for hint in get_type_hints(kind).values():
                visit(hint)

    visit(Result)
    assert {cls.__name__ for cls in seen} == {name for name in schema["$defs"] if name[0].isupper()}


def test_schema_accepts_what_is_written(result, schema):
    """Each literal result is valid."""
    jsonschema.validate(json.loads(dumps(result)), schema)


BREAKS = {
    "schema": lambda d: d.update(schema=2),
    "missing": lambda d: d["findings"][0].pop("cause"),
    "text": lambda d: d["notes"].append(7),
    "whole": lambda d: d["findings"][0]["evidence"][0].update(frame="17"),
    "fraction": lambda d: d["findings"][0].update(count=1.5),
    "truth": lambda d: d["vantages"][0]["files"][0].update(cut_short=1),
    "number": lambda d: d["vantages"][0]["files"][0].update(packets=True),
    "list": lambda d: d.update(findings={}),
    "object": lambda d: d.update(cluster=[]),
    "severity": lambda d: d["findings"][0].update(severity="awful"),
    "role": lambda d: d["findings"][0]["evidence"][0].update(role="star"),
    "time": lambda d: d.update(generated_at="2024-05-01 12:00"),
    "fact": lambda d: d["findings"][0]["facts"].update(deep={"a": 1}),
    "unproven": lambda d: d["findings"][0].update(evidence=[]),
    "nothing": lambda d: d["clean"][0].update(
        examined={"packets": 0, "connections": 0, "icmp_errors": 0}
    ),
}


@pytest.mark.parametrize("what", sorted(BREAKS))
def test_broken_documents_are_refused_by_both(what, incident, schema):
    """The reader and the JSON Schema refuse the same faults; the reader in one line."""
    document = json.loads(dumps(incident))
    BREAKS[what](document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)
    with pytest.raises(PcapdiagError) as error:
        loads(json.dumps(document))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[]", '"schema" is missing'),
        ('{"schema": true}', "schema true found"),
        ('{"schema": "1"}', 'schema "1" found, this version reads schema 1'),
        ('{"schema": 1}', 'result: the key "tool" is missing'),
        ('{"schema": NaN}', "NaN"),
        ('{"schema": ' + "9" * 5000 + "}", "not JSON"),
        ("[" * 200_000, "nested too deeply"),
    ],
)
def test_what_is_no_result_is_named(text, said):
    """The message says what was found."""
    with pytest.raises(PcapdiagError, match=said):
        loads(text)


def test_message_names_the_place(incident):
    """A wrong value deep inside is named by its path."""
    document = json.loads(dumps(incident))
    document["findings"][1]["evidence"][2]["time"] = 12
    with pytest.raises(PcapdiagError, match=r"findings\[1\]\.evidence\[2\]\.time: found 12"):
        loads(json.dumps(document))


def test_infinite_number_is_refused(incident):
    """1e999 is a JSON number but no value that could be written again."""
    text = dumps(incident).replace('"span_s": 12.5', '"span_s": 1e999')
    with pytest.raises(PcapdiagError, match=r"facts\.span_s: found Infinity"):
        loads(text)


def test_huge_whole_number_is_refused(incident):
    """No counter has more than 64 bits; arithmetic on larger ones could take for ever."""
    text = dumps(incident).replace('"packets": 12345', '"packets": 18446744073709551616')
    with pytest.raises(PcapdiagError, match=r"packets: found 18446744073709551616"):
        loads(text)


def test_unknown_keys_are_ignored(incident):
    """A later version may add keys anywhere."""
    document = json.loads(dumps(incident))
    document["new"] = document["cluster"]["new"] = document["findings"][0]["cause"]["new"] = [1]
    assert loads(json.dumps(document)) == incident


def test_numbers_without_a_form_become_null(incident):
    """A fact that is not a number does not lose the report."""
    finding = replace(incident.findings[0], facts={"a": math.nan, "b": (1.5, math.inf)})
    again = loads(dumps(replace(incident, findings=(finding,))))
    assert again.findings[0].facts == {"a": None, "b": (1.5, None)}


def test_order_of_free_objects_does_not_matter(incident):
    """Facts that were collected in another order give the same bytes."""
    finding = incident.findings[1]
    other = replace(finding, facts=dict(reversed(finding.facts.items())))
    assert dumps(replace(incident, findings=(finding,))) == dumps(
        replace(incident, findings=(other,))
    )


def test_only_ascii_is_written():
    """Bidi overrides, escapes and undecodable file names stand as JSON escapes."""
    text = dumps(Result(notes=("\u202e\x1b[31m\udcff\x00",)))
    assert text.isascii()
    assert text.replace("\n", "").isprintable()


WHOLE = st.integers(-(2**64) + 1, 2**64 - 1)
SCALARS = st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False) | st.text()


@settings(max_examples=50, deadline=None)
@given(
    facts=st.dictionaries(st.text(), SCALARS | st.lists(SCALARS).map(tuple)),
    time_ns=st.none() | st.integers(-(2**63), 2**63 - 1),
    text=st.text(),
    series=st.dictionaries(st.text(), st.lists(WHOLE).map(tuple)),
    bin_s=st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 10),
)
def test_any_values_round_trip(facts, time_ns, text, series, bin_s):
    """Whatever the fields hold comes back, infinities aside."""
    finite = {
        key: value
        for key, value in facts.items()
        if not any(
            isinstance(item, float) and math.isinf(item)
            for item in (value if isinstance(value, tuple) else (value,))
        )
    }
    finding = Finding(
        title=text,
        summary=text,
        cause=forms.Cause(code=text, text=text),
        severity=forms.Severity.LOW,
        confidence=forms.Confidence.LOW,
        evidence=(
            forms.Evidence(
                role="primary", vantage=text, file=text, frame=1, note=text, time_ns=time_ns
            ),
        ),
        facts=finite,
        timeline=Timeline(start_ns=time_ns, bin_s=bin_s, series=series),
    )
    result = Result(
        tool=Tool(version=text),
        findings=(finding,),
        clean=(forms.Clean(examined=Examined(packets=1), note=text),),
        cluster=Cluster(edges=(Edge(from_=text, to=text),)),
    )
    assert loads(dumps(result)) == result
