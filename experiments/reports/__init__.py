"""What runs leave to read: pages, tables, figures."""
