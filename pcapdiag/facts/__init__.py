"""What the hosts themselves say, beside their captures: one file a kind of fact."""

from pcapdiag.facts.files import Facts, load

__all__ = ["Facts", "load"]
