"""Measurements: experiments/*.yaml says what is run, run.py runs it, results/ keeps the rows, figures.py draws them."""
