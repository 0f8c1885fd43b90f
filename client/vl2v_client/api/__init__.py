"""The only door to the vendor: HTTP, retries, and a check of everything that comes back."""
