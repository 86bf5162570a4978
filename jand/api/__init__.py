"""HTTP on the socket: routes, validation, status codes, and nothing that decides about a model."""
