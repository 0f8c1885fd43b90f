"""What the client's tests share: a small vendor, the command line, and students."""
