//! Protobuf fields, one after another, without building the message they are in.
//!
//! Two things here need the bytes as they were sent: a Directory inside a Tree is named by the hash of its own bytes, and a
//! message from outside is judged record by record, so that a small blob cannot blow up into a large message first.

use crate::{Error, Result};

/// Longest varint: ten groups of seven bits.
const VARINT_BYTES_MAX: usize = 10;

/// Field numbers have 29 bits.
const NUMBERS_END: u64 = 1 << 29;

/// One field of a message as it lies on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) number: u64,
    /// The content of a string, bytes or message field; `None` for the numeric wire types.
    pub(crate) record: Option<&'a [u8]>,
}

impl<'a> Field<'a> {
    /// The content of a field that is a message.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if the field was sent as a number.
    pub(crate) fn message(&self) -> Result<&'a [u8]> {
        let wrong_type = || Error::invalid_argument(format!("field {} is a number, not a message", self.number));
        self.record.ok_or_else(wrong_type)
    }
}

/// Walks over the fields of an encoded message. Ends after the first error.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Result<Field<'a>> {
        let key = self.varint()?;
        let record = match key & 7 {
            0 => self.varint().map(|_| None)?,
            1 => self.take(8).map(|_| None)?,
            2 => {
                let len = self.varint()?;
                Some(self.take(len)?)
            }
            5 => self.take(4).map(|_| None)?,
            wire_type => return Err(malformed(&format!("has wire type {wire_type}"))),
        };
        match key >> 3 {
            0 | NUMBERS_END.. => Err(malformed("has no valid number")),
            number => Ok(Field { number, record }),
        }
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for (index, byte) in self.rest.iter().take(VARINT_BYTES_MAX).enumerate() {
            let (group, shift) = (u64::from(byte & 0x7f), 7 * index);
            if group << shift >> shift != group {
                return Err(malformed("has a number of more than 64 bits"));
            }
            value |= group << shift;
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(malformed("has a number that does not end"))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        let taken = usize::try_from(len)
            .ok()
            .and_then(|len| self.rest.split_at_checked(len));
        let (taken, rest) = taken.ok_or_else(|| malformed("ends behind the end of the message"))?;
        self.rest = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

fn malformed(reason: &str) -> Error {
    Error::invalid_argument(format!("not a protobuf message: a field {reason}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(message: &[u8]) -> Result<Vec<u64>> {
        Fields::of(message)
            .map(|field| field.map(|field| field.number))
            .collect()
    }

    #[test]
    fn fields_come_in_the_order_of_the_wire() {
        let message = [
            0x08, 0x96, 0x01, // 1: the number 150
            0x12, 0x01, b'x', // 2: one byte
            0x1d, 0, 0, 0, 0, // 3: four bytes wide
            0x21, 0, 0, 0, 0, 0, 0, 0, 0, // 4: eight bytes wide
        ];
        assert_eq!(numbers(&message).unwrap(), [1, 2, 3, 4]);
        let second = Fields::of(&message).nth(1).unwrap().unwrap();
        assert_eq!(second.record, Some(b"x".as_slice()));
        assert_eq!(numbers(&[]).unwrap(), [0; 0]);
    }

    #[test]
    fn what_cannot_be_a_message_is_refused_once() {
        for bad in [
            [0x00, 0x00].as_slice(),
            &[0x0a],
            &[0x0a, 0x02, b'x'],
            &[0x0b],
            &[0x08],
            &[0x08, 0x80],
            &[0xff; 11],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[0x80, 0x80, 0x80, 0x80, 0x10, 0x00],
        ] {
            assert_eq!(Fields::of(bad).filter(Result::is_err).count(), 1, "{bad:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(message in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _outcome = numbers(&message);
        }
    }
}
