"""HTTP: routes, who may come in, TLS, metrics, and the page."""
