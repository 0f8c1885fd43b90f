"""A teacher on this machine: any open_clip model, of the extra `local`. It meets no vendor and costs no query."""
