"""The search for the settings that a method is trained with."""
