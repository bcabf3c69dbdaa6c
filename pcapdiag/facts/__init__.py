"""What the hosts themselves say, beside their captures: one file a kind of fact."""

from pcapdiag.facts.files import Facts, HostLog, HostTimeouts, load

__all__ = ["Facts", "HostLog", "HostTimeouts", "load"]
