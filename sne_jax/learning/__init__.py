"""Losses, metrics and the training of predictors."""
