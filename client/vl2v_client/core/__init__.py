"""Values, errors and seeds that every room of the client shares. No I/O."""
