//! What can be wrong with a digest that comes from outside.

use std::fmt;

use crate::DigestFunction;

/// Says why text or bytes are no digest. Every kind is the sender's mistake: `INVALID_ARGUMENT` on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DigestError {
    /// The hash has not the length that the function makes.
    HashLength {
        /// The function that was named.
        function: DigestFunction,
        /// Hexadecimal digits found; [`DigestFunction::hex_len`] are needed.
        found: usize,
    },
    /// The hash holds something else than lower-case hexadecimal digits.
    HashCharacter,
    /// The size is negative.
    NegativeSize(i64),
    /// The size is no plain decimal number of 63 bits: digits only, no sign, no leading zero.
    SizeText,
    /// No function of this name is known.
    UnknownFunction(String),
    /// The text has not the shape `[function/]hash/size`.
    Shape,
    /// Content named by GITSHA1 is hashed behind its length, and another length arrived than was declared.
    DeclaredSize {
        /// Bytes that were declared when hashing began.
        declared: u64,
        /// Bytes that were hashed.
        found: u64,
    },
}

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HashLength { function, found } => {
                write!(
                    f,
                    "a {function} hash has {} hexadecimal digits, not {found}",
                    function.hex_len()
                )
            }
            Self::HashCharacter => write!(f, "a hash is made of the digits 0-9 and a-f, in lower case"),
            Self::NegativeSize(size) => write!(f, "a digest's size cannot be negative: {size}"),
            Self::SizeText => write!(
                f,
                "a digest's size is a plain decimal number without sign or leading zeros"
            ),
            Self::UnknownFunction(name) => write!(f, "unknown digest function {name:?}"),
            Self::Shape => write!(f, "a digest is written [function/]hash/size"),
            Self::DeclaredSize { declared, found } => {
                write!(f, "{found} bytes arrived where {declared} were declared")
            }
        }
    }
}

impl std::error::Error for DigestError {}
