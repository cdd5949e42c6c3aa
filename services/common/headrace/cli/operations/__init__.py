"""Commands of operators: requests, fleet, drain, dead-letters, audit."""
