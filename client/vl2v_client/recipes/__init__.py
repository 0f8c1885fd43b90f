"""The stories: what each command does, told in the order in which it happens."""
