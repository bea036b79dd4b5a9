"""Rewards over HTTP: protocol, client and server."""
