"""The tracker against a real kernel: samples/lab-rs-host-prohibited, settings known."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pcapdiag import engine
from pcapdiag.capture.vantages import resolve
from pcapdiag.kernel.netfilter import TIMEOUTS_S, Segment, Settings, replay

SAMPLE = Path(__file__).parents[2] / "samples" / "lab-rs-host-prohibited"
SET = Settings(loose=False, timeouts_s={**TIMEOUTS_S, "ESTABLISHED": 5})
"""What truth.json says was set on the realservers."""


def test_the_tracker_agrees_with_a_real_kernel_on_every_packet():
    """Under the settings that were in force it refuses what was answered with 3/10, nothing else.

    Rejections are rate limited, so that a repetition of a rejected packet may go unanswered.
    """
    inputs, _ = resolve([f"rs1={SAMPLE / 'rs1.pcap'}", f"rs2={SAMPLE / 'rs2.pcap'}"])
    rejected = judged = 0
    for tables in engine.load(inputs).case.vantages:
        quoted = set(tables.icmp_errors["quoted_row"].drop_nulls())
        tcp = tables.packets.with_row_index("row").filter(
            pl.col("tcp_seq").is_not_null(),
            (pl.col("dst_port") == 80) | (pl.col("src_port") == 80),
        )
        for flow in tcp.partition_by("flow"):
            segments = [
                Segment(
                    row["time_ns"],
                    not row["by_orig"],
                    row["tcp_flags"],
                    row["tcp_seq"],
                    row["tcp_ack"],
                    row["tcp_window"],
                    row["payload_len"],
                    row["tcp_wscale"],
                )
                for row in flow.iter_rows(named=True)
            ]
            verdicts = replay(segments, SET)
            hit = {
                segment.seq
                for segment, row in zip(segments, flow["row"], strict=True)
                if row in quoted
            }
            for verdict, segment, row in zip(verdicts, segments, flow["row"], strict=True):
                if segment.reply:
                    continue
                judged += 1
                rejected += row in quoted
                if row in quoted:
                    assert verdict.refused, (tables.name, row)
                elif segment.seq not in hit:
                    assert not verdict.refused, (tables.name, row)
    assert rejected == 44
    assert judged > 200
