"""What belongs to a connection: its states, the errors that quote it, sights of its packets."""
