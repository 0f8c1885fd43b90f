"""What the proofs share: models, invariants, worlds and figures."""
