"""What may go wrong, as a user is told it: one line, what was found, where, what to do."""

from __future__ import annotations


class PcapdiagError(Exception):
    """Base of every error that a user may see; its text is one line and names the remedy."""


class UsageError(PcapdiagError):
    """The command line asks for something that cannot be (exit code 2)."""


class SiteError(UsageError):
    """A site.toml that cannot be used; the message names the key and the valid ones."""


class RuleError(UsageError):
    """A rule module that cannot be loaded, or a rule id that does not exist."""


class CaptureError(PcapdiagError):
    """An input that cannot be read at all (exit code 3). `path` is as the user gave it."""

    def __init__(self, path: str, message: str) -> None:
        """Keep `path` apart from the text, so that a report can name the file."""
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message

    def __reduce__(self) -> tuple[type[CaptureError], tuple[str, str]]:
        """Let it come back from another process."""
        return type(self), (self.path, self.message)


class UnknownFormat(CaptureError):  # noqa: N818 - named as what was found, see the glossary
    """The file is neither pcap nor pcapng nor a compressed form of either."""


class TruncatedHeader(CaptureError):  # noqa: N818 - likewise
    """The file ends inside its own file header, so that no frame can be read."""


class UnreadableCapture(CaptureError):  # noqa: N818 - likewise
    """The operating system refuses: missing path, no permission, a directory without captures."""


class StaleIndex(CaptureError):  # noqa: N818 - likewise
    """The capture that an index was made of has changed since."""
