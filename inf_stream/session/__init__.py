"""A session: events in, engine steps and answers out; pure rules, and one thin driver around them."""
