"""Messages, templates and prompts."""
