"""The parts of every command: options, output, errors, saved logins."""
