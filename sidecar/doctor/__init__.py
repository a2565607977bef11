"""The command `doctor`: looks at everything that the picture depends on, and says what to do."""
