"""Who may use what they cached, until when, and how they are told to forget. Pure but for one file."""
