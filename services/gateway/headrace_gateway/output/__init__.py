"""From token ids to the text of each choice, and its replay from any position."""
