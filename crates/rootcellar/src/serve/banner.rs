//! What the server says when it is ready: where it listens, what it keeps, and what to paste into a client's configuration.

use std::fmt;
use std::net::SocketAddr;

use crate::config::Config;

/// The announcement, as text for a person.
pub(super) struct Banner<'a> {
    pub(super) config: &'a Config,
    pub(super) address: SocketAddr,
    /// The composition of the store.
    pub(super) store: &'a dyn fmt::Display,
    /// How input roots are staged; `None` without execution.
    pub(super) stager: Option<&'a dyn fmt::Display>,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, address, .. } = self;
        writeln!(f, "rootcellar {} is ready", env!("CARGO_PKG_VERSION"))?;
        writeln!(f, "  listens    {address} (gRPC, any instance name)")?;
        writeln!(f, "  stores     {}", self.store)?;
        match self.stager {
            Some(stager) => {
                writeln!(
                    f,
                    "  executes   {} actions at a time, input roots staged by {stager}",
                    config.workers
                )?;
            }
            None => writeln!(f, "  executes   nothing")?,
        }
        self.buildstream(f)?;
        self.bazel(f)
    }
}

impl Banner<'_> {
    fn buildstream(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = format!("http://{}", self.reachable());
        writeln!(f, "\nBuildStream (~/.config/buildstream.conf):")?;
        if self.stager.is_some() {
            writeln!(f, "  remote-execution:")?;
            writeln!(f, "    execution-service: {{url: \"{url}\"}}")?;
            writeln!(f, "    storage-service: {{url: \"{url}\"}}")?;
            writeln!(f, "    action-cache-service: {{url: \"{url}\", push: true}}")?;
        }
        writeln!(f, "  artifacts:")?;
        writeln!(f, "    servers: [{{url: \"{url}\", push: true}}]")?;
        writeln!(f, "  source-caches:")?;
        writeln!(f, "    servers: [{{url: \"{url}\", push: true}}]")
    }

    fn bazel(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nBazel (.bazelrc):")?;
        writeln!(f, "  build --remote_cache=grpc://{}", self.reachable())
    }

    /// The address as a client on this machine would write it.
    fn reachable(&self) -> String {
        let (ip, port) = (self.address.ip(), self.address.port());
        if ip.is_unspecified() {
            return format!("localhost:{port}");
        }
        self.address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    fn banner(listen: &str, stager: Option<&dyn fmt::Display>) -> String {
        let options = cli::Serve {
            listen: Some(listen.parse().unwrap()),
            insecure: true,
            ..cli::Serve::default()
        };
        let config = Config::load(&options).unwrap();
        Banner {
            config: &config,
            address: config.listen,
            store: &"disk",
            stager,
        }
        .to_string()
    }

    #[test]
    fn a_server_of_every_address_is_named_as_it_can_be_reached() {
        let text = banner("0.0.0.0:7000", Some(&"copy"));
        assert!(
            text.contains("execution-service: {url: \"http://localhost:7000\"}"),
            "{text}"
        );
        assert!(text.contains("staged by copy"));
    }

    #[test]
    fn a_cache_offers_no_execution() {
        let text = banner("127.0.0.1:7000", None);
        assert!(!text.contains("execution-service"), "{text}");
        assert!(text.contains("executes   nothing"));
    }
}
