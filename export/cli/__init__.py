"""The command parcae-export: one file for each family of subcommands, each of which calls the rooms below."""
