"""Data sets that mmgen makes or fetches itself."""
