"""What a run leaves behind: the student with its card, and the report."""
