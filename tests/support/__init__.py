"""Real servers, workers and streams for the tests."""
