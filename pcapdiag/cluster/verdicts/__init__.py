"""What a director did with a packet or an error: each fact one function."""
