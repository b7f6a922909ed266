//! A server of S3's protocol, in this process, over a directory. It checks signatures.

use std::net::SocketAddr;
use std::path::PathBuf;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The access key that the server knows.
pub const ACCESS_KEY_ID: &str = "rootcellar-tests";
/// The secret of it.
pub const SECRET_ACCESS_KEY: &str = "rootcellar-tests-secret";
/// The bucket that there is.
pub const BUCKET: &str = "builds";

/// The server, until it is dropped.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    directory: TempDir,
    /// `None` while it is stopped.
    runtime: Option<Runtime>,
}

impl S3Server {
    /// Starts a server with one empty bucket.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::create_dir(directory.path().join(BUCKET)).expect("the test's directory is writable");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (runtime, address) = serve(directory.path().to_owned(), any);
        Self {
            address,
            directory,
            runtime: Some(runtime),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Breaks all connections and takes no more. What is stored stays.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Starts again at the same address.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub fn start_again(&mut self) {
        let (runtime, _) = serve(self.directory.path().to_owned(), self.address);
        self.runtime = Some(runtime);
    }

    /// How many objects there are whose name holds `part`.
    ///
    /// # Panics
    ///
    /// When its directory cannot be listed.
    #[must_use]
    pub fn objects(&self, part: &str) -> usize {
        let (mut count, mut directories) = (0, vec![self.directory.path().join(BUCKET)]);
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).expect("the server's directory can be listed") {
                let path = entry.expect("the server's directory can be listed").path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    count += usize::from(path.to_string_lossy().contains(part));
                }
            }
        }
        count
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(directory: PathBuf, address: SocketAddr) -> (Runtime, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be made");
    let files = FileSystem::new(directory).expect("the server's directory is there");
    let mut service = S3ServiceBuilder::new(files);
    service.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
    let service = service.build();
    let listener = runtime.block_on(bind(address));
    let address = listener.local_addr().expect("a bound socket has an address");
    runtime.spawn(async move {
        let http = Builder::new(TokioExecutor::new());
        while let Ok((socket, _)) = listener.accept().await {
            // Small answers would wait for the client's delayed acknowledgement; if it cannot be set, they do.
            socket.set_nodelay(true).ok();
            let connection = http
                .serve_connection(TokioIo::new(socket), service.clone())
                .into_owned();
            // How a client's connection ends is the client's affair.
            tokio::spawn(async move { connection.await.ok() });
        }
    });
    (runtime, address)
}

/// Binds; a server that was stopped a moment ago may still hold the address.
async fn bind(address: SocketAddr) -> TcpListener {
    for _ in 0..100 {
        if let Ok(listener) = TcpListener::bind(address).await {
            return listener;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    TcpListener::bind(address).await.expect("the address is free")
}
