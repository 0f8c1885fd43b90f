"""The student: its backbone and projection, the objectives and the one loop that trains them."""
