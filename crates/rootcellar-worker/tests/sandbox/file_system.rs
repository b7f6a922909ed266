use crate::harness::Claim;
pub(crate) const CLAIMS: &[Claim] = &[];
