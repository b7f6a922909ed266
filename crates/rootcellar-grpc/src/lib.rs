//! rootcellar-grpc
