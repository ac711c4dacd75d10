//! What each route needs: one table, which a test compares with the router.
//!
//! A route that is not in it needs the highest role. Only what is answered to everyone has none.

use axum::http::Method;

use crate::access::Role;

/// Method, path as the router has it, and the role that is needed; `None`: everyone may.
pub(super) const ROUTES: &[(Method, &str, Option<Role>)] = &[
    (Method::GET, "/healthz", None),
    (Method::GET, "/readyz", None),
    // What the form needs that asks for a token.
    (Method::GET, "/login", None),
    (Method::POST, "/login", None),
    (Method::POST, "/logout", None),
    (Method::GET, "/assets/style.css", None),
    (Method::GET, "/assets/live.js", None),
    (Method::GET, "/metrics", Some(Role::Metrics)),
    (Method::GET, "/", Some(Role::Read)),
    (Method::GET, "/fragment", Some(Role::Read)),
    (Method::GET, "/types/{type}", Some(Role::Read)),
    (Method::GET, "/types/{type}/fragment", Some(Role::Read)),
    (Method::GET, "/jobs", Some(Role::Read)),
    (Method::GET, "/jobs/{id}", Some(Role::Read)),
    (Method::GET, "/jobs/{id}/fragment", Some(Role::Read)),
    (Method::GET, "/jobs/all/{word}", Some(Role::Read)),
    (Method::POST, "/types/{type}/purge", Some(Role::Admin)),
    (Method::POST, "/types/{type}/{word}", Some(Role::Operate)),
    (Method::POST, "/jobs/{id}/{word}", Some(Role::Operate)),
    (Method::POST, "/jobs/all/{word}", Some(Role::Operate)),
    (Method::GET, "/v1/ecosystem", Some(Role::Read)),
    (Method::GET, "/v1/generations", Some(Role::Read)),
    (Method::GET, "/v1/jobs", Some(Role::Read)),
    (Method::GET, "/v1/jobs/{id}", Some(Role::Read)),
    (Method::GET, "/v1/jobs/{id}/why", Some(Role::Read)),
    (Method::GET, "/v1/jobs/{id}/timeline", Some(Role::Read)),
    (Method::GET, "/v1/events", Some(Role::Read)),
    (Method::GET, "/v1/openapi.json", Some(Role::Read)),
    (Method::GET, "/docs", Some(Role::Read)),
    (Method::POST, "/v1/jobs", Some(Role::Operate)),
    (Method::POST, "/v1/jobs/{id}/{action}", Some(Role::Operate)),
    (Method::POST, "/v1/types/{type}/retry", Some(Role::Operate)),
    (Method::POST, "/v1/types/{type}/pause", Some(Role::Operate)),
    (Method::POST, "/v1/types/{type}/resume", Some(Role::Operate)),
    (Method::POST, "/v1/types/{type}/rollback", Some(Role::Operate)),
    (Method::POST, "/v1/types/{type}/rollout/{word}", Some(Role::Operate)),
    (Method::POST, "/v1/types/{type}/purge", Some(Role::Admin)),
    (Method::POST, "/v1/reload", Some(Role::Admin)),
    (Method::POST, "/v1/upgrade", Some(Role::Admin)),
    (Method::POST, "/v1/backup", Some(Role::Admin)),
];

/// The role that a request needs; `None`: everyone may. `path` is the route's own, if one fits.
pub(super) fn needed(method: &Method, path: Option<&str>) -> Option<Role> {
    // HEAD is answered as GET is, without the body.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let route = ROUTES.iter().find(|(of, route, _)| of == method && Some(*route) == path);
    route.map_or(Some(Role::Admin), |(_, _, role)| *role)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// The number that the last route begins with in this text: `RouteId(3): …`.
    fn number(text: &str) -> usize {
        text.rsplit("RouteId(").next().and_then(|rest| rest.split(')').next()?.parse().ok()).unwrap()
    }

    /// Methods and paths that a router answers, as it shows itself to developers.
    fn of_router() -> BTreeSet<(String, String)> {
        let shown = format!("{:?}", super::super::routes(crate::page::routes()));
        let own = shown.split("fallback_router:").next().unwrap();
        let (endpoints, paths) = own.split_once("paths: {").unwrap();
        // RouteId(3): "/v1/jobs/{id}"
        let path = |part: &str| Some((number(part), part.split_once("): \"")?.1.split('"').next()?.to_owned()));
        let paths: BTreeMap<usize, String> =
            paths.split("RouteId(").skip(1).filter_map(|part| path(&format!("RouteId({part}"))).collect();
        // RouteId(3): MethodRouter(MethodRouter { …, allow_header: Bytes(b"GET,HEAD") })
        let parts: Vec<&str> = endpoints.split("MethodRouter {").collect();
        assert!(parts.len() > 10 && parts.len() == paths.len() + 1, "{} routers, {paths:?}", parts.len());
        let mut all = BTreeSet::new();
        for (before, part) in parts.iter().zip(parts.iter().skip(1)) {
            let allowed = part.split("allow_header: Bytes(b\"").nth(1).and_then(|rest| rest.split('"').next());
            for method in allowed.unwrap_or_else(|| panic!("{part}")).split(',').filter(|method| *method != "HEAD") {
                all.insert((method.to_owned(), paths[&number(before)].clone()));
            }
        }
        all
    }

    #[test]
    fn s11_every_route_has_its_role_in_the_table_and_the_table_no_other() {
        let listed: BTreeSet<_> =
            ROUTES.iter().map(|(method, path, _)| (method.to_string(), (*path).to_owned())).collect();
        assert_eq!(listed.len(), ROUTES.len(), "none twice");
        let routed = of_router();
        let missing: Vec<_> = routed.difference(&listed).collect();
        assert!(missing.is_empty(), "say in src/http/routes.rs which role these need: {missing:?}");
        let gone: Vec<_> = listed.difference(&routed).collect();
        assert!(gone.is_empty(), "no such route any more: {gone:?}");
    }

    #[test]
    fn s9_nothing_changes_by_a_request_to_look() {
        for (method, path, role) in ROUTES {
            let looks = *method == Method::GET;
            assert!(looks || *method == Method::POST, "{method} {path}");
            assert!(!looks || *role <= Some(Role::Read), "{path}: what only looks needs no more than to read");
            let form = ["/login", "/logout"].contains(path);
            assert!(looks || form || *role >= Some(Role::Operate), "{path}: whoever only reads changes nothing");
        }
    }

    #[test]
    fn s11_what_is_not_in_the_table_needs_the_highest_role() {
        assert_eq!(needed(&Method::GET, None), Some(Role::Admin));
        assert_eq!(needed(&Method::GET, Some("/v1/jobs/{id}/more")), Some(Role::Admin));
        assert_eq!(needed(&Method::DELETE, Some("/v1/jobs")), Some(Role::Admin));
        assert_eq!(needed(&Method::HEAD, Some("/healthz")), None);
        assert_eq!(needed(&Method::POST, Some("/v1/jobs")), Some(Role::Operate));
    }
}
