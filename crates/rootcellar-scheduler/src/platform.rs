//! Which worker can run which action: platform properties, asked for and offered.
//!
//! An action's [`Requirements`] are name-value pairs; a worker's [`Offer`] says for each name which values it accepts. A
//! worker can run an action if it accepts every pair; a name that it does not offer, it accepts no value of. There is one
//! rule for all names, and what is special about a few of them is in two places here: how requirements are read, and how an offer is built.
//!
//! | name | asked for | offered |
//! |---|---|---|
//! | `OSFamily` | once | one value |
//! | `ISA` | any number of times, all must be there | the machine's set, and what follows from it |
//! | `unixUID`, `unixGID` | once, a decimal number | a range |
//! | `network` | once, `on` or `off` | `off`, and `on` where the operator allows it |
//! | any other | any number of times | the values that the operator gives |
//!
//! Source: REAPI v2 `platform.md` (the lexicon), and the properties that BuildStream sends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use rootcellar_proto::reapi::Platform;

use crate::{Error, Result};

/// Properties of one action. Real ones have a handful.
const PROPERTIES_MAX: usize = 64;
/// Bytes of a name or a value. Real ones are words or digests; what is longer is kept out of the queue.
const PROPERTY_BYTES_MAX: usize = 1024;
/// Bytes of a value that an error message repeats.
const SHOWN_BYTES_MAX: usize = 80;

const OS_FAMILY: &str = "OSFamily";
const ISA: &str = "ISA";
const UNIX_UID: &str = "unixUID";
const UNIX_GID: &str = "unixGID";
const NETWORK: &str = "network";

/// Names that mean one choice: asking for two values asks for a contradiction.
const SINGLE_VALUED: [&str; 4] = [OS_FAMILY, UNIX_UID, UNIX_GID, NETWORK];
/// Names that clients send in good faith, for things that this server does not do.
const NOT_SUPPORTED_YET: [&str; 2] = ["remoteApisSocketPath", "chrootRootDigest"];
/// BuildStream's spellings, and the lexicon's.
const ISA_ALIASES: [(&str, &str); 4] = [
    ("aarch32", "arm-a32"),
    ("aarch32-be", "arm-a32-be"),
    ("aarch64", "arm-a64"),
    ("aarch64-be", "arm-a64-be"),
];

/// What an action asks of its worker: name-value pairs, checked, sorted, each once, in one spelling.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirements(Arc<[(String, String)]>);

impl Requirements {
    /// Reads the properties of `Action.platform`, or of `Command.platform` where the action has none.
    ///
    /// # Errors
    /// [`Error::InvalidPlatform`] as for [`Self::new`].
    pub fn of(platform: &Platform) -> Result<Self> {
        let pairs = platform.properties.iter();
        Self::new(pairs.map(|property| (property.name.as_str(), property.value.as_str())))
    }

    /// Reads name-value pairs in any order.
    ///
    /// # Errors
    /// [`Error::InvalidPlatform`] if there are too many or too long ones, if a name that means one choice comes twice, or if
    /// a user or group id is not a decimal number.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut properties = Vec::new();
        for (name, value) in pairs {
            check_property(name, value)?;
            properties.push((name.to_owned(), canonical(name, value).to_owned()));
            if properties.len() > PROPERTIES_MAX {
                return Err(invalid(format!("there are more than {PROPERTIES_MAX} properties")));
            }
        }
        properties.sort();
        check_repetitions(&properties)?;
        properties.dedup();
        Ok(Self(properties.into()))
    }

    /// The pairs, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

fn invalid(reason: String) -> Error {
    Error::InvalidPlatform(reason)
}

fn check_property(name: &str, value: &str) -> Result<()> {
    if name.len() > PROPERTY_BYTES_MAX || value.len() > PROPERTY_BYTES_MAX {
        return Err(invalid(format!(
            "property {} is longer than {PROPERTY_BYTES_MAX} bytes",
            Shown(name)
        )));
    }
    if [UNIX_UID, UNIX_GID].contains(&name) && parse_id(value).is_none() {
        return Err(invalid(format!("{name} is {}, not a decimal number", Shown(value))));
    }
    Ok(())
}

fn check_repetitions(sorted: &[(String, String)]) -> Result<()> {
    let repeated = sorted.windows(2).find_map(|pair| {
        let name = pair[0].0.as_str();
        (name == pair[1].0 && SINGLE_VALUED.contains(&name)).then_some(name)
    });
    match repeated {
        Some(name) => Err(invalid(format!("property {name} is given more than once"))),
        None => Ok(()),
    }
}

fn canonical<'a>(name: &str, value: &'a str) -> &'a str {
    if name == ISA { canonical_isa(value) } else { value }
}

fn canonical_isa(value: &str) -> &str {
    let alias = ISA_ALIASES.iter().find(|(alias, _)| *alias == value);
    alias.map_or(value, |(_, isa)| isa)
}

/// Reads an id as the kernel prints it: digits only, no leading zero. More digits than an id has are still a number.
fn parse_id(value: &str) -> Option<u64> {
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit()) && (value == "0" || !value.starts_with('0'));
    if is_plain { value.parse().ok() } else { None }
}

/// What a worker offers: for each property name, the values that it accepts.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offer(BTreeMap<String, Accepted>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Accepted {
    OneOf(BTreeSet<String>),
    Id { min: u32, max: u32 },
}

impl Offer {
    /// Offers nothing, which serves actions that ask for nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers the operating system and the architecture that this program was compiled for.
    pub fn native() -> Self {
        let offer = Self::new().os_family(std::env::consts::OS);
        match native_isa() {
            Some(isa) => offer.isa(isa),
            None => offer,
        }
    }

    /// Offers `OSFamily`, a lower-case name such as `linux`, in place of any other.
    #[must_use]
    pub fn os_family(mut self, name: &str) -> Self {
        self.0.remove(OS_FAMILY);
        self.property(OS_FAMILY, name)
    }

    /// Offers an instruction set or an extension of one as well. A 64-bit x86 also runs 32-bit programs; of the other
    /// architectures, that is not true of every machine.
    #[must_use]
    pub fn isa(self, isa: &str) -> Self {
        let isa = canonical_isa(isa);
        let offer = self.property(ISA, isa);
        if isa == "x86-64" {
            offer.property(ISA, "x86-32")
        } else {
            offer
        }
    }

    /// Offers to run commands under these user and group ids.
    #[must_use]
    pub fn unix_ids(mut self, ids: RangeInclusive<u32>) -> Self {
        let (min, max) = ids.into_inner();
        for name in [UNIX_UID, UNIX_GID] {
            self.0.insert(name.to_owned(), Accepted::Id { min, max });
        }
        self
    }

    /// Offers to run actions without a network and, if `allowed`, with one.
    #[must_use]
    pub fn network(mut self, allowed: bool) -> Self {
        self.0.remove(NETWORK);
        let offer = self.property(NETWORK, "off");
        if allowed { offer.property(NETWORK, "on") } else { offer }
    }

    /// Offers one more value of a property that is matched exactly.
    #[must_use]
    pub fn property(mut self, name: &str, value: &str) -> Self {
        let accepted = self.0.entry(name.to_owned());
        match accepted.or_insert_with(|| Accepted::OneOf(BTreeSet::new())) {
            Accepted::OneOf(values) => {
                values.insert(value.to_owned());
            }
            other @ Accepted::Id { .. } => *other = Accepted::OneOf(BTreeSet::from([value.to_owned()])),
        }
        self
    }

    /// Whether a worker with this offer can run an action with these requirements.
    pub fn satisfies(&self, requirements: &Requirements) -> bool {
        requirements.iter().all(|(name, value)| self.accepts(name, value))
    }

    fn accepts(&self, name: &str, value: &str) -> bool {
        match self.0.get(name) {
            Some(Accepted::OneOf(values)) => values.contains(value),
            Some(Accepted::Id { min, max }) => {
                parse_id(value).is_some_and(|id| (u64::from(*min)..=u64::from(*max)).contains(&id))
            }
            None => false,
        }
    }

    fn unmet<'a>(&self, requirements: &'a Requirements) -> impl Iterator<Item = (&'a str, &'a str)> {
        requirements.iter().filter(|(name, value)| !self.accepts(name, value))
    }
}

const fn native_isa() -> Option<&'static str> {
    if cfg!(target_arch = "x86_64") {
        Some("x86-64")
    } else if cfg!(target_arch = "x86") {
        Some("x86-32")
    } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
        Some("arm-a64")
    } else if cfg!(all(target_arch = "arm", target_endian = "little")) {
        Some("arm-a32")
    } else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
        Some("power-isa-le")
    } else if cfg!(target_arch = "powerpc64") {
        Some("power-isa-be")
    } else if cfg!(target_arch = "riscv64") {
        Some("rv64g")
    } else if cfg!(target_arch = "loongarch64") {
        Some("la64v100")
    } else if cfg!(target_arch = "sparc64") {
        Some("sparc-v9")
    } else {
        None
    }
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneOf(values) => {
                let values: Vec<_> = values.iter().map(String::as_str).collect();
                f.write_str(&values.join(", "))
            }
            Self::Id { min, max } => write!(f, "{min} to {max}"),
        }
    }
}

/// Says which property stands in the way of running an action, and what is on offer instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsatisfiable {
    /// The name of the property.
    pub property: String,
    /// The value that the action asks for.
    pub value: String,
    /// What workers offer under that name, each kind of worker in a text of its own; empty if none knows the name.
    pub offered: Vec<String>,
    /// The names that workers know.
    pub known: Vec<String>,
}

impl Unsatisfiable {
    /// Finds what to tell the author of `requirements` that none of `offers` satisfies: a pair that nobody accepts if there
    /// is one, else a pair that is missing where least is missing.
    ///
    /// # Panics
    /// If there are no offers, or one does satisfy them.
    pub(crate) fn explain<'a>(requirements: &Requirements, offers: impl Iterator<Item = &'a Offer> + Clone) -> Self {
        let mut pairs = requirements.iter();
        let nobody_accepts = pairs.find(|(name, value)| !offers.clone().any(|offer| offer.accepts(name, value)));
        let (property, value) = nobody_accepts.unwrap_or_else(|| {
            let closest = offers.clone().min_by_key(|offer| offer.unmet(requirements).count());
            let mut unmet = closest.expect("there are offers").unmet(requirements);
            unmet.next().expect("no offer satisfies all")
        });
        let offered: BTreeSet<_> = offers.clone().filter_map(|offer| offer.0.get(property)).collect();
        let known: BTreeSet<_> = offers.flat_map(|offer| offer.0.keys().cloned()).collect();
        Self {
            property: property.to_owned(),
            value: value.to_owned(),
            offered: offered.into_iter().map(Accepted::to_string).collect(),
            known: known.into_iter().collect(),
        }
    }
}

impl fmt::Display for Unsatisfiable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, value) = (Shown(&self.property), Shown(&self.value));
        write!(f, "no worker can run an action with platform property {name}={value}: ")?;
        if !self.offered.is_empty() {
            return write!(f, "offered is {}", self.offered.join("; or "));
        }
        if NOT_SUPPORTED_YET.contains(&self.property.as_str()) {
            return f.write_str("this server does not support that property yet");
        }
        if self.known.is_empty() {
            return f.write_str("no worker offers any property");
        }
        write!(f, "no worker knows that name, known are {}", self.known.join(", "))
    }
}

/// Text of a client, clipped for a message.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.floor_char_boundary(SHOWN_BYTES_MAX);
        write!(f, "{}", self.0[..end].escape_debug())?;
        if end < self.0.len() { f.write_str("...") } else { Ok(()) }
    }
}
