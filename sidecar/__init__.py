"""The sidecar: reads what the plugin wrote and streams it as Server-Sent Events."""
