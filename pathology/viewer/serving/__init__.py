"""The viewer on an address of this machine: the server, and who may ask it."""
