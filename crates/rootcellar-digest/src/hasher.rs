//! Hashing content as it streams by.

use std::fmt;

use sha2::digest::Digest as _;

use crate::sha256::Sha256;
use crate::sha256tree::Sha256Tree;
use crate::{Digest, DigestError, DigestFunction, sha256};

/// Computes a [`Digest`] of content that arrives in pieces.
#[derive(Clone)]
pub struct Hasher {
    state: State,
    function: DigestFunction,
    declared: u64,
    hashed: u64,
}

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    // Boxed: a BLAKE3 state is 2 KiB, ten times the others.
    Blake3(Box<blake3::Hasher>),
    /// Plain SHA-1, or GITSHA1 behind its header.
    Sha1(sha1::Sha1),
    Md5(md5::Md5),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
    Sha256Tree(Box<Sha256Tree>),
}

impl Hasher {
    /// Starts hashing content of `size_bytes`, which GITSHA1 has to know before the first byte; the other functions take
    /// whatever comes.
    pub fn new(function: DigestFunction, size_bytes: u64) -> Self {
        let state = match function {
            DigestFunction::Sha256 => State::Sha256(Sha256::default()),
            DigestFunction::Blake3 => State::Blake3(Box::default()),
            DigestFunction::Sha1 => State::Sha1(sha1::Sha1::new()),
            DigestFunction::Md5 => State::Md5(md5::Md5::new()),
            DigestFunction::Sha384 => State::Sha384(sha2::Sha384::new()),
            DigestFunction::Sha512 => State::Sha512(sha2::Sha512::new()),
            DigestFunction::Sha256Tree => State::Sha256Tree(Box::default()),
            DigestFunction::GitSha1 => State::Sha1(sha1::Sha1::new_with_prefix(format!("blob {size_bytes}\0"))),
        };
        Self {
            state,
            function,
            declared: size_bytes,
            hashed: 0,
        }
    }

    /// Adds the next piece of the content.
    pub fn update(&mut self, content: &[u8]) {
        self.hashed += content.len() as u64;
        match &mut self.state {
            State::Sha256(state) => state.update(content),
            State::Blake3(state) => drop(state.update(content)),
            State::Sha1(state) => state.update(content),
            State::Md5(state) => state.update(content),
            State::Sha384(state) => state.update(content),
            State::Sha512(state) => state.update(content),
            State::Sha256Tree(state) => state.update(content),
        }
    }

    /// Whether [`update_both`](Self::update_both) takes less time with this one than one after the other: for SHA-256, where the processor
    /// has instructions for it.
    pub fn gains_in_turns(&self) -> bool {
        matches!(self.state, State::Sha256(_)) && sha256::gains_in_turns()
    }

    /// Adds the next piece to each of two contents, in turns if both [gain](Self::gains_in_turns) by that.
    pub fn update_both([one, other]: [&mut Self; 2], contents: [&[u8]; 2]) {
        let (State::Sha256(state), State::Sha256(others)) = (&mut one.state, &mut other.state) else {
            one.update(contents[0]);
            return other.update(contents[1]);
        };
        Sha256::update_both([state, others], contents);
        one.hashed += contents[0].len() as u64;
        other.hashed += contents[1].len() as u64;
    }

    /// Bytes hashed so far.
    pub const fn hashed_bytes(&self) -> u64 {
        self.hashed
    }

    /// The digest of all that was added.
    ///
    /// # Errors
    /// [`DigestError::DeclaredSize`] for GITSHA1 if another number of bytes was added than declared.
    pub fn finish(self) -> Result<Digest, DigestError> {
        if self.function == DigestFunction::GitSha1 && self.hashed != self.declared {
            return Err(DigestError::DeclaredSize {
                declared: self.declared,
                found: self.hashed,
            });
        }
        let (function, size) = (self.function, self.hashed);
        match self.state {
            State::Sha256(state) => Digest::new(function, &state.finish(), size),
            State::Blake3(state) => Digest::new(function, state.finalize().as_bytes(), size),
            State::Sha1(state) => Digest::new(function, &state.finalize(), size),
            State::Md5(state) => Digest::new(function, &state.finalize(), size),
            State::Sha384(state) => Digest::new(function, &state.finalize(), size),
            State::Sha512(state) => Digest::new(function, &state.finalize(), size),
            State::Sha256Tree(state) => Digest::new(function, &state.finish(), size),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher")
            .field("function", &self.function)
            .field("hashed", &self.hashed)
            .finish_non_exhaustive()
    }
}
