"""The world outside: SQL, files, images, models, time."""
