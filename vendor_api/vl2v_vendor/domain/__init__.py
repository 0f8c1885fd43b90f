"""What the vendor deals in: accounts, prices, ledger entries, encoders. No framework, no I/O."""
