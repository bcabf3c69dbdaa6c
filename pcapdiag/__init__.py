"""Reads captures of a Linux Virtual Server cluster offline and names the fault.

The floors, imports go downward only (tests/test_architecture.py holds that):

- `errors`, `protocols`, `addresses`, `text`, `decode_note`, `schema`, `result`, `site`: words and
  forms;
  `memory`, `spool`, `beside`: what is given back, what outgrows it, and threads
- `capture/`: files to frames
- `decode/`: frame bytes to tables
- `flows/`: packets to conversations and ICMP errors; `export/`: tables to files
- `cluster/`: several vantages to one cluster, a file a step; in its rooms what the steps rest on;
  `kernel/`: what hosts do, without captures
- `case/`: the tables and questions that a rule sees; a room for each family of questions
- `rule`: the contract of a rule; `rules/` (top-level folder): one fault a file
- `registry`, `engine`, `folding`: rules run over a case; `workers`, `processes`: captures read
- `dissect/`, `exhibits`: cited frames in Wireshark's words, or scapy's, after everything is judged
- `report/`: results to text; `cli/`: the only place that prints
"""

from __future__ import annotations

__version__: str


def __getattr__(name: str) -> str:
    """Return `__version__` when asked: reading it imports more than `--help` has time for."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415 - see above

    return version(__name__)
