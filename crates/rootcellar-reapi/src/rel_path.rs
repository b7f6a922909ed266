//! Paths inside an input root.
//!
//! What a client sends may hold `.` and `..`. It is resolved here, by its text alone, into a path that cannot leave the root:
//! no other code joins paths of clients. Symbolic links are not looked at; whoever touches files below such a path takes care
//! that no link leads out.

use std::fmt;

use crate::node_name;
use crate::quoted::Quoted;
use crate::{Error, NodeName, Result};

/// The longest path, in bytes: what Linux takes in one call, without the NUL that ends it.
pub const PATH_BYTES_MAX: usize = 4095;

/// A path relative to the root, in normal form: valid names joined by single slashes, and nothing for the root itself.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelPath(String);

impl RelPath {
    /// The root itself.
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// Takes a path that is in normal form already.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if it is not: a segment is no [`NodeName`], or it is too long.
    pub fn parse(path: &str) -> Result<Self> {
        check_length(path)?;
        if !path.is_empty() {
            path.split('/')
                .try_for_each(node_name::check)
                .map_err(|error| error.about(format_args!("path {}", Quoted(path))))?;
        }
        Ok(Self(path.to_owned()))
    }

    /// Follows `path` from here by its text: `.` stays, `..` goes up, and the empty path is here.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if `path` begins or ends with a slash, leaves the root on its
    /// way, holds something that is no name, or leads to a path that is too long.
    pub fn join_lexically(&self, path: &str) -> Result<Self> {
        check_length(path)?;
        let mut joined = self.clone();
        if !path.is_empty() {
            path.split('/')
                .try_for_each(|segment| joined.step(segment))
                .and_then(|()| check_length(&joined.0))
                .map_err(|error| error.about(format_args!("path {}", Quoted(path))))?;
        }
        Ok(joined)
    }

    fn step(&mut self, segment: &str) -> Result<()> {
        match segment {
            "." => Ok(()),
            ".." if self.pop() => Ok(()),
            ".." => Err(Error::invalid_argument("it leaves the input root")),
            "" => Err(Error::invalid_argument(
                "it begins or ends with a slash, or has two in a row",
            )),
            name => {
                node_name::check(name)?;
                self.push(name);
                Ok(())
            }
        }
    }

    /// The path of a child.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if it gets too long.
    pub fn join(&self, name: &NodeName) -> Result<Self> {
        let mut child = self.clone();
        child.push(name.as_str());
        check_length(&child.0)?;
        Ok(child)
    }

    fn push(&mut self, name: &str) {
        if !self.0.is_empty() {
            self.0.push('/');
        }
        self.0.push_str(name);
    }

    /// Goes up one step; says whether there was one.
    fn pop(&mut self) -> bool {
        let was_root = self.is_root();
        self.0.truncate(self.0.rfind('/').unwrap_or(0));
        !was_root
    }

    /// The path of the directory that holds this; the root has none.
    pub fn parent(&self) -> Option<Self> {
        let mut parent = self.clone();
        parent.pop().then_some(parent)
    }

    /// The last segment; the root has none.
    pub fn file_name(&self) -> Option<&str> {
        self.components().next_back()
    }

    /// The segments from the root down; the root has none.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }

    /// Whether this is `ancestor` or lies below it.
    pub fn starts_with(&self, ancestor: &Self) -> bool {
        match self.0.strip_prefix(&ancestor.0) {
            Some(rest) => ancestor.is_root() || rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path as text, empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_length(path: &str) -> Result<()> {
    let len = path.len();
    if len <= PATH_BYTES_MAX {
        return Ok(());
    }
    Err(Error::invalid_argument(format!(
        "a path has {len} bytes; at most {PATH_BYTES_MAX} are allowed"
    )))
}

/// Writes the path for a person: the root is `.`.
impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "." } else { &self.0 })
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).unwrap()
    }

    #[test]
    fn dots_are_followed_by_the_text_alone() {
        let here = path("a/b");
        for (text, joined) in [
            ("", "a/b"),
            (".", "a/b"),
            ("..", "a"),
            ("../..", ""),
            ("../../x", "x"),
            ("./c/./d/..", "a/b/c"),
            ("...", "a/b/..."),
        ] {
            assert_eq!(here.join_lexically(text).unwrap(), path(joined), "{text:?}");
        }
    }

    #[test]
    fn no_path_leaves_the_root_even_for_a_moment() {
        for text in [
            "../../..",
            "../../../a/b",
            "x/../../../..",
            "/",
            "/a",
            "a/",
            "a//b",
            "a\0b",
        ] {
            assert!(path("a/b").join_lexically(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_the_normal_form_is_parsed() {
        for text in ["/", "a/", "/a", "a//b", ".", "a/.", "..", "a/../b", "a\0"] {
            assert!(RelPath::parse(text).is_err(), "{text:?}");
        }
        assert!(RelPath::parse(&"a/".repeat(PATH_BYTES_MAX)).is_err());
        assert!(path(&"a".repeat(255)).join_lexically(&"/a".repeat(1950)[1..]).is_err());
    }

    #[test]
    fn the_root_is_written_as_a_dot() {
        assert_eq!(RelPath::root().to_string(), ".");
        assert_eq!(RelPath::root().as_str(), "");
        assert_eq!(RelPath::root().parent(), None);
        assert_eq!(RelPath::root().components().count(), 0);
    }

    #[test]
    fn a_path_lies_below_its_ancestors_and_not_below_their_namesakes() {
        assert!(path("a/b").starts_with(&path("a")));
        assert!(path("a/b").starts_with(&RelPath::root()));
        assert!(path("a/b").starts_with(&path("a/b")));
        assert!(!path("ab").starts_with(&path("a")));
        assert!(!path("a").starts_with(&path("a/b")));
    }

    proptest! {
        #[test]
        fn joining_agrees_with_a_stack_of_segments(
            here in proptest::collection::vec("[a-c]{1,2}", 0..4),
            steps in proptest::collection::vec(prop_oneof![Just("..".to_owned()), Just(".".to_owned()), "[a-c]"], 0..8),
        ) {
            let mut stack = Some(here.clone());
            for step in &steps {
                stack = match (stack, step.as_str()) {
                    (Some(mut stack), "..") => stack.pop().map(|_| stack),
                    (stack, ".") => stack,
                    (stack, name) => stack.map(|mut stack| { stack.push(name.to_owned()); stack }),
                };
            }
            let joined = path(&here.join("/")).join_lexically(&steps.join("/")).ok();
            prop_assert_eq!(&joined.as_ref().map(|path| path.as_str().to_owned()), &stack.map(|stack| stack.join("/")));
            if let Some(joined) = joined {
                prop_assert_eq!(RelPath::parse(joined.as_str()).unwrap(), joined);
            }
        }
    }
}
