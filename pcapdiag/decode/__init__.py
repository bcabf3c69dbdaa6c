"""Frame bytes to the tables of schema.py, columnar: never an object a packet.

- `fetch`: the one place where bytes are indexed, bounded by what was kept
- `columns`, `checksum`: structs of arrays, RFC 1071 sums
- `link`, `tags`, `rare_link`: frame to network layer
- `network`: the innermost IP header, by `ipv4`, `ipv6` and, step by step, `tunnel`
- `transport`: ports and what follows, by `tcp`, `udp`, `sctp`
- `icmp`, `quoted`, `arp`, `vrrp`, `ipvs_sync`: the side tables
- `sheet`, `tables`: arrays to tables, batch by batch
- `packets`, `gathered`: all of it, a batch or a capture at a time, in memory or spooled;
  `alike_errors`: what is kept of a storm of ICMP messages
- `verify`, `extent`: what is asked of chosen frames only
"""
