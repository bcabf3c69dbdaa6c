"""Ordinary traffic, which every sample has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clock import draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .apps import Step
    from .lab import Lab


def browse(
    lab: Lab,
    *,
    clients: Sequence[str],
    start_s: float,
    every_s: float,
    count: int,
    ports: tuple[int, int] = (80, 80),
) -> None:
    """Plan ordinary connections: short pages mostly, some long, some uploads, some kept open.

    `ports` is the service's port in the cluster and, where a NAT in front changes it, outside.
    """
    kinds: list[tuple[str, list[Step], str]] = [
        ("page", [("get", 340)], "server"),
        ("page", [("get", 2100)], "client"),
        ("session", [("get", 700), ("wait", 1.1), ("get", 5200)], "client"),
        ("page", [("get", 9000)], "server"),
        ("upload", [("post", 4000)], "client"),
        ("page", [("get", 120)], "client"),
        (
            "session",
            [("get", 900), ("wait", 2.2), ("get", 450), ("wait", 0.7), ("get", 60)],
            "server",
        ),
        ("page", [("get", 15000)], "client"),
    ]
    for number in range(count):
        label, steps, ending = kinds[number % len(kinds)]
        client = clients[number % len(clients)]
        offset = draw(0, 150, lab.sample, number, "start") / 1000
        port = 32768 + draw(0, 90, lab.sample, number, "port") + 97 * number
        lab.flow(
            label,
            client,
            port,
            start_s + every_s * number + offset,
            steps,
            ending=ending,
            service_port=ports[0],
            public_port=ports[1],
        )
