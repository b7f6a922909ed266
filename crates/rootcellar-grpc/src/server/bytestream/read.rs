//! `Read`: a range of a blob, in pieces that the client's flow control asks for.

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use rootcellar_proto::bytestream::ReadRequest;
use rootcellar_reapi::{Error, ErrorKind, ReadName, Result};
use rootcellar_store::ByteRange;
use tonic::Status;

use super::check_compressor;
use crate::server::core::Core;
use crate::status::refuse;

/// Opens the blob, so that a missing one is an error of the call itself, and hands out the pieces.
pub(super) async fn read(core: &Core, request: &ReadRequest) -> Result<BoxStream<'static, Result<Bytes, Status>>> {
    let target = ReadName::parse(&request.resource_name, &core.functions)?;
    check_compressor(target.compressor)?;
    let range = range(request)?;
    let wanted = range.resolve(target.digest)?;
    let blob = core.store.get(target.digest, range).await?;
    let pieces = blob.into_stream().map(|piece| piece.map_err(Error::from));
    let pieces = whole(pieces, wanted.end - wanted.start);
    let pieces = small(pieces, core.limits.read_piece_bytes);
    Ok(pieces.map(|piece| piece.map_err(refuse)).boxed())
}

/// The range that a request means (RD-1, RD-2).
fn range(request: &ReadRequest) -> Result<ByteRange> {
    let offset = u64::try_from(request.read_offset).map_err(|_| {
        let reason = format!("the read begins at {}, before the blob", request.read_offset);
        Error::new(ErrorKind::OutOfRange, reason)
    })?;
    let limit = u64::try_from(request.read_limit)
        .map_err(|_| Error::invalid_argument(format!("the read limit {} is negative", request.read_limit)))?;
    Ok(ByteRange {
        offset,
        len: (limit > 0).then_some(limit),
    })
}

/// Ends with an error if there are less or more than `len` bytes: a short read must not look like a short blob (RD-10).
fn whole<S>(pieces: S, len: u64) -> impl Stream<Item = Result<Bytes>> + Send
where
    S: Stream<Item = Result<Bytes>> + Send + Unpin,
{
    stream::try_unfold((pieces, len), |(mut pieces, left)| async move {
        let piece = pieces.next().await.transpose()?;
        let Some(piece) = piece else {
            return if left == 0 {
                Ok(None)
            } else {
                Err(data_loss(format!("{left} bytes of the blob are missing")))
            };
        };
        let left = left
            .checked_sub(piece.len() as u64)
            .ok_or_else(|| data_loss("the blob is longer than its digest says".to_owned()))?;
        Ok(Some((piece, (pieces, left))))
    })
}

fn data_loss(reason: String) -> Error {
    Error::new(ErrorKind::DataLoss, reason)
}

/// Cuts pieces into such of at most `max` bytes, without copying.
fn small<S>(pieces: S, max: usize) -> impl Stream<Item = Result<Bytes>> + Send
where
    S: Stream<Item = Result<Bytes>> + Send,
{
    pieces.flat_map(move |piece| match piece {
        Ok(piece) => stream::iter(cut(piece, max)).map(Ok).left_stream(),
        Err(error) => stream::iter([Err(error)]).right_stream(),
    })
}

fn cut(mut piece: Bytes, max: usize) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let next = piece.split_to(max.min(piece.len()));
        (!next.is_empty()).then_some(next)
    })
}
