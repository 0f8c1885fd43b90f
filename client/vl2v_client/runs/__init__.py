"""What a run is made of: its settings, folder, source of answers, data and trained methods."""
