"""Packets to conversations and ICMP errors, vantage by vantage.

- `vantage`: the door; captures of one vantage in, all its tables out
- `five_tuple`, `conversations`, `incarnations`: which packets make a flow, and who opened it
- `sightings`: the same packet seen twice
- `sides`, `tcp`: what each side of a flow sent; the latter on `sequence`, `repeats`,
  `acknowledged`, `offload`
- `flows`, `icmp_errors`: the tables
- `history`: what is only asked of a few flows
- `arrays`: columns as numpy arrays
"""
