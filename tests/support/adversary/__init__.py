"""What attacks: liars, poison, bad networks."""
