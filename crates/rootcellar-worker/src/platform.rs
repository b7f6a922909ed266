//! What platform properties mean for the sandbox that an action runs in.
//!
//! Whether a worker may run the action at all was decided by the scheduler; here is what the properties change.

use rootcellar_reapi::{Error, PlatformProperty};

use crate::sandbox::{Network, Personality};

/// The part of a sandbox that an action can choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) network: Network,
    pub(crate) personality: Personality,
}

impl Environment {
    /// Reads `unixUID`, `unixGID`, `network` and `ISA`; what else there is has no effect here.
    pub(crate) fn of(properties: &[PlatformProperty]) -> Result<Self, Error> {
        let value = |name| {
            properties
                .iter()
                .find(|property| property.name == name)
                .map(|property| &*property.value)
        };
        let isa = |isa| {
            properties
                .iter()
                .any(|property| property.name == "ISA" && property.value == isa)
        };
        Ok(Self {
            uid: id("unixUID", value("unixUID"))?,
            gid: id("unixGID", value("unixGID"))?,
            network: if value("network") == Some("on") {
                Network::Host
            } else {
                Network::Loopback
            },
            personality: if isa("x86-32") && !isa("x86-64") {
                Personality::Bits32
            } else {
                Personality::Native
            },
        })
    }
}

/// Whoever asks for nobody is root inside, as BuildStream expects.
fn id(name: &str, value: Option<&str>) -> Result<u32, Error> {
    let Some(value) = value else { return Ok(0) };
    value
        .parse()
        .map_err(|_| Error::invalid_argument(format!("platform property {name}: {value:?} is no id")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(properties: &[(&str, &str)]) -> Result<Environment, Error> {
        let property = |(name, value): &(&str, &str)| PlatformProperty {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        Environment::of(&properties.iter().map(property).collect::<Vec<_>>())
    }

    #[test]
    fn an_action_that_asks_for_nothing_is_root_without_a_network() {
        let environment = environment(&[("OSFamily", "linux"), ("ISA", "x86-64")]).unwrap();
        assert_eq!((environment.uid, environment.gid), (0, 0));
        assert_eq!(
            (environment.network, environment.personality),
            (Network::Loopback, Personality::Native)
        );
    }

    #[test]
    fn properties_choose_identity_network_and_personality() {
        let asked = [
            ("unixUID", "1000"),
            ("unixGID", "100"),
            ("network", "on"),
            ("ISA", "x86-32"),
        ];
        let environment = environment(&asked).unwrap();
        assert_eq!((environment.uid, environment.gid), (1000, 100));
        assert_eq!(
            (environment.network, environment.personality),
            (Network::Host, Personality::Bits32)
        );
    }

    #[test]
    fn an_id_that_is_none_is_refused() {
        for bad in ["root", "-1", "4294967296", ""] {
            assert!(environment(&[("unixUID", bad)]).is_err(), "{bad:?}");
        }
    }
}
