//! gRPC messages from and to the frames of HTTP/2, past tonic's codec.
//!
//! The codec gathers each message in a buffer of its own, and encodes answers into another: a copy of everything, both ways. Calls that are
//! mostly content go around it. What they receive stays in the frames in which it came ([`Messages`], [`Chunks`]); what they answer is
//! handed to the transport as it is ([`answer`]).
//!
//! ```text
//!   0, length of the message: u32, big-endian    gRPC over HTTP/2, Length-Prefixed-Message
//!   the message
//! ```

mod chunks;
mod incoming;
mod outgoing;

use http::Request;
use tonic::body::Body;

pub(super) use self::chunks::Chunks;
pub(super) use self::incoming::{Messages, one, one_as, undecodable};
pub(super) use self::outgoing::{PREFIX_BYTES, answer, answer_one, encode, prefix};

/// Whether the messages of a call can be taken past the codec. Compressed ones are the codec's, which refuses them in the words that
/// clients expect.
pub(super) fn are_plain(request: &Request<Body>) -> bool {
    !request.headers().contains_key("grpc-encoding")
}
