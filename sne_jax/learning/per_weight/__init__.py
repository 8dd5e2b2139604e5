"""What editors and maskers share: weights in, a value for each weight out."""
