"""Services of the operating system: durable files, file locks and the clock."""
