"""What clients speak, one file each over one session object: messages and events in, messages out."""
