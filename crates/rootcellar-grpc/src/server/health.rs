//! `grpc.health.v1.Health`: whether the server, and each service it offers, takes calls.
//!
//! All services share one state, because they share one store: serving, or draining before the end. While it drains, watchers
//! are told and let go, so that they hold up nothing.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use rootcellar_proto::health::health_check_response::ServingStatus;
use rootcellar_proto::health::health_server::Health as HealthService;
use rootcellar_proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// Answers health checks, and is told by its owner when the server starts to drain.
#[derive(Debug, Clone)]
pub struct Health {
    /// Full names of the services offered; the empty name is the whole server.
    services: Arc<[&'static str]>,
    is_serving: Arc<watch::Sender<bool>>,
}

impl Health {
    /// Answers for the server as a whole and for `services`, full names as in `grpc.health.v1.Health`.
    pub fn new(services: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            services: std::iter::once("").chain(services).collect(),
            is_serving: Arc::new(watch::Sender::new(true)),
        }
    }

    /// Says from now on that nothing is served, and ends all watches after they said so.
    pub fn drain(&self) {
        self.is_serving.send_replace(false);
    }

    fn knows(&self, service: &str) -> bool {
        self.services.contains(&service)
    }
}

#[tonic::async_trait]
impl HealthService for Health {
    /// Answers once; an unknown service is NOT_FOUND (HL-1).
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !self.knows(&service) {
            return Err(Status::not_found(format!("no service {service:?} is offered here")));
        }
        Ok(Response::new(reply(*self.is_serving.borrow())))
    }

    /// Answers for all services at once (HL-3).
    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let now = reply(*self.is_serving.borrow());
        let statuses: HashMap<_, _> = self.services.iter().map(|name| ((*name).to_owned(), now)).collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    /// Answers now and on every change; an unknown service may yet come, so its watch stays open (HL-2).
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let is_known = self.knows(&request.into_inner().service);
        let changes = Watch {
            news: self.is_serving.subscribe(),
            is_known,
            next: Next::Now,
        };
        let replies = stream::unfold(changes, |mut watch| async {
            let reply = watch.reply().await?;
            Some((Ok(reply), watch))
        });
        Ok(Response::new(replies.boxed()))
    }
}

struct Watch {
    news: watch::Receiver<bool>,
    is_known: bool,
    next: Next,
}

enum Next {
    Now,
    OnDrain,
    End,
}

impl Watch {
    /// The next thing to tell; `None` ends the watch.
    async fn reply(&mut self) -> Option<HealthCheckResponse> {
        match self.next {
            Next::Now => {}
            // Fails when the server is gone, which ends the watch as well.
            Next::OnDrain => drop(self.news.wait_for(|is_serving| !is_serving).await.ok()?),
            Next::End => return None,
        }
        let is_serving = *self.news.borrow();
        self.next = if is_serving { Next::OnDrain } else { Next::End };
        Some(if self.is_known {
            reply(is_serving)
        } else {
            of(ServingStatus::ServiceUnknown)
        })
    }
}

fn reply(is_serving: bool) -> HealthCheckResponse {
    of(if is_serving {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    })
}

fn of(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
