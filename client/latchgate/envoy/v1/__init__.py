"""Generated messages of the package `latchgate.envoy.v1`: what Envoy and an external authorizer exchange."""
