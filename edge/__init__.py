"""The edge path; empty until engines are built for it."""
