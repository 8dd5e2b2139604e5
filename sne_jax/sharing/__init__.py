"""Predictors to give away: folders, model cards, names and the Hub."""
