//! A list, page by page: however many objects there are, and however large, one page of bounded size is held at a time.

use std::time::Duration;

use kube::{Client, Error};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::request::{MAX_RESPONSE_BYTES, read};

/// `metav1.List`.
#[derive(Deserialize)]
struct Page<'a> {
    metadata: ListMeta,
    #[serde(borrow, default)]
    items: Vec<&'a RawValue>,
}

/// `metav1.ListMeta`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ListMeta {
    pub(crate) resource_version: String,
    pub(crate) r#continue: String,
}

/// Reads a list in pages of `limit` objects, or fewer where a page would be too large, and hands each page to `each`; returns the
/// version at which they were so. `uri` tells where a page of so many objects is that goes on after this token.
pub async fn list_pages(
    client: &Client,
    patience: Duration,
    mut limit: usize,
    uri: impl Fn(usize, &str) -> String,
    each: &mut (dyn FnMut(&[&RawValue]) -> serde_json::Result<()> + Send),
) -> kube::Result<String> {
    let mut next = String::new();
    loop {
        let Some(text) = read(client, &uri(limit, &next), patience).await? else {
            if limit <= 1 {
                return Err(Error::Service(
                    format!("one object takes more than {MAX_RESPONSE_BYTES} bytes").into(),
                ));
            }
            limit /= 2;
            continue;
        };
        let page: Page<'_> = serde_json::from_str(&text).map_err(Error::SerdeError)?;
        each(&page.items).map_err(Error::SerdeError)?;
        next = page.metadata.r#continue;
        if next.is_empty() {
            return Ok(page.metadata.resource_version);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use podshaper_testing::MockApiServer;

    #[tokio::test]
    async fn pages_that_are_too_large_are_asked_for_again() {
        let (client, mut server) = MockApiServer::start();
        let mut names = Vec::new();
        let mut each = |items: &[&RawValue]| {
            names.extend(items.iter().map(|item| item.get().len()));
            Ok(())
        };
        let uri = |limit: usize, next: &str| format!("/things?limit={limit}&continue={next}");
        let read = list_pages(&client, Duration::from_mins(1), 3, uri, &mut each);
        let serve = async {
            let large = "x".repeat(MAX_RESPONSE_BYTES);
            server
                .next("/things?limit=3&continue=")
                .await
                .answer(200, &json!({"metadata": {}, "items": [large]}));
            let first = json!({"metadata": {"continue": "a"}, "items": [1]});
            server.next("/things?limit=1&continue=").await.answer(200, &first);
            let last = json!({"metadata": {"resourceVersion": "7"}, "items": [22]});
            server.next("/things?limit=1&continue=a").await.answer(200, &last);
        };
        let (version, ()) = tokio::join!(read, serve);
        assert_eq!((version.unwrap().as_str(), &*names), ("7", &[1, 2][..]));
    }
}
