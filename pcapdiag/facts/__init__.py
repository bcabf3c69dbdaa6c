"""What the hosts themselves say, beside their captures: one file a kind of fact."""

from pcapdiag.facts.files import Facts, HostTimeouts, load

__all__ = ["Facts", "HostTimeouts", "load"]
