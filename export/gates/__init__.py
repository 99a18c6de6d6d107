"""What an artifact must pass: lowering, the golden reference, the pole certificate, and verify on a finished folder."""
