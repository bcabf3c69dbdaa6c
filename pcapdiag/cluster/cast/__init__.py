"""Who plays which part: MACs, hosts, services and their forwarding methods."""
