"""Generated code of the packages below `latchgate.rpc`."""
