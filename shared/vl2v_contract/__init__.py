"""What vendor and client agree on: the wire, and what both must compute alike."""

API_VERSION = "v1"

__all__ = ["API_VERSION"]
