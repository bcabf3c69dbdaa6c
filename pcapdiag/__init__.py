"""Reads captures of a Linux Virtual Server cluster offline and names the fault.

The floors, imports go downward only (tests/test_architecture.py holds that):

- `errors`, `protocols`, `addresses`, `text`, `schema`, `result`, `site`: words and forms
- `capture/`: files to frames
- `decode/`: frame bytes to tables
- `flows/`: packets to conversations and ICMP errors; `export/`: tables to files
- `cluster/`: several vantages to one cluster; `kernel/`: what hosts do, without captures
- `case/`: the tables and questions that a rule sees
- `rule`: the contract of a rule; `rules/` (top-level folder): one fault a file
- `registry`, `engine`, `folding`, `workers`: rules run over a case
- `report/`: results to text; `cli/`: the only place that prints
"""

from importlib.metadata import version

__version__ = version("pcapdiag")
