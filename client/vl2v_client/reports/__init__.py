"""What a person reads of a run or a sweep: the report as Markdown, JSON and a page, and runs side by side."""
