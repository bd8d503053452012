"""What every command is made of: options, output, errors, saved logins."""
