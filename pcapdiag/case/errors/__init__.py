"""ICMP errors: what they say, whom they reach, and whether they can be believed."""
