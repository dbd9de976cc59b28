"""`make demo`: Envoy, a small upstream and Latchgate on this machine, and what clients see of them."""
