"""Encrypted inference: a client encrypts, a server runs the network and sees neither input, output nor key."""
