"""What a GPU does with all this, in minutes: tests, whole trainings, steps beside others'."""
