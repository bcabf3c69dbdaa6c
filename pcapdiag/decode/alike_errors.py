"""ICMP messages of a capture that holds very many: of those that say the same, the first.

A storm of errors repeats itself. Whether a message of some kind about some flow was seen, and when
first, the thousandth does not tell; and what the rules ask of each takes more memory than a packet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag import schema, spool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pcapdiag.decode.packets import Decoded

MOST: Final = 1 << 16
"""ICMP messages of a capture that are looked at: some 2 kB each in the end, 130 MB."""

LEAST_OF_EACH: Final = 4
"""Of messages that say the same so many are kept however many kinds there are: one alone may be one
that was lost on its way, or missed at another place."""

_SAYS: Final = (
    *("icmp_checksum", "next_hop_mtu", "gateway_hi", "gateway_lo", "quoted_tunnel"),
    *("quoted_proto", "quoted_src_hi", "quoted_src_lo", "quoted_src_port"),
    *("quoted_dst_hi", "quoted_dst_lo", "quoted_dst_port"),
)

_SENT_AS: Final = ("icmp_type", "icmp_code", "eth_src")
"""Of the packet. With the MAC, what came in and what a host passed on are counted apart."""

_SEED: Final = 0xA11C


class FirstOfAlike:
    """Takes the ICMP messages of a capture in order and keeps `most` of them at most.

    That is the first n of all that are alike, n being the highest power of two with which they are
    no more than `most`. Where even LEAST_OF_EACH are too many, these are kept of a half, a quarter
    ... of the kinds. How the messages were cut into batches changes nothing.
    """

    def __init__(self, most: int) -> None:
        """Hold nothing yet."""
        self._most = most
        self._each = 1 << most.bit_length()
        self.share = 1
        """One in so many kinds is looked at."""
        self._kept = [
            schema.empty("icmp").with_columns(
                pl.lit(0, pl.UInt64).alias("kind"), pl.lit(0, pl.Int64).alias("nth")
            )
        ]
        self._met = pl.DataFrame(schema={"kind": pl.UInt64, "met": pl.Int64})

    def taken_from(self, parts: Iterable[Decoded]) -> Iterator[Decoded]:
        """Yield the parts of a capture without their messages."""
        begin = 0
        for part in parts:
            if len(part.icmp):
                sent = spool.at(part.packets, part.icmp["row"] - begin, *_SENT_AS)
                self._add(part.icmp, sent)
            begin += len(part.packets)
            yield replace(part, icmp=schema.empty("icmp"))

    def table(self) -> pl.DataFrame:
        """Return the messages kept, in order: table `icmp`."""
        return pl.concat(self._kept, rechunk=True).drop("kind", "nth")

    def _add(self, messages: pl.DataFrame, sent: pl.DataFrame) -> None:
        kind = messages.select(_SAYS).hstack(sent).hash_rows(_SEED).alias("kind")
        numbered = messages.with_columns(kind).join(
            self._met, on="kind", how="left", maintain_order="left"
        )
        earlier = pl.col("met").fill_null(0)
        numbered = numbered.select(
            pl.all().exclude("met"),
            (pl.int_range(pl.len()).over("kind") + earlier).alias("nth"),
        )
        self._kept.append(self._narrowed(numbered))
        now = numbered.group_by("kind").agg((pl.col("nth").max() + 1).alias("met"))
        self._met = pl.concat([self._met.join(now, on="kind", how="anti"), now])
        while sum(map(len, self._kept)) > self._most:
            if self._each > LEAST_OF_EACH:
                self._each //= 2
            else:
                self.share *= 2
                self._met = self._met.filter(self._of_a_share())
            self._kept = [self._narrowed(frame) for frame in self._kept]

    def _narrowed(self, numbered: pl.DataFrame) -> pl.DataFrame:
        return numbered.filter(pl.col("nth") < self._each, self._of_a_share())

    def _of_a_share(self) -> pl.Expr:
        """Whether a kind is one of those looked at."""
        return pl.col("kind") <= pl.lit((1 << 64) // self.share - 1, pl.UInt64)
