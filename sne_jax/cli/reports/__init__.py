"""What reports are made of: tables, figures."""
