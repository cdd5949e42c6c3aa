"""Pure decisions of the supervisor: which processes, pauses, patience, stop times."""
