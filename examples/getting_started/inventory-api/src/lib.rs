//! What tonic generates from `inventory.proto`.

tonic::include_proto!("inventory");
