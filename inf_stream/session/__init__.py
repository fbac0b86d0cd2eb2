"""A session: events in, engine steps and answers out; a pure machine, and one thin driver around it."""
