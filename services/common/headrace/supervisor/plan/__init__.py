"""Pure decisions of the supervisor: which processes run, when they are restarted and killed."""
