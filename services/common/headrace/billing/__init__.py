"""Money and calendars, as they are counted in."""
