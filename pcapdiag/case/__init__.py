"""The tables and questions that a rule sees; each family of questions is a room, asked lazily."""

from pcapdiag.case.case import Case

__all__ = ["Case"]
