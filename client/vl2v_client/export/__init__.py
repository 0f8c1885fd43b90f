"""The student as files: with its card, and in the formats that others load."""
