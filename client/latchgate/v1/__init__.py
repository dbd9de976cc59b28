"""Generated messages and stubs of the package `latchgate.v1`: the API of Latchgate."""
