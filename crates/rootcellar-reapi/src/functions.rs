//! The digest functions a server announces, and what follows for the digests in a request.
//!
//! A request names one function for all its digests, or none: then the length of a hash tells, among the announced functions
//! that can be told so (REAPI, `DigestFunction`). BLAKE3, SHA256TREE and GITSHA1 are always named.

use std::fmt;

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi;
use rootcellar_proto::reapi::digest_function::Value;

use crate::{Error, Result};

/// The digest functions that are announced: the first is the default, and no other is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Functions(Vec<DigestFunction>);

/// SHA-256 and BLAKE3: what clients use, and none whose collisions can be made on purpose.
impl Default for Functions {
    fn default() -> Self {
        Self(vec![DigestFunction::Sha256, DigestFunction::Blake3])
    }
}

impl Functions {
    /// Announces `functions`, the default first.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if there is none, or one comes twice.
    pub fn new(functions: Vec<DigestFunction>) -> Result<Self> {
        if functions.is_empty() {
            return Err(Error::invalid_argument(
                "at least one digest function has to be announced",
            ));
        }
        for (index, function) in functions.iter().enumerate() {
            if functions[..index].contains(function) {
                return Err(Error::invalid_argument(format!(
                    "digest function {function} is announced twice"
                )));
            }
        }
        Ok(Self(functions))
    }

    /// The announced functions.
    pub fn announced(&self) -> &[DigestFunction] {
        &self.0
    }

    /// The function that is used where nothing tells another.
    pub fn first(&self) -> DigestFunction {
        self.0[0]
    }

    /// Lets announced functions pass.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument), naming the announced ones, for any other.
    pub fn check(&self, function: DigestFunction) -> Result<DigestFunction> {
        if self.0.contains(&function) {
            return Ok(function);
        }
        Err(self.unsupported(function.name()))
    }

    /// The function that a request's `digest_function` field names; `None` if the field is not set.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument), naming the announced ones, if the function is not announced.
    pub fn named(&self, requested: i32) -> Result<Option<DigestFunction>> {
        if requested == i32::from(Value::Unknown) {
            return Ok(None);
        }
        match Value::try_from(requested) {
            Ok(value) => match from_value(value) {
                Some(function) => self.check(function).map(Some),
                None => Err(self.unsupported(value.as_str_name())),
            },
            Err(_) => Err(self.unsupported(&format!("number {requested}"))),
        }
    }

    /// The function of an unnamed hash of `hex_len` digits.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if no announced function can be told from that length.
    pub fn infer(&self, hex_len: usize) -> Result<DigestFunction> {
        DigestFunction::infer(hex_len, &self.0).ok_or_else(|| {
            Error::invalid_argument(format!(
                "a hash of {hex_len} digits does not tell its digest function: name it, or use one of {self}"
            ))
        })
    }

    /// The function of a request: the one its field names, or the one that the length of its hashes tells.
    ///
    /// # Errors
    /// As [`Self::named`] and [`Self::infer`].
    pub fn resolve(&self, requested: i32, hex_len: usize) -> Result<DigestFunction> {
        self.named(requested)?.map_or_else(|| self.infer(hex_len), Ok)
    }

    /// Reads the digest in the `field` of a request, where it has to be present.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument), naming the field, if the digest is absent or malformed or its
    /// function is not announced.
    pub fn digest(&self, requested: i32, field: &str, digest: Option<&reapi::Digest>) -> Result<Digest> {
        let digest = digest.ok_or_else(|| Error::invalid_argument(format!("{field} is not set")))?;
        self.digest_of(requested, field, &digest.hash, digest.size_bytes)
    }

    /// The same, of the digest's own fields.
    ///
    /// # Errors
    /// As [`Self::digest`].
    pub fn digest_of(&self, requested: i32, field: &str, hash: &str, size_bytes: i64) -> Result<Digest> {
        self.resolve(requested, hash.len())
            .and_then(|function| Ok(Digest::from_hex(function, hash, size_bytes)?))
            .map_err(|error| error.about(field))
    }

    /// Reads the digests in the `field` of a request, all of one function.
    ///
    /// # Errors
    /// As [`Self::digest`], for the first digest that is wrong.
    pub fn digests(&self, requested: i32, field: &str, digests: &[reapi::Digest]) -> Result<Vec<Digest>> {
        let named = self.named(requested).map_err(|error| error.about(field))?;
        let Some(first) = digests.first() else {
            return Ok(Vec::new());
        };
        let read_all = || -> Result<Vec<Digest>> {
            let function = named.map_or_else(|| self.infer(first.hash.len()), Ok)?;
            digests.iter().map(|digest| from_proto(function, digest)).collect()
        };
        read_all().map_err(|error| error.about(field))
    }

    fn unsupported(&self, name: &str) -> Error {
        Error::invalid_argument(format!(
            "digest function {name} is not supported here: use one of {self}"
        ))
    }
}

/// Lists the announced functions for a person.
impl fmt::Display for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, function) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{function}")?;
        }
        Ok(())
    }
}

/// The API's value for a function.
pub const fn value(function: DigestFunction) -> Value {
    match function {
        DigestFunction::Sha256 => Value::Sha256,
        DigestFunction::Blake3 => Value::Blake3,
        DigestFunction::Sha1 => Value::Sha1,
        DigestFunction::Md5 => Value::Md5,
        DigestFunction::Sha384 => Value::Sha384,
        DigestFunction::Sha512 => Value::Sha512,
        DigestFunction::Sha256Tree => Value::Sha256tree,
        DigestFunction::GitSha1 => Value::Gitsha1,
    }
}

/// The function of an API value, if it is one that this project computes.
pub fn from_value(value: Value) -> Option<DigestFunction> {
    DigestFunction::ALL
        .into_iter()
        .find(|function| self::value(*function) == value)
}

/// The digest as a message; the function travels beside it.
pub fn to_proto(digest: Digest) -> reapi::Digest {
    reapi::Digest {
        hash: digest.hash_hex().to_string(),
        size_bytes: i64::try_from(digest.size_bytes()).expect("no blob has 2^63 bytes"),
    }
}

/// Reads a digest whose function is known.
///
/// # Errors
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the hash is not of that function or the size is negative.
pub fn from_proto(function: DigestFunction, digest: &reapi::Digest) -> Result<Digest> {
    Ok(Digest::from_hex(function, &digest.hash, digest.size_bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const UNSET: i32 = 0;

    fn all() -> Functions {
        Functions::new(DigestFunction::ALL.to_vec()).unwrap()
    }

    #[test]
    fn an_unnamed_function_is_told_by_the_length_of_the_hash() {
        for (hex_len, function) in [
            (32, DigestFunction::Md5),
            (40, DigestFunction::Sha1),
            (64, DigestFunction::Sha256),
            (96, DigestFunction::Sha384),
            (128, DigestFunction::Sha512),
        ] {
            assert_eq!(all().resolve(UNSET, hex_len).unwrap(), function);
        }
        for hex_len in [0, 31, 65, 66] {
            assert_eq!(
                all().resolve(UNSET, hex_len).unwrap_err().kind(),
                ErrorKind::InvalidArgument
            );
        }
    }

    #[test]
    fn blake3_is_never_told_by_the_length_of_the_hash() {
        let functions = Functions::new(vec![DigestFunction::Blake3]).unwrap();
        let error = functions.resolve(UNSET, 64).unwrap_err();
        assert!(error.to_string().contains("blake3"), "{error}");
        assert_eq!(functions.resolve(9, 64).unwrap(), DigestFunction::Blake3);
    }

    #[test]
    fn only_announced_functions_are_accepted() {
        let functions = Functions::default();
        for requested in [2, 3, 4, 7, 11, -1] {
            let error = functions.resolve(requested, 64).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains("sha256, blake3"), "{error}");
        }
        assert!(functions.resolve(UNSET, 40).is_err());
        assert!(functions.digests(3, "blob_digests", &[]).is_err());
    }

    #[test]
    fn values_read_back() {
        for function in DigestFunction::ALL {
            assert_eq!(from_value(value(function)), Some(function));
        }
        for value in [Value::Unknown, Value::Vso, Value::Murmur3] {
            assert_eq!(from_value(value), None);
        }
    }

    #[test]
    fn a_digest_reads_back_from_its_message() {
        for function in DigestFunction::ALL {
            let digest = Digest::of(function, b"content");
            let requested = value(function).into();
            let read = all().digest(requested, "blob_digest", Some(&to_proto(digest))).unwrap();
            assert_eq!(read, digest);
        }
    }

    #[test]
    fn a_digest_that_is_absent_or_malformed_is_told_by_its_field() {
        let error = all().digest(UNSET, "action_digest", None).unwrap_err();
        assert_eq!(error.to_string(), "action_digest is not set");
        let negative = reapi::Digest {
            size_bytes: -1,
            ..to_proto(Digest::of(DigestFunction::Sha256, b""))
        };
        let error = all().digest(UNSET, "action_digest", Some(&negative)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().starts_with("action_digest: "), "{error}");
    }

    #[test]
    fn digests_of_two_functions_in_one_request_are_refused() {
        let mixed = [
            to_proto(Digest::of(DigestFunction::Sha256, b"a")),
            to_proto(Digest::of(DigestFunction::Md5, b"a")),
        ];
        let error = all().digests(UNSET, "blob_digests", &mixed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}
