"""The vendor: a metered, audited embedding service."""
