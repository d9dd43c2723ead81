//! Sockets: binding, accepting, and ending.
//!
//! Every connection has a slot, a deadline for the head of each request, and
//! one for a client that no longer reads ([`StallGuard`]). An order to stop
//! closes the door first, lets running answers finish for a while, then ends
//! them with an error they can be told apart by, then closes what is left.

mod stall;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::app::App;
use crate::backend::Backend;
use crate::config::GatewayConfig;
use crate::{GatewayError, routes};
use stall::StallGuard;

/// Headers of one request; together with hyper's buffer limit this bounds its head.
const MAX_HEADERS: usize = 64;
const MAX_BUFFER_BYTES: usize = 64 << 10;

/// When the machine is out of sockets, how long until it is asked for one again.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Refusals in a row after which it is not asked any more.
const ACCEPT_FAILURES: u32 = 600;

/// What an answer that was told to end gets to send its last line in.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A gateway that has its port.
pub struct Server {
    listener: TcpListener,
    local: SocketAddr,
    app: Arc<App>,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Checks the configuration and takes the port. Nothing is answered before
    /// [`Server::run`].
    ///
    /// # Errors
    /// A broken rule of [`GatewayConfig::check`], or why the port cannot be had.
    pub async fn bind(
        backend: impl Backend,
        config: GatewayConfig,
    ) -> Result<Server, GatewayError> {
        config.check()?;
        let listen = config.listen;
        let listener = TcpListener::bind(listen).await.map_err(|e| refused(listen, e))?;
        let local = listener.local_addr().map_err(|e| refused(listen, e))?;
        let (stop, stopping) = watch::channel(false);
        let app = Arc::new(App::new(Arc::new(backend), config, stopping));
        Ok(Server { listener, local, app, stop })
    }

    /// The address clients connect to, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Where clients on this machine find it, without `/v1`.
    pub fn url(&self) -> String {
        let mut address = self.local;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        format!("http://{address}")
    }

    /// Answers until `shutdown` resolves, then drains.
    ///
    /// # Errors
    /// [`GatewayError::Deaf`] if the operating system keeps refusing connections;
    /// answers under way are cut off then.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), GatewayError> {
        tracing::info!(address = %self.local, "gateway listens");
        let router = TowerToHyperService::new(routes::router(Arc::clone(&self.app)));
        let slots = Arc::new(Semaphore::new(self.app.config.max_connections));
        let graceful = GracefulShutdown::new();
        let mut open = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            let (tcp, slot) = tokio::select! {
                () = &mut shutdown => break,
                accepted = accept(&self.listener, &slots) => accepted?,
            };
            while open.try_join_next().is_some() {}
            let config = &self.app.config;
            open.spawn(converse(tcp, slot, router.clone(), config.clone(), graceful.watcher()));
        }
        drop(self.listener);
        let drained = graceful.shutdown();
        tokio::pin!(drained);
        if tokio::time::timeout(self.app.config.drain, &mut drained).await.is_err() {
            self.stop.send_replace(true);
            let _ = tokio::time::timeout(LAST_WORDS, &mut drained).await;
        }
        open.shutdown().await;
        Ok(())
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("local", &self.local).finish_non_exhaustive()
    }
}

/// The next connection, once there is a slot for it.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Result<(TcpStream, Option<OwnedSemaphorePermit>), GatewayError> {
    // Never closed, hence never without a permit.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    let mut failures = 0;
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => return Ok((tcp, slot)),
            Err(source) if failures == ACCEPT_FAILURES => {
                return Err(GatewayError::Deaf { source });
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// One connection, until either side has had enough.
async fn converse(
    tcp: TcpStream,
    slot: Option<OwnedSemaphorePermit>,
    router: TowerToHyperService<axum::Router>,
    config: GatewayConfig,
    watcher: Watcher,
) {
    // Tokens are small; waiting to fill a segment would add latency to each.
    let _ = tcp.set_nodelay(true);
    let io = TokioIo::new(StallGuard::new(tcp, config.write_timeout));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(io, router);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "connection ended");
    }
    drop(slot);
}

fn refused(listen: SocketAddr, source: io::Error) -> GatewayError {
    match source.kind() {
        io::ErrorKind::AddrInUse => GatewayError::PortTaken { listen },
        _ => GatewayError::Bind { listen, source },
    }
}
