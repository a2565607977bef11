"""Applications beside the sidecar; README.md says how to run them."""
