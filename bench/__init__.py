"""Figures that anyone can measure, one file per question: `python -m bench` runs all, `python -m bench.<name>` one."""
