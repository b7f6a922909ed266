//! Resource names of ByteStream: which blob is read, or written in which upload.
//!
//! ```text
//! read   [{instance}/]                blobs/                          [{function}/]{hash}/{size}
//! read   [{instance}/]                compressed-blobs/{compressor}/  [{function}/]{hash}/{size}
//! write  [{instance}/]uploads/{uuid}/ blobs/                          [{function}/]{hash}/{size}[/{metadata}]
//! write  [{instance}/]uploads/{uuid}/ compressed-blobs/{compressor}/  [{function}/]{hash}/{size}[/{metadata}]
//! ```
//!
//! An instance may hold slashes and metadata may hold anything, so a name is read from the left: the first reserved word ends
//! the instance. A function that the length of a hash tells may be named all the same; it is left out when a name is written.
//!
//! Parsing says what a name means. Whether its compressor is announced is for the server to say.

use std::fmt;
use std::str::Split;

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi::compressor::Value as Compressor;

use crate::instance::RESERVED_SEGMENTS;
use crate::quoted::Quoted;
use crate::{Error, Functions, InstanceName, Result};

/// The longest resource name, in bytes: an instance of full length, and metadata.
pub const RESOURCE_NAME_BYTES_MAX: usize = 4096;

/// Names a blob to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadName {
    /// The instance that is asked.
    pub instance: InstanceName,
    /// How the bytes travel; `IDENTITY` is a plain read.
    pub compressor: Compressor,
    /// The blob.
    pub digest: Digest,
}

/// Names a blob to write, in an upload that can be resumed. What keeps the state of an upload uses the whole text as its
/// key: clients reuse one `uuid` for several blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteName {
    /// The instance that is asked.
    pub instance: InstanceName,
    /// The client's name for the upload. Any text that is one segment passes.
    pub upload: String,
    /// How the bytes travel; `IDENTITY` is a plain write.
    pub compressor: Compressor,
    /// The blob.
    pub digest: Digest,
}

impl ReadName {
    /// Reads the name of a blob to read.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for anything else, uploads included.
    pub fn parse(name: &str, functions: &Functions) -> Result<Self> {
        parse(name, |scan| {
            let (instance, keyword) = scan.instance()?;
            let compressor = scan.compressor(keyword)?;
            let digest = scan.digest(functions)?;
            scan.end()?;
            Ok(Self {
                instance,
                compressor,
                digest,
            })
        })
    }
}

impl WriteName {
    /// Reads the name of a blob to write. Metadata behind the size is free and means nothing here.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for anything else.
    pub fn parse(name: &str, functions: &Functions) -> Result<Self> {
        parse(name, |scan| {
            let (instance, keyword) = scan.instance()?;
            if keyword != "uploads" {
                return Err(unexpected("uploads", keyword));
            }
            let upload = scan.segment("an upload's uuid")?.to_owned();
            let keyword = scan.segment("blobs or compressed-blobs")?;
            Ok(Self {
                instance,
                upload,
                compressor: scan.compressor(keyword)?,
                digest: scan.digest(functions)?,
            })
        })
    }
}

/// `blobs/[{function}/]{hash}/{size}`: the name of a blob where no instance is told, as violations of type `MISSING` have it.
pub fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}", DigestPath(digest))
}

fn parse<T>(name: &str, read: impl FnOnce(&mut Scan<'_>) -> Result<T>) -> Result<T> {
    let len = name.len();
    if len > RESOURCE_NAME_BYTES_MAX {
        return Err(Error::invalid_argument(format!(
            "the resource name has {len} bytes; at most {RESOURCE_NAME_BYTES_MAX} are allowed"
        )));
    }
    let mut scan = Scan {
        name,
        segments: name.split('/'),
    };
    read(&mut scan).map_err(|error| error.about(format_args!("resource name {}", Quoted(name))))
}

/// The segments of a name that were not read yet.
struct Scan<'a> {
    name: &'a str,
    segments: Split<'a, char>,
}

impl<'a> Scan<'a> {
    /// Reads up to the first reserved word: what lies before it, and the word.
    fn instance(&mut self) -> Result<(InstanceName, &'a str)> {
        let mut instance_len = 0;
        for segment in self.segments.by_ref() {
            if RESERVED_SEGMENTS.contains(&segment) {
                return self.instance_of_len(instance_len).map(|instance| (instance, segment));
            }
            instance_len += segment.len() + "/".len();
        }
        Err(Error::invalid_argument(
            "there is no blobs, compressed-blobs or uploads in it",
        ))
    }

    /// The instance that takes the first `len` bytes, the slash behind it included.
    fn instance_of_len(&self, len: usize) -> Result<InstanceName> {
        match &self.name[..len] {
            "" => Ok(InstanceName::default()),
            "/" => Err(Error::invalid_argument("it begins with a slash")),
            prefix => InstanceName::parse(&prefix[..prefix.len() - 1]),
        }
    }

    fn segment(&mut self, wanted: &str) -> Result<&'a str> {
        match self.segments.next() {
            None | Some("") => Err(Error::invalid_argument(format!("{wanted} is missing from it"))),
            Some(segment) => Ok(segment),
        }
    }

    fn compressor(&mut self, keyword: &str) -> Result<Compressor> {
        match keyword {
            "blobs" => Ok(Compressor::Identity),
            "compressed-blobs" => named_compressor(self.segment("a compressor")?),
            _ => Err(unexpected("blobs or compressed-blobs", keyword)),
        }
    }

    fn digest(&mut self, functions: &Functions) -> Result<Digest> {
        let first = self.segment("a hash")?;
        let (function, hash) = match first.parse::<DigestFunction>() {
            Ok(function) => (functions.check(function)?, self.segment("a hash")?),
            Err(_) => (functions.infer(first.len())?, first),
        };
        Ok(Digest::from_text(function, hash, self.segment("a size")?)?)
    }

    fn end(&mut self) -> Result<()> {
        match self.segments.next() {
            None => Ok(()),
            Some(segment) => Err(unexpected("the end", segment)),
        }
    }
}

fn unexpected(wanted: &str, found: &str) -> Error {
    Error::invalid_argument(format!("it holds {} where {wanted} should be", Quoted(found)))
}

fn named_compressor(name: &str) -> Result<Compressor> {
    [Compressor::Zstd, Compressor::Deflate, Compressor::Brotli]
        .into_iter()
        .find(|compressor| compressor_name(*compressor) == name)
        .ok_or_else(|| unexpected("zstd, deflate or brotli", name))
}

/// The lower-cased name of the API's enum value, as resource names spell it.
pub const fn compressor_name(compressor: Compressor) -> &'static str {
    match compressor {
        Compressor::Identity => "identity",
        Compressor::Zstd => "zstd",
        Compressor::Deflate => "deflate",
        Compressor::Brotli => "brotli",
    }
}

impl fmt::Display for ReadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = BodyName(self.compressor, &self.digest);
        write!(f, "{}{body}", self.instance.prefix())
    }
}

impl fmt::Display for WriteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = BodyName(self.compressor, &self.digest);
        write!(f, "{}uploads/{}/{body}", self.instance.prefix(), self.upload)
    }
}

/// From `blobs` or `compressed-blobs` on.
struct BodyName<'a>(Compressor, &'a Digest);

impl fmt::Display for BodyName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Compressor::Identity => write!(f, "blobs/{}", DigestPath(self.1)),
            compressor => write!(
                f,
                "compressed-blobs/{}/{}",
                compressor_name(compressor),
                DigestPath(self.1)
            ),
        }
    }
}

/// `[{function}/]{hash}/{size}`.
struct DigestPath<'a>(&'a Digest);

impl fmt::Display for DigestPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let function = self.0.function();
        if !function.is_inferable() {
            write!(f, "{function}/")?;
        }
        write!(f, "{}/{}", self.0.hash_hex(), self.0.size_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorKind;

    const HASH: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    const COMPRESSORS: [Compressor; 4] = [
        Compressor::Identity,
        Compressor::Zstd,
        Compressor::Deflate,
        Compressor::Brotli,
    ];

    fn all() -> Functions {
        Functions::new(DigestFunction::ALL.to_vec()).unwrap()
    }

    fn read(name: &str) -> Result<ReadName> {
        ReadName::parse(name, &all())
    }

    fn write(name: &str) -> Result<WriteName> {
        WriteName::parse(name, &all())
    }

    #[test]
    fn the_first_reserved_word_ends_the_instance() {
        let name = read(&format!("main/sub/blobs/{HASH}/6")).unwrap();
        assert_eq!(name.instance.as_str(), "main/sub");
        assert!(read(&format!("blobs/uploads/blobs/{HASH}/6")).is_err());
        assert!(read(&format!("actions/blobs/{HASH}/6")).is_err());
    }

    #[test]
    fn an_upload_may_carry_metadata_that_looks_like_a_name() {
        let name = write(&format!("a/uploads/u/blobs/{HASH}/6/blobs/../uploads//x")).unwrap();
        assert_eq!(name.to_string(), format!("a/uploads/u/blobs/{HASH}/6"));
        assert!(read(&format!("blobs/{HASH}/6/x")).is_err());
        assert!(read(&format!("blobs/{HASH}/6/")).is_err());
    }

    #[test]
    fn a_function_is_read_wherever_it_is_named_and_written_where_it_must_be() {
        let redundant = read(&format!("blobs/sha256/{HASH}/6")).unwrap();
        assert_eq!(redundant, read(&format!("blobs/{HASH}/6")).unwrap());
        assert_eq!(redundant.to_string(), format!("blobs/{HASH}/6"));
        let blake3 = format!("compressed-blobs/zstd/blake3/{HASH}/6");
        assert_eq!(read(&blake3).unwrap().to_string(), blake3);
    }

    #[test]
    fn what_is_no_name_is_an_invalid_argument() {
        for bad in [
            String::new(),
            "blobs".to_owned(),
            "blobs/".to_owned(),
            format!("blobs/{HASH}"),
            format!("blobs/{HASH}/"),
            format!("blobs/{HASH}/-1"),
            format!("blobs/{HASH}/+1"),
            format!("blobs/{HASH}/06"),
            format!("blobs/{HASH}/0x6"),
            format!("blobs/{HASH}/9223372036854775808"),
            format!("blobs/{}/6", HASH.to_uppercase()),
            format!("blobs/{}/6", &HASH[1..]),
            format!("blobs/blake2/{HASH}/6"),
            format!("blobs/SHA256/{HASH}/6"),
            format!("/blobs/{HASH}/6"),
            format!("a//blobs/{HASH}/6"),
            format!("blob/{HASH}/6"),
            format!("compressed-blobs/{HASH}/6"),
            format!("compressed-blobs/identity/{HASH}/6"),
            format!("compressed-blobs/ZSTD/{HASH}/6"),
            format!("compressed-blobs/gzip/{HASH}/6"),
            format!("uploads/u/blobs/{HASH}/6"),
            format!("{}/blobs/{HASH}/6", "x".repeat(RESOURCE_NAME_BYTES_MAX)),
        ] {
            let error = read(&bad).expect_err(&bad);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad:?}");
        }
        for bad in [
            format!("blobs/{HASH}/6"),
            format!("uploads/blobs/{HASH}/6"),
            format!("uploads//blobs/{HASH}/6"),
            format!("uploads/u/{HASH}/6"),
            format!("uploads/u/uploads/u/blobs/{HASH}/6"),
        ] {
            let error = write(&bad).expect_err(&bad);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad:?}");
        }
    }

    #[test]
    fn a_function_that_is_not_announced_is_refused() {
        let functions = Functions::default();
        assert!(ReadName::parse(&format!("blobs/sha256tree/{HASH}/6"), &functions).is_err());
        assert!(ReadName::parse(&format!("blobs/{}/6", &HASH[..40]), &functions).is_err());
    }

    fn instances() -> impl Strategy<Value = InstanceName> {
        let segments = proptest::collection::vec("[a-zA-Z0-9 .:=ü-]{1,8}", 0..4);
        segments.prop_filter_map("reserved", |segments| InstanceName::parse(&segments.join("/")).ok())
    }

    fn digests() -> impl Strategy<Value = Digest> {
        let content = proptest::collection::vec(any::<u8>(), 0..64);
        (0..DigestFunction::ALL.len(), content)
            .prop_map(|(which, content)| Digest::of(DigestFunction::ALL[which], &content))
    }

    proptest! {
        #[test]
        fn a_name_reads_back_from_its_text(
            instance in instances(),
            upload in "[a-f0-9-]{1,36}",
            which in 0..COMPRESSORS.len(),
            digest in digests(),
        ) {
            let compressor = COMPRESSORS[which];
            let read_name = ReadName { instance: instance.clone(), compressor, digest };
            prop_assert_eq!(&read(&read_name.to_string()).unwrap(), &read_name);
            let write_name = WriteName { instance, upload, compressor, digest };
            prop_assert_eq!(&write(&write_name.to_string()).unwrap(), &write_name);
            prop_assert_eq!(&write(&format!("{write_name}/meta/data")).unwrap(), &write_name);
        }

        #[test]
        fn no_text_makes_parsing_panic(text in "(blobs|uploads|compressed-blobs|zstd|blake3|/|[0-9a-f]{32}|\\PC){0,12}") {
            let _outcome = (read(&text), write(&text));
        }
    }
}
