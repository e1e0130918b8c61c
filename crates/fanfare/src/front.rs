//! The one listener of `dev`: who may ask at all, and which part answers.

use std::sync::Arc;

use fanfare_edge::Edge;
use fanfare_http::{Code, Cors, Handler, LocalHosts, Peer, Problem, Reply, ReplyFuture, Request, Response, options};
use fanfare_publish::PublishApi;
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method};

use crate::admin::Admin;
use crate::{demo, openapi};

/// Methods of pages that are only read.
pub(crate) const GET: &str = "GET, HEAD, OPTIONS";

/// Everything that `dev` answers with.
pub(crate) struct Front {
    pub(crate) hosts: LocalHosts,
    pub(crate) cors: Arc<Cors>,
    pub(crate) edge: Arc<Edge>,
    pub(crate) api: PublishApi,
    pub(crate) admin: Admin,
}

impl Handler for Front {
    fn handle(self: Arc<Self>, request: Request, peer: Peer) -> ReplyFuture {
        Box::pin(async move {
            let origin = request.headers().get(ORIGIN).cloned();
            let mut reply = self.answer(request, peer).await.unwrap_or_else(Reply::from);
            // A stream's head is written by the edge, with these headers.
            if let Reply::Response(response) = &mut reply {
                self.cors.decorate(origin.as_ref(), response.headers_mut());
            }
            reply
        })
    }
}

impl Front {
    async fn answer(&self, request: Request, peer: Peer) -> Result<Reply, Problem> {
        self.refuse_strangers(&request)?;
        if let Some(answer) = self.cors.preflight(&request) {
            return Ok(answer.into());
        }
        let path = request.uri().path();
        // Where both have a path, everything that is open at one is open at the other: here it is all. An edge's takes
        // the names of users, the publish API's has the further methods.
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if self.edge.serves(path) && (reads || !PublishApi::handles(path)) {
            return Ok(self.edge.clone().handle(request, peer).await);
        }
        if PublishApi::handles(path) {
            return Ok(self.api.handle(request, peer).await.into());
        }
        if path == openapi::PATH {
            return openapi::answer(request.method()).map(Reply::from);
        }
        if path == "/" {
            return page(request.method()).map(Reply::from);
        }
        match self.admin.answer(&request) {
            Some(answer) => answer.map(Reply::from),
            None => Err(Problem::no_such_path(path)),
        }
    }

    /// Without tokens, it is `Host` and `Origin` that keep the pages of foreign sites out: a page can make a browser
    /// ask 127.0.0.1, but it can't hide where it comes from.
    fn refuse_strangers(&self, request: &Request) -> Result<(), Problem> {
        let target = request.uri().authority().map(|authority| authority.as_str());
        for host in text(request.headers(), HOST).chain(target) {
            if !self.hosts.allow(host) {
                return Err(stranger("Host", host, host));
            }
        }
        if let Some(origin) = request.headers().get_all(ORIGIN).iter().find(|origin| !self.cors.allows(origin)) {
            let origin = origin.to_str().unwrap_or("…");
            return Err(stranger("Origin", origin, origin.split_once("://").map_or("", |(_, authority)| authority)));
        }
        Ok(())
    }
}

fn text(headers: &HeaderMap, name: http::HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().map(|value| value.to_str().unwrap_or("…"))
}

fn stranger(header: &str, value: &str, authority: &str) -> Problem {
    let detail = format!("this development server does not serve {header}: {value:.200}");
    let problem = Problem::new(Code::Forbidden, detail);
    match LocalHosts::name(authority) {
        "" => problem.hint("start it with --allow-host NAME to serve another host"),
        name => problem.hint(format!("if that is yours, start it with --allow-host {name:.200}")),
    }
}

fn page(method: &Method) -> Result<Response, Problem> {
    match *method {
        Method::GET | Method::HEAD => Ok(demo::page()),
        Method::OPTIONS => Ok(options(GET)),
        _ => Err(Problem::method_not_allowed(method, GET)),
    }
}
