"""From token ids to what each choice says, and replaying it from any position."""
