"""Tables of any length, row by row: what is not changed in them is kept byte for byte."""
