//! `GetTree`: all directories of a tree, in pages.

use futures_util::stream::{self, BoxStream, StreamExt as _};
use rootcellar_proto::reapi::GetTreeRequest;
use rootcellar_reapi::tree::PageLimits;
use rootcellar_reapi::{Result, TreePage, TreePages};
use tonic::Status;

use crate::server::core::Core;
use crate::status::refuse;

/// Starts to walk, so that a missing root is an error of the call itself, and goes on page by page as the client reads.
pub(super) async fn pages(
    core: &Core,
    request: &GetTreeRequest,
) -> Result<BoxStream<'static, Result<TreePage, Status>>> {
    core.check_instance(&request.instance_name)?;
    let root = request.root_digest.as_ref();
    let root = core.functions.digest(request.digest_function, "root_digest", root)?;
    let limits = PageLimits {
        // A directory is never split, so a page is as large as a message may be.
        bytes_max: core.limits.reply_bytes_max,
        ..PageLimits::default()
    };
    let limits = limits.requested(request.page_size)?;
    let mut pages =
        TreePages::new(core.store.clone(), root, core.limits.trees.clone(), limits).resume(&request.page_token)?;
    let first = pages.next_page().await?;
    let rest = stream::try_unfold(pages, |mut pages| async {
        let page = pages.next_page().await.map_err(refuse)?;
        Ok(page.map(|page| (page, pages)))
    });
    Ok(stream::iter(first.map(Ok)).chain(rest).boxed())
}
