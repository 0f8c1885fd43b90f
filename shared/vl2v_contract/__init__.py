"""What vendor and client agree on: the wire, and what both must compute alike."""
