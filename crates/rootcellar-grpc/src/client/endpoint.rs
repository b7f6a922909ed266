//! Where a server is, and how connections to it are set up.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use http::Uri;
use http::uri::InvalidUri;
use rootcellar_reapi::{Error, ErrorKind, InstanceName, Result};
use tonic::transport::Channel;

use super::{Connection, Retry};

/// A server of the API, one of its instances, and how to talk to it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    url: String,
    uri: Uri,
    instance: InstanceName,
    transport: Transport,
    retry: Retry,
}

/// How connections are set up. Each value has a default and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transport {
    /// Bytes that the server may send on one stream before they are read, 2 MiB: on a fast link with a millisecond of delay a
    /// download needs that to fill it.
    pub stream_window_bytes: u32,
    /// Bytes that the server may send on all streams before they are read, 16 MiB: one slow reader does not stop the others.
    pub connection_window_bytes: u32,
    /// Bytes of an HTTP/2 frame, 64 KiB: a quarter of the frames that the default makes.
    pub frame_bytes_max: u32,
    /// Bytes of a message that is accepted, 16 MiB. Servers send 4 MiB at the most unless they know their peers.
    pub message_bytes_max: usize,
    /// How long connecting may take, 10 s.
    pub connect_timeout: Duration,
    /// How often a silent connection is asked whether it lives, 60 s: less than the idle time of common firewalls.
    pub keepalive_interval: Duration,
    /// How long the answer to that may take, 20 s.
    pub keepalive_timeout: Duration,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            stream_window_bytes: 2 << 20,
            connection_window_bytes: 16 << 20,
            frame_bytes_max: 64 << 10,
            message_bytes_max: 16 << 20,
            connect_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

impl Endpoint {
    /// Reads a URL, such as `http://127.0.0.1:8980`, and the name of an instance, which is empty on most servers.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if either is not well-formed, or the URL asks for what this client does not speak.
    pub fn parse(url: &str, instance: &str) -> Result<Self> {
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            uri: read_url(url).map_err(|error| error.about(format_args!("endpoint {url:?}")))?,
            instance: InstanceName::parse(instance)?,
            transport: Transport::default(),
            retry: Retry::default(),
        })
    }

    /// Sets up connections in another way than the default.
    #[must_use]
    pub fn with_transport(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// Tries again in another way than the default.
    #[must_use]
    pub fn with_retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// Connects.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if no server answers.
    pub async fn connect(self) -> Result<Connection> {
        let channel = self.channel().connect().await.map_err(|error| {
            let reason = root_cause(&error);
            let message = format!("no server answers at {self}: {reason}: is it running there?");
            Error::new(ErrorKind::Unavailable, message)
        })?;
        Ok(Connection::new(channel, self))
    }

    /// Connects when the first call is made, for a server that may come and go.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn connect_lazily(self) -> Connection {
        Connection::new(self.channel().connect_lazy(), self)
    }

    fn channel(&self) -> tonic::transport::Endpoint {
        let transport = &self.transport;
        Channel::builder(self.uri.clone())
            .initial_stream_window_size(transport.stream_window_bytes)
            .initial_connection_window_size(transport.connection_window_bytes)
            .max_frame_size(transport.frame_bytes_max)
            .connect_timeout(transport.connect_timeout)
            .http2_keep_alive_interval(transport.keepalive_interval)
            .keep_alive_timeout(transport.keepalive_timeout)
            .keep_alive_while_idle(true)
            // With Nagle's algorithm each small call waits for the peer's delayed acknowledgement, 40 ms.
            .tcp_nodelay(true)
    }

    /// The instance that is asked.
    pub fn instance(&self) -> &InstanceName {
        &self.instance
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(super) fn retry(&self) -> &Retry {
        &self.retry
    }
}

/// Writes the URL, and the instance where there is one.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)?;
        if self.instance.is_empty() {
            return Ok(());
        }
        write!(f, " (instance {:?})", self.instance.as_str())
    }
}

fn read_url(url: &str) -> Result<Uri> {
    let uri: Uri = url
        .parse()
        .map_err(|error: InvalidUri| Error::invalid_argument("it is no URL").caused_by(error))?;
    let Some(authority) = uri.authority() else {
        return Err(Error::invalid_argument("it names no host: write http://HOST:PORT"));
    };
    match uri.scheme_str() {
        Some("http" | "grpc") => {}
        Some("https" | "grpcs") => {
            let reason = "TLS is not spoken here: use http, over a network that you trust or a tunnel";
            return Err(Error::invalid_argument(reason));
        }
        Some(other) => return Err(Error::invalid_argument(format!("the scheme {other:?} should be http"))),
        None => return Err(Error::invalid_argument(format!("it has no scheme: write http://{url}"))),
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        let reason = "nothing may follow the port: an instance is named apart";
        return Err(Error::invalid_argument(reason));
    }
    Uri::builder()
        .scheme("http")
        .authority(authority.clone())
        .path_and_query("/")
        .build()
        .map_err(|error| Error::invalid_argument("it is no URL").caused_by(error))
}

/// The lowest error of a chain: the others only say that there is one below.
fn root_cause(error: &dyn StdError) -> &dyn StdError {
    let mut cause = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_scheme_and_host_and_nothing_else() {
        for good in [
            "http://127.0.0.1:8980",
            "http://localhost:1/",
            "grpc://cache.example:8980",
            "http://[::1]:8980",
        ] {
            assert!(Endpoint::parse(good, "").is_ok(), "{good}");
        }
        for (bad, advice) in [
            ("localhost:8980", "http://localhost:8980"),
            ("https://cache:8980", "TLS"),
            ("ftp://cache", "should be http"),
            ("http://cache:8980/main", "instance"),
            ("/tmp/socket", "http://HOST:PORT"),
            ("http://", "endpoint"),
            ("", "endpoint"),
        ] {
            let error = Endpoint::parse(bad, "").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(advice), "{error}");
        }
        assert!(Endpoint::parse("http://localhost:1", "a//b").is_err());
    }

    #[test]
    fn an_endpoint_shows_its_url_and_its_instance() {
        let shown = |instance| Endpoint::parse("http://cache:8980/", instance).unwrap().to_string();
        assert_eq!(shown(""), "http://cache:8980");
        assert_eq!(shown("main"), "http://cache:8980 (instance \"main\")");
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_told_by_its_address() {
        // The port was free a moment ago, and nobody listens on it now.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = Endpoint::parse(&url, "").unwrap().connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let text = error.to_string();
        assert!(
            text.contains(&url) && text.contains("refused") && text.contains("is it running"),
            "{text}"
        );
    }
}
