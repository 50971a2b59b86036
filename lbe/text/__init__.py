"""Text itself: lines of JSON, scripts, languages."""
