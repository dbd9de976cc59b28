"""Generated messages of the package `latchgate.rpc.v1`: what comes with an error."""
