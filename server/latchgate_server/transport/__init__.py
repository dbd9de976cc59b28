"""The servers: gRPC in, values of the core within, gRPC out. The only rooms that know protobuf."""
