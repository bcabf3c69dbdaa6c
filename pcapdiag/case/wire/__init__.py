"""What captures and wires did to packets: loss, cuts, fragments, checksums."""
