//! Splitting the items of a request into calls that a server takes.

use rootcellar_digest::{Digest, DigestFunction};

/// An item, or its outcome, with its place in the request.
pub(super) type Indexed<T> = (usize, T);

/// What one call is made for.
#[derive(Debug)]
pub(super) enum Job<T> {
    /// An item that is too large for company.
    Alone(Indexed<T>),
    /// Items of one digest function, at least one.
    Batch(Vec<Indexed<T>>),
}

/// How large a call may be.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    /// Bytes of all blobs together.
    pub(super) bytes_max: u64,
    /// Blobs.
    pub(super) items_max: usize,
    /// Bytes of a blob that has company; a larger one is alone.
    pub(super) item_bytes_max: u64,
}

impl Bounds {
    /// Any number of items of any size.
    pub(super) const NONE: Self = Self {
        bytes_max: u64::MAX,
        items_max: usize::MAX,
        item_bytes_max: u64::MAX,
    };
}

/// Items of one call, which has one digest function.
struct Call<T> {
    items: Vec<Indexed<T>>,
    bytes: u64,
}

/// Splits `items` into calls, in their order as far as their digest functions allow.
pub(super) fn split<T>(
    items: impl IntoIterator<Item = T>,
    digest_of: impl Fn(&T) -> Digest,
    bounds: &Bounds,
) -> Vec<Job<T>> {
    let (mut full, mut open) = (Vec::new(), Vec::new());
    for (index, item) in items.into_iter().enumerate() {
        let digest = digest_of(&item);
        let size = digest.size_bytes();
        if size > bounds.item_bytes_max {
            full.push(Job::Alone((index, item)));
            continue;
        }
        let call = call_of(&mut open, digest);
        // The sizes of a find_missing are not ours to bound.
        let bytes = call.bytes.saturating_add(size);
        if call.items.len() == bounds.items_max || (bytes > bounds.bytes_max && !call.items.is_empty()) {
            full.push(Job::Batch(std::mem::take(&mut call.items)));
            call.bytes = 0;
        }
        call.bytes = call.bytes.saturating_add(size);
        call.items.push((index, item));
    }
    full.extend(open.into_iter().map(|(_, call)| Job::Batch(call.items)));
    full
}

/// The call that is being filled for a digest's function. There are few functions.
fn call_of<T>(open: &mut Vec<(DigestFunction, Call<T>)>, digest: Digest) -> &mut Call<T> {
    let function = digest.function();
    let place = open.iter().position(|(of, _)| *of == function).unwrap_or_else(|| {
        let call = Call {
            items: Vec::new(),
            bytes: 0,
        };
        open.push((function, call));
        open.len() - 1
    });
    &mut open[place].1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        bytes_max: 100,
        items_max: 5,
        item_bytes_max: 60,
    };

    fn items(job: Job<Digest>) -> Vec<Indexed<Digest>> {
        match job {
            Job::Alone(item) => vec![item],
            Job::Batch(items) => items,
        }
    }

    proptest! {
        #[test]
        fn every_item_is_in_one_call_within_bounds(sizes in proptest::collection::vec((0..80_usize, 0..8_usize), 0..60)) {
            let digests: Vec<Digest> = sizes
                .iter()
                .map(|(size, which)| Digest::of(DigestFunction::ALL[*which], &vec![7; *size]))
                .collect();
            let jobs = split(digests.iter().copied(), |digest| *digest, &BOUNDS);
            let is_large = |digest: Digest| digest.size_bytes() > BOUNDS.item_bytes_max;
            let is_right = |job: &Job<Digest>| match job {
                Job::Alone((_, digest)) => is_large(*digest),
                Job::Batch(items) => !items.iter().any(|(_, digest)| is_large(*digest)),
            };
            prop_assert!(jobs.iter().all(is_right));
            let calls: Vec<_> = jobs.into_iter().map(items).collect();
            let mut seen: Vec<usize> = calls.iter().flatten().map(|(index, _)| *index).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..digests.len()).collect::<Vec<_>>());
            for call in calls {
                let sizes: Vec<u64> = call.iter().map(|(_, digest)| digest.size_bytes()).collect();
                prop_assert!(call.iter().all(|(index, digest)| digests[*index] == *digest));
                prop_assert!(call.iter().all(|(_, digest)| digest.function() == call[0].1.function()));
                prop_assert!(call.len() == 1 || sizes.iter().sum::<u64>() <= BOUNDS.bytes_max);
                prop_assert!((1..=BOUNDS.items_max).contains(&call.len()));
            }
        }
    }

    #[test]
    fn calls_are_filled() {
        let digests: Vec<Digest> = (0..20_u8).map(|n| Digest::of(DigestFunction::Sha256, &[n])).collect();
        let jobs = split(digests, |digest| *digest, &BOUNDS);
        let lens: Vec<usize> = jobs.into_iter().map(|job| items(job).len()).collect();
        assert_eq!(lens, [5, 5, 5, 5]);
    }
}
