"""Plugins: found, loaded one by one, recorded, looked up by kind."""
