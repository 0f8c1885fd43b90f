"""The student: its network, the losses of its methods, and the one loop that trains it."""
