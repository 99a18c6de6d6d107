"""The page report.html of an artifact folder, and the same page for several artifacts side by side."""
