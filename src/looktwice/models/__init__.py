"""Models by name: what can be named, where its files lie, and reading them onto a device."""
