"""Who calls, and what this caller may do: keys, sessions, scopes, and the check of every call.

Services check keys and sessions against tables that control publishes on the bus; none asks control
or a database for permission. A call's `Caller` is made once, by the interceptor.
"""
