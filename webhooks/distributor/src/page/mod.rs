//! The page for people: every distributor, live, and a composer of manifests. The pod's page only reads.
//!
//! | path | response |
//! |---|---|
//! | `/` | the page: HTML, CSS and JavaScript of this folder, nothing from elsewhere |
//! | `/state` | the distributors with their status, as JSON |
//! | `/plan/N/GROUPS` | the groups of N pods as JSON; GROUPS is `WEIGHT:BASE:MAX,...`, where BASE and MAX may be empty |
//!
//! `kubectl podshaper ui` serves the same page with the rights of its user.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::uri::Authority;
use podshaper_kube::store::Store;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::policy::{Group, Policy, Tie};
use podshaper_server::admin::{Get, HttpResponse, Pages, StatusCode, document, text};
use serde_json::{Value, json};

use distributor_decision::distributor::Distributor;

const INDEX: &str = include_str!("index.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The most pods of a plan.
const MAX_PODS: u32 = 10_000;

/// The page of a webhook's pod.
pub struct Page {
    distributors: Arc<Store<Distributor>>,
    /// Names of the page, beside localhost and addresses.
    hosts: Vec<String>,
}

impl Page {
    /// A page about the distributors of a store, at localhost, at addresses, and at the names in `hosts`.
    pub fn new(distributors: Arc<Store<Distributor>>, hosts: Vec<String>) -> Self {
        Self { distributors, hosts }
    }

    /// Whether `host`, the header of a request, is a host of this page.
    ///
    /// A foreign site can give its own name the address of this page, and then read it with a browser that reaches it (DNS rebinding). It
    /// can't do so with a name that it doesn't own, or with an address.
    fn serves(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(&name))
    }

    fn state(&self) -> Value {
        self.distributors.all().iter().map(|(_, distributor)| describe(distributor)).collect()
    }
}

/// An item of `/state`.
pub fn describe(distributor: &Distributor) -> Value {
    let target = &distributor.target;
    json!({
        "namespace": distributor.namespace,
        "name": distributor.name,
        "target": {"kind": target.kind(), "name": target.name(), "selector": target.selector.as_ref().map(|_| target.text())},
        "error": distributor.spec.as_ref().err(),
        "status": distributor.status,
    })
}

/// The files of the page and its plans; none for other paths.
pub fn file_or_plan(path: &str) -> Option<HttpResponse> {
    Some(match path {
        "/" => document("text/html; charset=utf-8", INDEX),
        "/style.css" => document("text/css; charset=utf-8", STYLE),
        "/script.js" => document("text/javascript; charset=utf-8", SCRIPT),
        _ => match plan(path.strip_prefix("/plan/")?) {
            Ok(plan) => document("application/json", plan.to_string()),
            Err(error) => text(StatusCode::BAD_REQUEST, &error),
        },
    })
}

/// The response to `/plan/N/GROUPS`, or the error in it.
fn plan(query: &str) -> Result<Value, String> {
    let (pods, groups) = query.split_once('/').ok_or("expected /plan/N/WEIGHT:BASE:MAX,...")?;
    let pods: u32 =
        pods.parse().ok().filter(|pods| *pods <= MAX_PODS).ok_or(format!("N is 0 to {MAX_PODS}"))?;
    let number =
        |text: &str| text.parse::<u32>().map_err(|_| format!("{text:?} is no whole number from 0 on"));
    let groups = groups.split(',').enumerate().map(|(index, group)| {
        let mut numbers = group.split(':');
        let mut next = || numbers.next().filter(|text| !text.is_empty()).map(number).transpose();
        let weight = next()?.unwrap_or(0);
        let base = next()?.unwrap_or(0);
        let max = next()?;
        let node_labels = BTreeMap::from([("group".to_owned(), index.to_string())]);
        Ok(Group {
            name: format!("{}", index + 1).into(),
            node_labels,
            weight,
            base,
            max,
            ..Group::default()
        })
    });
    let groups = groups.collect::<Result<Vec<_>, String>>()?;
    let allocator = SlotAllocator::new(Policy::new(groups, Tie::First).map_err(|error| error.to_string())?);
    let sequence: Vec<_> = (0..pods).map_while(|slot| allocator.group_of(slot)).collect();
    Ok(json!({"pods": allocator.desired(pods), "sequence": sequence}))
}

impl Pages for Page {
    async fn get(&self, request: Get<'_>) -> HttpResponse {
        if !request.host.is_some_and(|host| self.serves(host)) {
            return text(
                StatusCode::MISDIRECTED_REQUEST,
                "unknown host: use localhost, an IP address, or a name of --page-host",
            );
        }
        if request.path == "/state" {
            return document("application/json", self.state().to_string());
        }
        file_or_plan(request.path)
            .unwrap_or_else(|| text(StatusCode::NOT_FOUND, "not found: the page is at /"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_has_the_shares_of_its_groups() {
        assert_eq!(plan("10/80,20").unwrap()["pods"], json!([8, 2]));
        assert_eq!(plan("10/0:1,1,1").unwrap()["pods"], json!([1, 5, 4]));
        assert_eq!(plan("5/1::2,1").unwrap()["pods"], json!([2, 3]));
        assert_eq!(plan("5/80,20").unwrap()["sequence"], json!([0, 0, 1, 0, 0]));
        for wrong in [
            "",
            "10",
            "x/1",
            "10001/1",
            "5/",
            "5/0,0",
            "5/-1",
            "5/1:2:1",
            "5/9999999",
            &format!("5/{}1", "1,".repeat(40)),
        ] {
            assert!(plan(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn page_for_other_host_is_status_421() {
        let page = Page::new(Arc::default(), vec!["distributor.example.com".to_owned()]);
        for host in [
            "localhost",
            "LOCALHOST:8082",
            "a.localhost.:80",
            "127.0.0.1:8082",
            "[::1]:8082",
            "10.0.0.1",
            "Distributor.example.com:443",
        ] {
            assert!(page.serves(host), "{host}");
        }
        for host in
            ["", "attacker.example", "localhost.attacker.example", "127.0.0.1.attacker.example:80", "[::1"]
        {
            assert!(!page.serves(host), "{host}");
            for path in ["/", "/state", "/plan/10/80,20"] {
                let request = Get { path, host: Some(host), authorization: None, accept: None };
                let response = page.get(request).await;
                assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST, "{host} {path}");
            }
        }
    }

    #[test]
    fn invalid_distributor_is_described_with_its_error() {
        let valid =
            json!({"distribution": [{"nodeLabel": {"type": "a"}, "weight": 80}], "target": {"name": "web"}});
        let valid = describe(&Distributor { name: "d".to_owned(), ..Distributor::from_spec(&valid) });
        assert_eq!((&valid["target"]["kind"], &valid["error"]), (&json!("Deployment"), &Value::Null));
        let selector = json!({"distribution": [], "target": {"selector": {"matchLabels": {"app": "web"}}}});
        assert_eq!(describe(&Distributor::from_spec(&selector))["target"]["selector"], "app=web");
        let invalid = describe(&Distributor::from_spec(&json!({})));
        assert_eq!(invalid["error"], "spec.target.name: must name the workload, unless there is a selector");
    }

    #[test]
    fn page_contains_nothing_from_elsewhere() {
        for page in [INDEX, STYLE, SCRIPT] {
            for elsewhere in [
                "http:",
                "https:",
                "//cdn",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "eval(",
                "document.write",
            ] {
                assert!(!page.contains(elsewhere), "{elsewhere}");
            }
        }
        assert!(
            !INDEX.contains("style=") && !INDEX.contains("onclick"),
            "the content security policy forbids it"
        );
    }
}
