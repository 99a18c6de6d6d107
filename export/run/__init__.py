"""An artifact in use: a session, generated text, early exit."""
