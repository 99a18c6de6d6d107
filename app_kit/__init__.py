"""The app kit: vectors and schemas that every app in every language passes, and what makes them (`make.py`)."""
