"""Published zoos, read from their own files and converted into ours."""
