"""The gateway process: one PULL for each Mongrel2, many workers behind it, and the hub that holds connections."""
