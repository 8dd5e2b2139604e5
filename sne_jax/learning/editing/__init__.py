"""Networks that are images, edited as images are."""
