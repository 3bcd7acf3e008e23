"""Messages with several labels: their figures, their scores, and the baseline for them."""
