"""People, memberships and sessions: PersonService, MemberService, SessionService."""
