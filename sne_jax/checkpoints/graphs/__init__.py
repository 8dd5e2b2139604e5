"""How the network of a file is computed, where the file says so."""
