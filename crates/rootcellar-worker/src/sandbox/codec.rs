//! Values as bytes and back: little-endian numbers, strings and lists behind a u32 count.
//!
//! Both ends are the same build of the same program, so that nothing has a version. Bytes are read with care all the
//! same: a message that was cut short must become an error, never another message.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Puts values behind one another.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    pub(super) bytes: Vec<u8>,
}

impl Encoder {
    pub(super) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.u8(value.into());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn duration(&mut self, value: Duration) {
        self.u64(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX));
    }

    fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("a spec that fits in memory twice has fewer than 2^32 items"));
    }

    pub(super) fn string(&mut self, value: &[u8]) {
        self.count(value.len());
        self.bytes.extend(value);
    }

    pub(super) fn path(&mut self, path: &Path) {
        self.string(path.as_os_str().as_bytes());
    }

    pub(super) fn tagged_path(&mut self, tag: u8, path: &Path) {
        self.u8(tag);
        self.path(path);
    }

    pub(super) fn list<T>(&mut self, items: &[T], item: impl Fn(&mut Self, &T)) {
        self.count(items.len());
        for value in items {
            item(self, value);
        }
    }

    pub(super) fn optional_u64(&mut self, value: Option<u64>) {
        self.bool(value.is_some());
        self.u64(value.unwrap_or(0));
    }
}

/// Takes values off bytes that might be cut short or wrong.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| malformed("cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.take(N)
            .map(|bytes| bytes.try_into().expect("take returns as many bytes as asked for"))
    }

    pub(super) fn u8(&mut self) -> io::Result<u8> {
        self.array::<1>().map(|[value]| value)
    }

    pub(super) fn bool(&mut self) -> io::Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(malformed(format!("{other} is neither yes nor no"))),
        }
    }

    pub(super) fn u32(&mut self) -> io::Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn duration(&mut self) -> io::Result<Duration> {
        self.u64().map(Duration::from_nanos)
    }

    pub(super) fn string(&mut self) -> io::Result<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).map_err(|_| malformed("longer than memory"))?)
    }

    pub(super) fn os_string(&mut self) -> io::Result<OsString> {
        self.string().map(|bytes| OsString::from_vec(bytes.to_vec()))
    }

    pub(super) fn path(&mut self) -> io::Result<PathBuf> {
        self.os_string().map(PathBuf::from)
    }

    pub(super) fn text(&mut self) -> io::Result<String> {
        String::from_utf8(self.string()?.to_vec()).map_err(|_| malformed("not UTF-8"))
    }

    pub(super) fn list<T>(&mut self, item: impl Fn(&mut Self) -> io::Result<T>) -> io::Result<Vec<T>> {
        let count = self.u32()?;
        (0..count).map(|_| item(self)).collect()
    }

    pub(super) fn optional_u64(&mut self) -> io::Result<Option<u64>> {
        let present = self.bool()?;
        self.u64().map(|value| present.then_some(value))
    }

    pub(super) fn end(&self) -> io::Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(malformed(format!("{} bytes too many", self.rest.len())))
        }
    }
}

/// The error of bytes that are not what they should be.
pub(super) fn malformed(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("sandbox message: {}", what.into()))
}
