"""What to buy, what it costs, and buying it once."""
