"""When and where a vantage could have seen a packet: gaps, losses, standstills."""
