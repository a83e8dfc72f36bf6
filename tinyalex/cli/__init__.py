"""The `tinyalex` command: flags, and what each command does."""
