"""Being a good service: one daemon for each root, the socket, readiness, and what systemd, launchd and a bare machine expect."""
