"""Methods as stages of the loop, and what each stage minimises."""
