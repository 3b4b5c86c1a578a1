"""Find models by name, locate their files, and read them onto a device."""
